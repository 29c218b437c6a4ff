"""YAML of strangers: plain values only, of a size, depth and kind that cannot keep a machine busy.

No tag builds an object (yaml.SafeLoader). An alias is refused: a few lines of them stand for billions of values.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ..text import printable

MAX_BYTES = 100_000  # some seconds of reading
MAX_DEPTH = 50
MAX_LENGTH = 3000  # of one value: a path may be long, and Python writes whole numbers of up to 4,300 digits


def load_plain_yaml(path: Path) -> Any:
    """Returns what a YAML file holds.

    Raises:
        ValueError: If it is not YAML in UTF-8, or larger, deeper or otherwise than a config has any need to be.
    """
    n_bytes = path.stat().st_size
    if n_bytes > MAX_BYTES:
        raise ValueError(f"it has {n_bytes:,} bytes, expected at most {MAX_BYTES:,}")
    content = path.read_bytes()
    try:
        return _PlainLoader(content.decode("utf-8")).get_single_data()
    except Exception as error:  # PyYAML lets through almost any, by what is broken
        reason = str(error) if isinstance(error, yaml.YAMLError) else f"{type(error).__name__}: {error}"
        raise ValueError("\n".join(map(printable, reason.splitlines()))) from error


def dump_plain_yaml(tree: dict[str, Any]) -> str:
    """Returns the text of a config that `load_plain_yaml` reads: equal values are both written out."""
    return yaml.dump(tree, Dumper=_PlainDumper)


def why_unreadable(tree: dict[str, Any]) -> str:
    """Returns why `load_plain_yaml` would not read what `dump_plain_yaml` writes, but for its size; "" if it would."""
    try:
        _PlainLoader(dump_plain_yaml(tree)).get_single_node()
    except yaml.MarkedYAMLError as error:
        return error.problem
    return ""


class _PlainDumper(yaml.SafeDumper):
    yaml_multi_representers = {dict: yaml.SafeDumper.represent_dict}  # yacs' nodes

    def ignore_aliases(self, data):
        return True


class _PlainLoader(yaml.SafeLoader):
    depth = 0

    def compose_node(self, parent, index):
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            self._refuse(event, f"there is the alias *{event.anchor}, expected its value written out")
        if isinstance(event, yaml.ScalarEvent) and len(event.value) > MAX_LENGTH:
            self._refuse(event, f"a value has {len(event.value):,} characters, expected at most {MAX_LENGTH:,}")
        if self.depth == MAX_DEPTH:
            self._refuse(event, f"values are nested deeper than {MAX_DEPTH}")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def _refuse(self, event: yaml.Event, what: str) -> None:
        raise yaml.MarkedYAMLError(None, None, what, event.start_mark)
