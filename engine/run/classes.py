"""What a run tells apart, in its folder: so what was learned can be used without the data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from ..config.load import ConfigError
from ..data.datum import DatasetBase
from .folder import write_file
from .names import CLASSES


class Classes(NamedTuple):
    """The class names by label, and the hand-made prompt of the data set."""

    classnames: list[str]
    prompt_template: str


def write_classes(folder: str | Path, dataset: DatasetBase) -> None:
    """Writes the classes of a data set to a run's folder."""
    classes = Classes(dataset.classnames, dataset.prompt_template)
    write_file(folder, CLASSES, json.dumps(classes._asdict(), indent=0, ensure_ascii=False) + "\n")


def read_classes(folder: str | Path) -> Classes | None:
    """Returns the classes of the run in `folder`; None where it has not left them.

    Raises:
        ConfigError: If the file is not what a run writes.
    """
    path = Path(folder) / CLASSES
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        classes = Classes(content["classnames"], content["prompt_template"])
        texts = [*classes.classnames, classes.prompt_template]
        if len(texts) < 2 or not all(isinstance(text, str) for text in texts):
            raise ValueError("no names")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(f"{path} does not hold class names as a run writes them. Run it again.") from error
    return classes
