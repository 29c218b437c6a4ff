"""The template of a data set: its facts, and how it is loaded; all that a data set imports."""

import logging
from pathlib import Path
from typing import ClassVar

from engine import DATASET_REGISTRY, DatasetBase, Datum
from engine.data.bad_images import SPLITS, splits_that_skip

from .data_copy import DataCopy
from .fetch.fill import fill, plan
from .fetch.sources import MIRROR, RemoteFile
from .splits.few_shot import draw_few_shots, draw_held_out, labels_of_subset, subsample_classes
from .splits.fewshot_file import read_fewshot
from .splits.folder_items import list_class_images
from .splits.own_split import HALF_RULE, OWN_SPLIT_SEED, draw_split
from .splits.split_file import Items, read_split, write_split
from .verify.copy import check_copy, require_usable
from .verify.report import Report
from .verify.wrong_files import find_unusable, has_all_images, name_unlisted, require

__all__ = [
    "DATASET_REGISTRY",
    "DataCopy",
    "Datum",
    "FewShotDataset",
    "Items",
    "MIRROR",
    "RemoteFile",
    "Report",
    "draw_few_shots",
    "draw_split",
    "find_unusable",
    "list_class_images",
    "read_split",
    "require",
    "subsample_classes",
    "write_split",
]

logger = logging.getLogger(__name__)


class FewShotDataset(DatasetBase):
    """A data set whose items are drawn: DATASET.NUM_SHOTS of each class by SEED, then the base or new classes of these.

    A subclass states facts. Where they do not suffice, it has a `prepare`, `read_items` ... of its own. Loading raises
    FileNotFoundError if the folder, the split file or an image is missing, ValueError if the copy is not the papers'.
    """

    prompt_template = "a photo of a {}."  # the hand-made prompt, {} stands for the class name
    dataset_dir = ""  # its folder under the root
    image_dir = ""  # folder in dataset_dir that the split file's paths start from; "": dataset_dir itself
    split_file = ""  # name of the split file in dataset_dir
    split_id = ""  # the split file on Google Drive
    split_sha256 = ""  # digest of a copy of it that is known to be right
    split_items_sha256 = ""  # `items_digest` of its items, whatever the bytes
    n_classes = 0  # 0 accepts any number
    n_items = (0, 0, 0)  # train, val and test items; zeros accept any number
    n_base_new = (0, 0)  # test items of the base and of the new classes; zeros where it is not known
    archives: tuple[RemoteFile, ...] = ()  # the publisher's archives of the images
    mirrored = False  # whether the mirror has an archive of the whole folder
    label_files: tuple[RemoteFile, ...] = ()  # files beside the images, other than the split file
    annotations: tuple[RemoteFile, ...] = ()  # the publisher's labels, fetched where the papers' split is not to be had
    own_split_rule = HALF_RULE  # how `own_items` then splits, in words
    by_hand: tuple[str, ...] = ()  # where no command fetches the images, the steps that lay them out in dataset_dir
    ignored_folders: frozenset[str] = frozenset()  # folders of images that are no classes
    renamed_folders: ClassVar[dict[str, str]] = {}  # folder -> class name, where they differ
    default_root = ""  # root where DATASET.ROOT is empty; "": the user has to name one
    listed_from_disk = False  # whether the items are what the folders hold: none can be missing or listed twice
    val_is_test = False  # whether all test items are the val items, too; `load_items` then returns none for val
    reads_selection = True
    prepare_on_first_use = False  # whether loading calls `prepare`, which then has to be quick when all is there

    def __init__(self, cfg):
        items = self.load_items(cfg)
        train, val, test, selection = self.choose(items, cfg)
        subset = cfg.DATASET.SUBSAMPLE_CLASSES
        if self.source_labels is not None:  # from here on those of the kept classes
            kept = labels_of_subset(train, val, test, selection, subset=subset)
            self.source_labels = tuple(self.source_labels[label] for label in kept)
        used = subsample_classes(train, val, test, selection, subset=subset)
        skipping = splits_that_skip(cfg, used[1], used[2])
        whole = [part for name, part in zip(SPLITS, used) if name not in skipping]
        require_usable(DataCopy(type(self), self.find_root(cfg.DATASET.ROOT)), items, whole)
        train, val, test, selection = used
        super().__init__(train, val=val, test=test, selection=selection)

    def load_items(self, cfg) -> Items:
        """Returns all items, before anything is drawn."""
        root = self.find_root(cfg.DATASET.ROOT)
        if self.prepare_on_first_use:
            self.prepare(root)
        return self.read_items(root)

    def choose(self, items: Items, cfg) -> tuple[list[Datum], list[Datum], list[Datum], list[Datum]]:
        """Returns the items to train, to validate, to test and to choose hyper-parameters on, of all classes."""
        all_train, all_val, test = items
        shots, seed = cfg.DATASET.NUM_SHOTS, cfg.SEED
        if cfg.DATASET.FEWSHOT_FILE:
            images = DataCopy(type(self), self.find_root(cfg.DATASET.ROOT)).images
            train, val = read_fewshot(Path(cfg.DATASET.FEWSHOT_FILE), images, all_train, all_val, shots=shots)
        else:
            train, val = draw_few_shots(all_train, all_val, shots=shots, seed=seed)
        all_val, test = list(test if self.val_is_test else all_val), list(test)
        if cfg.DATASET.SELECTION == "few_shot_val":
            selection = val or draw_held_out(all_train, train, shots=shots, seed=seed)
        else:
            selection = {"full_val": all_val, "test": test}[cfg.DATASET.SELECTION]
        return train, test if self.val_is_test else val, test, selection

    @classmethod
    def find_root(cls, root: str) -> Path:
        """Returns the folder that holds `dataset_dir`, absolute; ValueError if it is empty and there is no default."""
        root = root or cls.default_root
        if not root:
            raise ValueError(
                "DATASET.ROOT is empty; it must name the folder that holds the data sets' folders. Pass --root FOLDER, "
                f"or DATA=FOLDER to the scripts; `python -m datasets.prepare {cls.__name__} --root FOLDER` fills it."
            )
        return Path(root).expanduser().absolute()

    @classmethod
    def read_items(cls, root: Path) -> Items:
        """Returns all items; where the papers' split is missing, those of a split of our own."""
        copy = DataCopy(cls, root)
        require(copy, copy.images)
        if not copy.split.exists() and copy.own_split.exists():
            logger.warning(f"{copy.own_split} is used. It is NOT the papers' split: results do not compare with theirs")
            return read_split(copy.own_split, copy.images)
        require(copy, copy.split)
        return read_split(copy.split, copy.images)

    @classmethod
    def list_items(cls, images: Path) -> list[Datum]:
        """Returns an item for every image in the class folders, classes numbered in the folders' order."""
        classes = {name: paths for name, paths in list_class_images(images).items() if name not in cls.ignored_folders}
        return [
            Datum(str(path), label, classname=cls.renamed_folders.get(name, name))
            for label, (name, paths) in enumerate(classes.items())
            for path in paths
        ]

    @classmethod
    def own_items(cls, folder: Path) -> Items:
        """Returns all items, split by `own_split_rule`; used where the papers' split is not to be had."""
        return draw_split(cls.list_items(folder / cls.image_dir), OWN_SPLIT_SEED)

    @classmethod
    def contents(cls) -> tuple[str, ...]:
        """Returns the names in dataset_dir that hold the images."""
        return (cls.image_dir,)

    @classmethod
    def is_complete(cls, root: Path) -> bool:
        """Says whether no image has to be fetched; raises FileNotFoundError if some are links that lead nowhere."""
        return has_all_images(DataCopy(cls, root))

    @classmethod
    def is_fetched(cls) -> bool:
        """Says whether it is known where its files are to be had."""
        return bool(cls.archives or cls.mirrored or cls.label_files)

    @classmethod
    def prepare(cls, root: Path, *, source: str = "", given: str = "") -> None:
        """Fetches or makes what is missing under root and leaves the rest alone.

        Args:
            root: The folder that holds `dataset_dir`.
            source: What --from names: a folder or an address where files are looked for first.
            given: The same, as older plug-ins call it.
        """
        fill(DataCopy(cls, root, source or given))

    @classmethod
    def plan(cls, root: Path, *, source: str = "", given: str = "") -> list[str]:
        """Returns what `prepare` would do, a line for each file; nothing is fetched and no network is asked."""
        return plan(DataCopy(cls, root, source or given))

    @classmethod
    def check(cls, root: Path, *, decode: bool = False) -> Report:
        """Compares what is under root with what is known of the data set; `decode` also reads every image."""
        return check_copy(DataCopy(cls, root), decode=decode)

    @classmethod
    def name_unread(cls, copy: DataCopy, items: Items) -> list[str]:
        """Returns what to say of images that lie in the copy and are no items."""
        return name_unlisted(copy, items)

    @classmethod
    def remedy(cls, root: Path) -> str:
        """Returns what to do where files are missing: the command that fetches them, or the steps by hand."""
        if cls.by_hand:
            steps = "".join(f"\n  {number}. {step}" for number, step in enumerate(cls.by_hand, start=1))
            return f"Correct --root (DATA in the scripts), or by hand, in {cls.dataset_dir}/ under it:{steps}"
        if cls.prepare.__func__ is FewShotDataset.prepare.__func__ and not cls.is_fetched():
            return "Put the files there, or correct --root (DATA in the scripts)."
        return f"Run {DataCopy(cls, root).command}, or correct --root (DATA in the scripts)."
