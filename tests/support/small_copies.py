"""Small copies of the papers' data sets: laid out on disk, and in the archives of publishers and mirror, on loopback.

The content is drawn; folders, file names, annotations and what else lies in an archive are as the real ones have them.
"""

import gzip
import hashlib
import io
import json
import random
import shutil
import tarfile
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import pytest
from PIL import Image
from torchvision.datasets.imagenet import ARCHIVE_META

from datasets.check import find_dataset
from datasets.fetch.sources import MIRROR
from engine import get_cfg_default
from tests.support.file_server import FileServer, no_network, serve, serve_drive
from tests.support.small_annotations import annotate, imagenet_devkit, lines

ITEMS_OF_CLASS = {"train": range(6), "val": range(6, 9), "test": range(9, 12)}
COLOURS = ((220, 40, 40), (40, 200, 60), (50, 60, 220), (200, 200, 60), (190, 60, 200))

# The path of an image, from the folder that the split file's paths start from, and three classes: FOLDER or ACTION in
# that path -> class name. Where the path has neither, the class name stands for both.
PATTERNS = {
    "caltech101": ("FOLDER/image_{number:04d}.jpg", "Faces: face, accordion, airplanes: airplane"),
    "oxford_pets": ("FOLDER_{number}.jpg", "Abyssinian: abyssinian, american_bulldog, beagle"),
    "stanford_cars": (
        "cars_{half}/{image:05d}.jpg",
        "2000 AM General Hummer SUV, 2012 Acura RL Sedan, 2012 Tesla Model S",
    ),
    "oxford_flowers": ("image_{image:05d}.jpg", "passion flower, water lily, colt's foot"),
    "food101": ("FOLDER/{number}.jpg", "apple_pie, baby_back_ribs, baklava"),
    "fgvc_aircraft": ("{image:07d}.jpg", "707-320, Spitfire, F/A-18"),
    "sun397": (
        "FOLDER/sun_{number}.jpg",
        "a/abbey: abbey, a/alley: alley, a/apartment_building/outdoor: outdoor apartment_building",
    ),
    "dtd": ("FOLDER/FOLDER_{number:04d}.jpg", "banded, blotchy, polka-dotted"),
    "eurosat": ("FOLDER/FOLDER_{number}.jpg", "AnnualCrop: Annual Crop Land, Forest, SeaLake: Sea or Lake"),
    "ucf101": ("FOLDER/v_ACTION_g01_c{number:02d}.jpg", "Apply_Eye_Makeup, Apply_Lipstick, Archery"),
}


def _classes(pattern: str, folders: str) -> tuple[tuple[str, str], ...]:
    pairs = [(pair.split(": ")[0], pair.split(": ")[-1]) for pair in folders.split(", ")]
    return tuple(
        (pattern.replace("FOLDER", folder).replace("ACTION", folder.replace("_", "")), name) for folder, name in pairs
    )


# For each class the path of an image, and the class name.
CLASSES = {name: _classes(*facts) for name, facts in PATTERNS.items()}
# The classes of ImageNet and its shifted versions; A and R have those of SUBSET_LABELS.
WNIDS = ("n01440764", "n01484850", "n01514668", "n01518878", "n01614925")
WNID_NAMES = ("tench", "great white shark", "cock", "ostrich", "bald eagle")
SHIFTED = ("imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r")
SUBSETS = ("imagenet_a", "imagenet_r")
SUBSET_LABELS = (1, 2, 4)
IMAGENET_PATHS = {
    "imagenet": {"train": "train/{wnid}/{wnid}_{number}.JPEG", "test": "val/{wnid}/ILSVRC2012_val_{image:08d}.JPEG"},
    "imagenetv2": {"test": "{label}/{number:040x}.jpeg"},
    "imagenet_sketch": {"test": "{wnid}/sketch_{number:02d}.JPEG"},
    "imagenet_a": {"test": "{wnid}/0.0{number:02d}_digital clock _ digital clock_0.86.jpg"},
    "imagenet_r": {"test": "{wnid}/art_{number:02d}.jpg"},
}
MIRROR_FOLDER = MIRROR.replace(":", "/")
PAPER_SETS = (*CLASSES, "imagenet", *SHIFTED)
FETCHED_SETS = (*CLASSES, *SHIFTED)

# Of the publishers' archives: the folder of the images in it, and what else it holds.
ARCHIVES = {
    "101_ObjectCategories.tar.gz": (
        "101_ObjectCategories/",
        ("101_ObjectCategories/BACKGROUND_Google/image_0001.jpg",),
    ),
    "caltech-101.zip": (
        "caltech-101/",
        ("caltech-101/Annotations.tar", "caltech-101/show_annotation.m", "__MACOSX/caltech-101/._Annotations.tar"),
    ),
    "images.tar.gz": ("images/", ("images/Abyssinian_100.mat",)),
    "annotations.tar.gz": ("", ("annotations/README", "annotations/list.txt", "annotations/trimaps/._beagle_1.png")),
    "102flowers.tgz": ("jpg/", ()),
    "food-101.tar.gz": ("food-101/images/", ("food-101/README.txt", "food-101/meta/train.txt", "food-101/meta/._a")),
    "fgvc-aircraft-2013b.tar.gz": ("fgvc-aircraft-2013b/data/images/", ("fgvc-aircraft-2013b/data/families.txt",)),
    "dtd-r1.0.1.tar.gz": ("dtd/images/", ("dtd/imdb/imdb.mat", "dtd/images/banded/.directory")),
    "EuroSAT.zip": ("2750/", ()),
    "UCF-101-midframes.zip": ("UCF-101-midframes/", ("__MACOSX/UCF-101-midframes/._Archery",)),
    "UCF101TrainTestSplits-RecognitionTask.zip": ("", ("ucfTrainTestlist/trainlist02.txt",)),
    "imagenetv2-matched-frequency.tar.gz": ("imagenetv2-matched-frequency-format-val/", ()),
    "imagenet-a.tar": ("imagenet-a/", ("imagenet-a/README.txt",)),
    "imagenet-r.tar": ("imagenet-r/", ("imagenet-r/README.txt",)),
    "ImageNet-Sketch.zip": ("sketch/", ()),
}
OF_ANNOTATIONS = ("annotations.tar.gz", "UCF101TrainTestSplits-RecognitionTask.zip")


@lru_cache
def jpeg(label: int, number: int) -> bytes:
    """Returns an image of 24 x 20 pixels in the class's colour; each number has its own stripe."""
    image = Image.new("RGB", (24, 20), COLOURS[label])
    image.paste((255, 255, 255), (number % 24, 0, number % 24 + 2, 20))
    data = io.BytesIO()
    image.save(data, "JPEG")
    return data.getvalue()


@dataclass
class SmallCopy:
    """One data set's small copy.

    Attributes:
        dataset: Its class, whose facts are the small copy's while the test runs.
        items: Split -> items (path from the folder of the images, label, class name).
        images: Path from the folder of the images -> content.
        beside: The other files of the data set's folder, the split file among them.
        annotations: The publisher's own labels, which may lie there too.
    """

    dataset: type
    items: dict[str, list[tuple[str, int, str]]]
    images: dict[str, bytes]
    beside: dict[str, bytes] = field(default_factory=dict)
    annotations: dict[str, bytes] = field(default_factory=dict)

    def laid_out(self) -> dict[str, bytes]:
        """Returns what lies in the data set's folder: path -> content."""
        top = f"{self.dataset.image_dir}/" if self.dataset.image_dir else ""
        return {**{f"{top}{path}": content for path, content in self.images.items()}, **self.beside}

    def lay_out(self, root: Path) -> Path:
        """Writes it under root and returns the data set's folder."""
        folder = root / self.dataset.dataset_dir
        write_files(folder, self.laid_out())
        return folder


def small_copy(name: str, monkeypatch) -> SmallCopy:
    """Draws the small copy of a data set and sets the class's facts to it.

    Args:
        name: As in configs/datasets.
        monkeypatch: Gives the class its own facts back.
    """
    dataset = find_dataset(name)
    copy = imagenet_copy(dataset, name) if name not in CLASSES else listed_copy(dataset, name)
    if dataset.split_file:
        split_text = json.dumps(copy.items)
        copy.beside[dataset.split_file] = split_text.encode()
        monkeypatch.setattr(dataset, "split_sha256", hashlib.sha256(split_text.encode()).hexdigest())
        monkeypatch.setattr(dataset, "split_items_sha256", digest_of_items(copy.items))
    labels = sorted({label for items in copy.items.values() for _, label, _ in items})
    base = labels[: (len(labels) + 1) // 2]
    n_base = sum(label in base for _, label, _ in copy.items["test"])
    if name not in CLASSES:
        monkeypatch.setattr(dataset, "folders_sha256", hashlib.sha256("\n".join(WNIDS).encode()).hexdigest())
        monkeypatch.setattr("datasets.splits.imagenet_names.clip_names", lambda: WNID_NAMES)
    if name in SUBSETS:
        monkeypatch.setattr(dataset, "source_labels", SUBSET_LABELS)
    monkeypatch.setattr(dataset, "n_classes", len(labels))
    monkeypatch.setattr(dataset, "n_items", tuple(len(items) for items in copy.items.values()))
    if any(dataset.n_base_new):
        monkeypatch.setattr(dataset, "n_base_new", (n_base, len(copy.items["test"]) - n_base))
    return copy


def listed_copy(dataset: type, name: str) -> SmallCopy:
    """Returns the copy of a data set with lists of its items: a split file, or the publisher's lists of aircraft."""
    n_images = sum(map(len, ITEMS_OF_CLASS.values()))
    items, images = {split: [] for split in ITEMS_OF_CLASS}, {}
    for split, numbers in ITEMS_OF_CLASS.items():
        for label, (pattern, classname) in enumerate(CLASSES[name]):
            for number in numbers:
                half, image = "test" if split == "test" else "train", label * n_images + number + 1
                path = pattern.format(number=number, image=image, half=half)
                items[split].append((path, label, classname))
                images[path] = jpeg(label, number)
    random.Random(0).shuffle(items["train"])
    copy = SmallCopy(dataset, items, images, annotations=annotate(name, items))
    if name == "fgvc_aircraft":
        copy.beside["variants.txt"] = lines(classname for _, classname in CLASSES[name])
        for split, listed in items.items():
            copy.beside[f"images_variant_{split}.txt"] = lines(f"{Path(path).stem} {name}" for path, _, name in listed)
    return copy


def imagenet_copy(dataset: type, name: str) -> SmallCopy:
    """Returns the copy of ImageNet or of a shifted version, whose items are what the class folders hold, sorted."""
    items, images = {split: [] for split in ITEMS_OF_CLASS}, {}
    for split, pattern in IMAGENET_PATHS[name].items():
        for label, line in enumerate(SUBSET_LABELS if name in SUBSETS else range(len(WNIDS))):
            for number in ITEMS_OF_CLASS[split]:
                path = pattern.format(wnid=WNIDS[line], label=line, number=number, image=100 * line + number)
                items[split].append((path, label, WNID_NAMES[line]))
                images[path] = jpeg(line, number)
    return SmallCopy(dataset, items, images, {"classnames.txt": lines(map(" ".join, zip(WNIDS, WNID_NAMES)))})


def digest_of_items(items: dict[str, list[tuple[str, int, str]]]) -> str:
    return hashlib.sha256(json.dumps(list(items.values()), separators=(",", ":")).encode()).hexdigest()


@dataclass
class SmallWeb:
    """Publishers, Google Drive and the Hugging Face hub on loopback.

    Attributes:
        folder: What is served: publishers' files under their host's name, and hub/OWNER/NAME/.
        server: The loopback server.
        drive: File id -> the file on Google Drive; None: its quota is exceeded.
    """

    folder: Path
    server: FileServer
    drive: dict[str, Path | None]
    monkeypatch: pytest.MonkeyPatch

    def publish(self, copy: SmallCopy) -> None:
        """Puts a copy's files wherever its class says that they are, and in the mirror's archive."""
        dataset = copy.dataset
        for facts in ("archives", "label_files", "annotations"):
            files = tuple(self.publish_file(copy, file) for file in getattr(dataset, facts))
            self.monkeypatch.setattr(dataset, facts, files)
        if dataset.split_id:
            self.drive[dataset.split_id] = self.write(f"drive/{dataset.split_id}", copy.beside[dataset.split_file])
        if dataset.mirrored:
            whole = {**copy.laid_out(), **copy.annotations}
            in_folder = {f"{dataset.dataset_dir}/{path}": content for path, content in whole.items()}
            self.write(f"{MIRROR_FOLDER}/{dataset.dataset_dir}.zip", pack("a.zip", in_folder))

    def take_down_publishers(self) -> None:
        """Leaves nothing but the hub."""
        for path in self.folder.iterdir():
            if path.name not in ("hub", "drive"):
                shutil.rmtree(path)
        self.drive.update(dict.fromkeys(self.drive))

    def publish_file(self, copy: SmallCopy, file):
        """Puts one file at all its addresses; returns the same file with addresses on loopback."""
        sources, content = [], b""
        for source in file.sources:
            kind, _, path = source.partition(":")
            if source != MIRROR:
                content = published(copy, file.name)
            if kind == "https":
                path = path.lstrip("/").partition("?")[0]
                self.write(path, content)
                source = f"{self.server.url}/{path}"
            elif kind == "drive":
                self.drive[path] = self.write(f"drive/{path}", content)
            elif source != MIRROR:
                self.write(f"hub/{path}/{file.name}", content)
            sources.append(source)
        return replace(
            file,
            sources=tuple(sources),
            md5=file.md5 and hashlib.md5(content).hexdigest(),
            n_bytes=file.n_bytes and len(content),
            inside=file.inside and self.publish_file(copy, file.inside),
        )

    def write(self, path: str, content: bytes) -> Path:
        write_files(self.folder, {path: content})
        return self.folder / path


@contextmanager
def small_web(folder: Path, monkeypatch):
    """Serves folder as the only network there is."""
    folder.mkdir()
    drive: dict[str, Path | None] = {}
    no_network(monkeypatch)
    serve_drive(monkeypatch, drive)
    with serve(folder) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield SmallWeb(folder, server, drive, monkeypatch)


def published(copy: SmallCopy, name: str) -> bytes:
    """Returns a file as its publisher has it: an archive holds more than what is needed."""
    whole = {**copy.beside, **copy.annotations}
    if name in whole:
        return whole[name]
    top, others = ARCHIVES[name]
    content = dict.fromkeys(others, b"not needed")
    if name == "caltech-101.zip":
        inner = "101_ObjectCategories.tar.gz"
        content[f"{top}{inner}"] = published(copy, inner)
    elif name in OF_ANNOTATIONS:
        content |= copy.annotations
    else:
        content |= {f"{top}{path}": image for path, image in copy.images.items()}
    if name.startswith("fgvc-aircraft"):
        content |= {f"{Path(top).parent}/{path}": listed for path, listed in copy.beside.items()}
    return pack(name, content)


def imagenet_archives(copy: SmallCopy, monkeypatch) -> dict[str, bytes]:
    """Returns ILSVRC 2012's archives, which only a person can fetch: name -> content; their digests are set."""
    classes = {wnid: {} for wnid in WNIDS}
    for path, *_ in copy.items["train"]:
        classes[Path(path).parent.name][Path(path).name] = copy.images[path]
    val = sorted((Path(path).name, label, copy.images[path]) for path, label, _ in copy.items["test"])
    contents = {
        "train": {f"{wnid}.tar": pack("a.tar", images) for wnid, images in classes.items()},
        "val": {name: image for name, _, image in val},
        "devkit": imagenet_devkit(WNIDS, [label for _, label, _ in val]),
    }
    archives = {}
    for part, content in contents.items():
        name, _ = ARCHIVE_META[part]
        archives[name] = pack(name, content)
        monkeypatch.setitem(ARCHIVE_META, part, (name, hashlib.md5(archives[name]).hexdigest()))
    return archives


def load(
    dataset: type | str,
    root: Path,
    *,
    shots: int = -1,
    subset: str = "all",
    seed: int = 1,
    fewshot_file: Path | str = "",
):
    """Loads a data set as a run does; of a string, the one of this name in configs/datasets."""
    cfg = get_cfg_default()
    cfg.DATASET.FEWSHOT_FILE = str(fewshot_file)
    cfg.DATASET.ROOT, cfg.DATASET.NUM_SHOTS, cfg.DATASET.SUBSAMPLE_CLASSES, cfg.SEED = str(root), shots, subset, seed
    return (find_dataset(dataset) if isinstance(dataset, str) else dataset)(cfg)


def shown(items, folder: Path) -> list[tuple[str, int, str]]:
    """Returns path from folder, label and class name of each item."""
    return [(Path(item.impath).relative_to(folder).as_posix(), item.label, item.classname) for item in items]


def pack(name: str, content: dict[str, bytes]) -> bytes:
    """Returns an archive of the kind that its name says: path in it -> content. The same content, the same bytes."""
    packed = io.BytesIO()
    if name.endswith(".zip"):
        with zipfile.ZipFile(packed, "w") as archive:
            for path, data in content.items():
                archive.writestr(zipfile.ZipInfo(path), data)  # without the time of now
    else:
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for path, data in content.items():
                member = tarfile.TarInfo(path)
                member.size, member.type = len(data), tarfile.DIRTYPE if path.endswith("/") else tarfile.REGTYPE
                archive.addfile(member, io.BytesIO(data))
    is_plain = name.endswith((".zip", ".tar"))
    return packed.getvalue() if is_plain else gzip.compress(packed.getvalue(), mtime=0)


def write_files(folder: Path, content: dict[str, bytes]) -> None:
    """Writes files: path in folder -> content."""
    for path, data in content.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
