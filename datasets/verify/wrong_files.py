"""What is wrong with the files of a copy: images missing, empty, broken, or in folders that no item is in."""

import os
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from engine import Datum
from engine.files import existing_part
from engine.text import printable

from ..data_copy import DataCopy
from ..splits.folder_items import list_folders, list_images
from ..splits.split_file import Items
from .misplaced import how_to_move
from .report import name_first


def require(copy: DataCopy, path: Path) -> None:
    """Raises FileNotFoundError if a path of the copy is missing, saying how far it exists and what to do."""
    if path.exists():
        return
    fetched = path.name in [file.name for file in copy.dataset.label_files]  # even where the images are not
    remedy = mend_links(copy, [path]) or how_to_move(copy, path) or (f"Run {copy.command}." if fetched else copy.remedy)
    raise FileNotFoundError(f"{copy.name}'s {path} is missing; of this path {existing_part(path)} exists. {remedy}")


def has_all_images(copy: DataCopy) -> bool:
    """Says whether all images are there; where no split tells which, whether their folders are.

    Raises:
        FileNotFoundError: If some are links that lead nowhere.
    """
    if not all(path.exists() for path in copy.contents):
        return False
    if copy.dataset.split_file and not (copy.split.exists() or copy.own_split.exists()):
        return True
    missing, _ = find_unusable(*copy.read())
    if remedy := mend_links(copy, missing):  # nothing is put over links
        raise FileNotFoundError(f"{copy.name} lacks images in {copy.folder}. {remedy}")
    return not missing


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


def name_unusable(copy: DataCopy, missing: Sequence[str], empty: Sequence[str]) -> list[str]:
    """Returns what to say of missing and of empty files."""
    problems = []
    if missing:
        folders = [folder for folder in dict.fromkeys(map(os.path.dirname, missing)) if not os.path.isdir(folder)]
        remedy = (
            mend_links(copy, missing)
            or mend_backslashes(missing, copy.split)
            or how_to_move(copy, Path(missing[0]), copy.images)
            or copy.remedy
        )
        whole = f"; {len(folders):,} folder(s) as a whole: {name_first(folders, copy.images)}" if folders else ""
        problems.append(
            f"{copy.name} lacks {len(missing):,} image(s) in {copy.images}: {name_first(missing, copy.images)}{whole}. "
            f"{remedy}"
        )
    if empty:
        problems.append(
            f"{copy.name} has {len(empty):,} image(s) of 0 bytes in {copy.images}: {name_first(empty, copy.images)}. "
            f"Replace them, or delete them, `find {shlex.quote(str(copy.images))} -type f -empty -delete`, and run "
            f"{copy.command}."
        )
    return problems


def mend_links(copy: DataCopy, missing: Iterable[str | Path]) -> str:
    """Returns what to do where missing files are links that lead nowhere, or in such a folder; "" where none is.

    They are the user's to mend or delete: the disk that they lead to may only not be mounted.
    """
    paths = dict.fromkeys(part for path in map(Path, missing) for part in (path, *path.parents))
    links = [path for path in paths if path.is_symlink() and not path.exists()]
    if not links:
        return ""
    delete = f"find -L {shlex.quote(str(copy.folder))} -type l -exec rm {{}} +"
    return (
        f"{len(links):,} link(s) lead nowhere: {printable(str(links[0]))} to {printable(os.readlink(links[0]))}. Mount "
        f"or mend what they lead to, or delete them, `{delete}`, and run {copy.command}."
    )


def mend_backslashes(missing: Iterable[str], split: Path) -> str:
    """Returns what to do where missing files are there once backslashes are slashes; "" where none is."""
    slashed = [path for path in missing if "\\" in path and os.path.exists(path.replace("\\", "/"))]
    if not slashed:
        return ""
    return (
        f"{len(slashed):,} of them are there: their listed paths have backslashes, as Windows writes them, "
        f"{printable(slashed[0])} first. Write slashes (/) in {split if split.is_file() else 'their list'}."
    )


def name_broken(copy: DataCopy, broken: Sequence[str]) -> list[str]:
    """Returns what to say of images that do not decode."""
    if not broken:
        return []
    return [
        f"{copy.name} has {len(broken):,} image(s) that do not decode in {copy.images}: "
        f"{name_first(broken, copy.images)}. Replace them, or delete them and run {copy.command}."
    ]


def name_unlisted(copy: DataCopy, items: Items) -> list[str]:
    """Returns what to say of folders that hold images, none of which is an item."""
    if copy.dataset.listed_from_disk:
        return []
    listed = {Path(folder) for folder in {os.path.dirname(item.impath) for part in items for item in part}}
    known = listed | {above for folder in listed for above in folder.parents if above.is_relative_to(copy.images)}
    unlisted = sorted(
        str(folder.relative_to(copy.images))
        for above in known
        if above.is_relative_to(copy.images)
        for folder in list_folders(above)
        if folder not in known and folder.name not in copy.dataset.ignored_folders and list_images(folder)
    )
    if not unlisted:
        return []
    return [
        f"{copy.images} has {len(unlisted):,} folder(s) of images that are not listed: {name_first(unlisted)}. No run "
        "reads them: move them away."
    ]
