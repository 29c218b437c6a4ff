"""What is wrong with the files of a data set: images missing, empty, broken, or in folders that no item is in."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from engine import Datum
from engine.data.bad_images import find_bad
from engine.data.manager import n_cores
from engine.text import printable

from ..splits.few_shot import Items, is_image
from .report import name_first
from .wrong_copies import how_to_move, list_folders
from .wrong_items import preparing


def find_unusable(*splits: Sequence[Datum]) -> tuple[list[str], list[str]]:
    """Returns the paths of items whose file is not there, and of those whose file is empty."""
    missing, empty = [], []
    for path in dict.fromkeys(item.impath for items in splits for item in items):
        try:
            if not os.stat(path).st_size:
                empty.append(path)
        except (FileNotFoundError, NotADirectoryError):
            missing.append(path)
    return missing, empty


def name_unusable(dataset: type, root: Path, missing: Sequence[str], empty: Sequence[str]) -> list[str]:
    """Returns what to say of missing and of empty files."""
    images, problems = root / dataset.dataset_dir / dataset.image_dir, []
    if missing:
        folders = [folder for folder in dict.fromkeys(map(os.path.dirname, missing)) if not os.path.isdir(folder)]
        remedy = mend_links(dataset, root, missing) or how_to_move(dataset, Path(missing[0]), images)
        whole = f"; {len(folders):,} folder(s) as a whole: {name_first(folders, images)}" if folders else ""
        problems.append(
            f"{dataset.__name__} lacks {len(missing):,} image(s), expected every listed file in {images}: "
            f"{name_first(missing, images)}{whole}. "
            f"{remedy or dataset.remedy(root)}"
        )
    if empty:
        problems.append(
            f"{dataset.__name__} has {len(empty):,} image(s) of 0 bytes, expected whole files in {images}: "
            f"{name_first(empty, images)}. Replace them, or delete them, "
            f"`find {shlex.quote(str(images))} -type f -empty -delete`, and run {preparing(dataset, root)}."
        )
    return problems


def require_links(dataset: type, root: Path, paths: Iterable[str | Path]) -> None:
    """Raises FileNotFoundError if a path is a link that leads nowhere, or in one: nothing is put over links."""
    if remedy := mend_links(dataset, root, paths):
        raise FileNotFoundError(
            f"{dataset.__name__} lacks images, expected them in {root / dataset.dataset_dir}. {remedy}"
        )


def mend_links(dataset: type, root: Path, missing: Iterable[str | Path]) -> str:
    """Returns what to do where missing files are links that lead nowhere, or in such a folder; "" where none is.

    They are the user's to mend or delete: the disk that they lead to may only not be mounted.
    """
    places = dict.fromkeys(place for path in map(Path, missing) for place in (path, *path.parents))
    links = [place for place in places if place.is_symlink() and not place.exists()]
    if not links:
        return ""
    delete = f"find -L {shlex.quote(str(root / dataset.dataset_dir))} -type l -exec rm {{}} +"
    return (
        f"{len(links):,} link(s) lead nowhere: {printable(str(links[0]))} to {printable(os.readlink(links[0]))}. Mount "
        f"or mend what they lead to, or delete them, `{delete}`, and run {preparing(dataset, root)}."
    )


def find_broken(paths: Sequence[str]) -> list[str]:
    """Returns the images that do not decode; all are read, in parallel."""
    return list(find_bad(paths, n_cores()))


def name_broken(dataset: type, root: Path, broken: Sequence[str]) -> list[str]:
    """Returns what to say of images that do not decode."""
    if not broken:
        return []
    images = root / dataset.dataset_dir / dataset.image_dir
    return [
        f"{dataset.__name__} has {len(broken):,} image(s) that do not decode, expected whole ones in {images}: "
        f"{name_first(broken, images)}. Replace them, or delete them and run {preparing(dataset, root)}."
    ]


def find_unlisted(dataset: type, root: Path, items: Items) -> list[str]:
    """Returns the folders, relative to that of the images, that hold images, but none that is an item."""
    images = root / dataset.dataset_dir / dataset.image_dir
    if dataset.listed_from_disk:
        return []
    listed = {Path(folder) for folder in {os.path.dirname(item.impath) for part in items for item in part}}
    known = listed | {above for folder in listed for above in folder.parents if above.is_relative_to(images)}
    return sorted(
        str(folder.relative_to(images))
        for place in known
        if place.is_relative_to(images)
        for folder in list_folders(place)
        if folder not in known and folder.name not in dataset.ignored_folders and _holds_images(folder)
    )


def name_unlisted(dataset: type, root: Path, unlisted: Sequence[str]) -> list[str]:
    """Returns what to say of folders of images that no item is in."""
    if not unlisted:
        return []
    return [
        f"{root / dataset.dataset_dir / dataset.image_dir} has {len(unlisted):,} folder(s) of images that are not "
        f"listed, expected those of the classes alone: {name_first(unlisted)}. No run reads them: move them away."
    ]


def _holds_images(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(is_image(entry.name) for entry in entries)
