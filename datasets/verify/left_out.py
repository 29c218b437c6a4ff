"""What lies in a folder of the user's own images and no run reads: counted by reason, the first of each named."""

import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from engine.data.image_files import HIDDEN, IMAGE, PICTURE_SUFFIXES, is_image, kind_of
from engine.text import one_form, printable

from ..splits.folder_items import find_parts, list_folders
from ..splits.split_file import Items
from .report import name_first

N_SEARCHED = 1000  # files of a folder that is no class folder, so that the search ends at once

UNLISTED, OTHER_FORMAT, DEEPER, BESIDE, IS_HIDDEN = range(5)
WHY = {
    DEEPER: ("they lie in subfolders of class folders", "Move them up into the class folder, or away."),
    BESIDE: ("they lie beside the class folders", "Move them into a class folder, or away."),
    IS_HIDDEN: ("a name in their path begins with . or __", "Rename it, or move them away."),
}
Left = dict[int, list[str]]  # reason -> paths


def name_left_out(root: Path, parts: Sequence[Path], items: Items, split: Path | None) -> list[str]:
    """Returns a sentence for each reason for which files are not read.

    Args:
        root: The user's folder.
        parts: Its folders of class folders, train/ ...; none where it holds the class folders itself.
        items: All that is read.
        split: The file that lists them, if any.
    """
    left = _find_left_out(parts or [root], {item.impath for part in items for item in part})
    sentences = _name_twins(parts or [root])
    if parts:
        left[BESIDE] += _pictures(path for path in _paths_in(root) if not os.path.isdir(path))
        sentences += _name_other_folders(root, parts)
    if (paths := left[UNLISTED]) and split:
        sentences.append(
            f"{split} does not list {len(paths):,} image(s) of its folder: delete it to draw a new split "
            f"({_first(paths, root)})."
        )
    return [*sentences, *_name_reasons(root, left)]


def why_empty(folder: Path, names: Sequence[str]) -> str:
    """Returns what to do where class folders of these names hold no images: what they hold instead."""
    left: Left = defaultdict(list)
    for name in names:
        _add_left_out(left, os.path.join(folder, name), read=())
    if not left[DEEPER]:
        return " ".join(_name_reasons(folder, left)) or "Fill it or remove it."
    deepest = list(dict.fromkeys(map(os.path.dirname, left[DEEPER])))
    above = Path(deepest[0]).parent
    above = printable(str(above.parent if find_parts(above.parent) else above))
    return (
        f"Images lie deeper, in {name_first(deepest, folder)}. If these are class folders, pass the folder that holds "
        f"them, --root {above} (DATA={above} to the scripts); if two such folders are a training and a test part, call "
        "them train/ and test/. If not, move the images up into the class folders."
    )


def _find_left_out(parents: Sequence[Path], read: Collection[str]) -> Left:
    """Returns the paths, by reason, of what is not `read` of the class folders in `parents`."""
    left: Left = defaultdict(list)
    for path in (path for parent in parents for path in _paths_in(parent)):
        if not os.path.isdir(path):
            left[BESIDE] += _pictures([path])
        elif os.path.basename(path).startswith(HIDDEN):
            left[IS_HIDDEN] += _files_in_hidden(path)
        else:
            _add_left_out(left, path, read)
    return left


def _add_left_out(left: Left, folder: str, read: Collection[str]) -> None:
    """Adds what is not read of a class folder."""
    for path in _paths_in(folder):
        if path in read:
            continue
        name = os.path.basename(path)
        if not os.path.isdir(path):
            if kind := kind_of(path):
                left[OTHER_FORMAT if kind != IMAGE else IS_HIDDEN if name.startswith(".") else UNLISTED].append(path)
        elif name.startswith(HIDDEN):
            left[IS_HIDDEN] += _files_in_hidden(path)
        else:  # a split file may list some
            left[DEEPER] += _pictures(below for below in _files_below(path) if below not in read)


def _name_reasons(root: Path, left: Left) -> Iterator[str]:
    """Yields the sentences on what lies where it cannot be read, or is of a format that cannot."""
    if paths := left[OTHER_FORMAT]:
        counts = Counter(map(kind_of, paths))
        shown = [f"{n:,} {kind}" for kind, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
        yield (
            f"{len(paths):,} file(s) in {root} are not read: {name_first(shown)} ({_first(paths, root)}). Save images "
            "as JPEG or PNG, and move other files away."
        )
    for reason, (why, remedy) in WHY.items():
        if paths := left[reason]:
            yield f"{len(paths):,} image(s) in {root} are not read: {why} ({_first(paths, root)}). {remedy}"


def _name_other_folders(root: Path, parts: Sequence[Path]) -> list[str]:
    """Returns what to say of folders of images beside train/, val/ and test/."""
    others = [folder for folder in list_folders(root) if folder not in parts]
    others = [folder.name for folder in others if any(_pictures(islice(_files_below(folder), N_SEARCHED)))]
    if not others:
        return []
    return [
        f"{len(others):,} folder(s) of images in {root} are not read: {name_first(others)}. Only "
        f"{', '.join(part.name for part in parts)} are. Move them away; one of validation images must be called val."
    ]


def _name_twins(parents: Sequence[Path]) -> list[str]:
    """Returns what to say of class folders with the same name in two Unicode forms."""
    sentences = []
    for parent in parents:
        names = Counter(one_form(folder.name) for folder in list_folders(parent))
        sentences += [
            f"{n} class folders in {parent} are called {printable(name)}, in different Unicode forms (NFC, NFD): their "
            "prompts are the same, so that no run tells them apart. Move their images into one folder."
            for name, n in names.items()
            if n > 1
        ]
    return sentences


def _pictures(paths: Iterable[str]) -> Iterator[str]:
    """Yields the paths of images, also of formats that are not read; of other files nobody knows what they are."""
    return (path for path in paths if kind_of(path) in (IMAGE, *PICTURE_SUFFIXES))


def _files_in_hidden(folder: str) -> list[str]:
    """Returns the images below a hidden folder; by name alone, for a program may have filled it."""
    return [path for path in _files_below(folder) if is_image(os.path.basename(path))]


def _files_below(folder: str | Path) -> Iterator[str]:
    for above, folders, names in os.walk(folder):
        folders.sort()
        yield from (os.path.join(above, name) for name in sorted(names))


def _paths_in(folder: str | Path) -> list[str]:
    above = os.path.join(folder, "")
    return [above + name for name in sorted(os.listdir(folder))]


def _first(paths: Sequence[str], root: Path) -> str:
    return f"{name_first(paths[:1], root)} is the first"
