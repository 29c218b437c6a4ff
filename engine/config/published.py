"""A method's options as its authors' files and commands have them, read as the method's own.

Some authors keep them in another method's group, as KgCoOp's do in TRAINER.COOP, and say some in another way, such as
CTX_INIT True for the words of their paper.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..registry import TRAINER_REGISTRY
from ..text import shorten

Values = dict[str, Any]  # flat, as `read_yaml` returns them


@dataclass(frozen=True)
class PublishedOptions:
    """How authors name a method's options.

    Attributes:
        node: The method's own group under TRAINER.
        group: The group in which the authors have the options; "": the same.
        meanings: {key: {the authors' value, as text: the method's own}}.
        fixed: {key: value} of what the method does not let one choose; the authors' files may say this value alone.
    """

    node: str = ""
    group: str = ""
    meanings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)

    def as_own(self, values: Values, known: Collection[str]) -> tuple[Values, list[str]]:
        """Returns the values of one file or command with the method's own keys, and what is wrong with them.

        Where a key stands in both groups, the method's own counts.

        Args:
            values: As they were read; their order stays.
            known: All keys that there are.
        """
        found, errors = {}, []
        for key, value in values.items():
            *group, name = key.split(".")
            own, is_theirs = f"TRAINER.{self.node}.{name}", group == ["TRAINER", self.group]
            if is_theirs and name in self.fixed:
                if str(value) != str(self.fixed[name]):
                    errors.append(f"{key} is {shorten(value)}; here it must be {self.fixed[name]}. Leave it out.")
            elif key == own or (is_theirs and own in known and own not in values):
                found[own] = self.meanings.get(name, {}).get(str(value), value)
            elif key in known or not (is_theirs and own in values):
                found[key] = value
        return found, errors


def options_of(names: list[Any]) -> PublishedOptions:
    """Returns how the authors of a method name its options; of several names in a command the last one counts."""
    is_known = bool(names) and isinstance(names[-1], str) and names[-1] in TRAINER_REGISTRY
    return (is_known and TRAINER_REGISTRY.get(names[-1]).published_options) or PublishedOptions()
