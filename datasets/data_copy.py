"""One copy of a data set: where it lies, what it holds, and how it is made complete.

`root/dataset_dir/image_dir` holds the images and `root/dataset_dir/split_file` lists the items.
"""

import hashlib
import inspect
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.data.datum import items_digest

from .splits.own_split import OWN_SPLIT_SEED
from .splits.split_file import Items, read_split


@dataclass(frozen=True)
class DataCopy:
    """A data set under a root."""

    dataset: type  # its class, with the facts of `FewShotDataset`
    root: Path  # the folder that holds `dataset_dir`
    source: str = ""  # what --from names: a folder or an address where files are looked for first; "" for none

    @property
    def name(self) -> str:
        return self.dataset.__name__

    @property
    def folder(self) -> Path:
        return self.root / self.dataset.dataset_dir

    @property
    def images(self) -> Path:
        return self.folder / self.dataset.image_dir

    @property
    def split(self) -> Path:
        """The papers' split file, there or not; the folder itself where the data set has none."""
        return self.folder / self.dataset.split_file

    @property
    def own_split(self) -> Path:
        """The split of our own, there or not."""
        return self.folder / f"split_seed{OWN_SPLIT_SEED}_{self.name}.json"

    @property
    def contents(self) -> list[Path]:
        """What holds the images, there or not."""
        return [self.folder / name for name in self.dataset.contents()]

    @property
    def command(self) -> str:
        """The command that completes the copy."""
        return f"`python -m datasets.prepare {self.name} --root {shlex.quote(str(self.root))}`"

    @property
    def remedy(self) -> str:
        """What to do where files are missing."""
        return self.dataset.remedy(self.root)

    def read(self) -> Items:
        """Returns all items; raises FileNotFoundError or ValueError where the copy is not whole."""
        return self.dataset.read_items(self.root)

    def is_complete(self) -> bool:
        """Says whether no image has to be fetched."""
        return self.dataset.is_complete(self.root)

    def prepare(self) -> None:
        """Fetches or makes what is missing, as the data set does it."""
        self._call(self.dataset.prepare)

    def plan(self) -> list[str]:
        """Returns what `prepare` would do, a line for each file."""
        return self._call(self.dataset.plan)

    def _call(self, hook: Callable) -> Any:
        """Calls a data set's own `prepare` or `plan`; in older plug-ins the source is called `given`."""
        names = inspect.signature(hook).parameters
        return hook(self.root, **{"source" if "source" in names else "given": self.source})

    def is_papers_split(self, split: Path, items: Items) -> bool | None:
        """Says whether a split file is a known one, or has the very items of the papers'; None: not known."""
        facts = self.dataset
        if facts.split_sha256 and hashlib.sha256(split.read_bytes()).hexdigest() == facts.split_sha256:
            return True
        if facts.split_items_sha256:
            return items_digest(split.parent / facts.image_dir, *items) == facts.split_items_sha256
        counts_fit = not any(facts.n_items) or tuple(len(part) for part in items) == facts.n_items
        return None if counts_fit else False

    def require_papers_split(self, split: Path) -> None:
        """Raises ValueError if a split file, wherever it lies, holds other items than the papers' does."""
        items = read_split(split, split.parent / self.dataset.image_dir)
        if self.is_papers_split(split, items) is False:
            counts = tuple(len(part) for part in items)
            raise ValueError(
                f"The split file {split} has {counts} train, val and test items; the papers' split has "
                f"{self.dataset.n_items}, in its own order. Fetch https://drive.google.com/file/d/"
                f"{self.dataset.split_id} instead."
            )
