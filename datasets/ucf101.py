"""UCF101: 101 human actions, the middle frame of each video.

Paper: UCF101: A Dataset of 101 Human Actions Classes From Videos in The Wild, Soomro, Zamir, Shah, CRCV-TR-12-01, 2012.
https://www.crcv.ucf.edu/data/UCF101.php
"""

import re
from pathlib import Path

from .base import DATASET_REGISTRY, Datum, FewShotDataset, Items, RemoteFile
from .splits.annotations import label_of, read_and_hold_out, read_list
from .splits.entries import join_listed
from .splits.own_split import HELD_OUT_RULE

LISTS_ARCHIVE = "UCF101TrainTestSplits-RecognitionTask.zip"
LISTS = RemoteFile(LISTS_ARCHIVE, sources=(f"https://www.crcv.ucf.edu/data/UCF101/{LISTS_ARCHIVE}",))
CLASSES_FILE = "ucfTrainTestlist/classInd.txt"
LIST_FILES = ("ucfTrainTestlist/trainlist01.txt", "ucfTrainTestlist/testlist01.txt")


@DATASET_REGISTRY.register()
class UCF101(FewShotDataset):
    """Folders and class names split the publisher's words: ApplyEyeMakeup is called Apply_Eye_Makeup."""

    dataset_dir = "ucf101"
    image_dir = "UCF-101-midframes"
    split_file = "split_zhou_UCF101.json"
    split_id = "1I0S0q91hJfsV9Gf4xDIjgDq4AqBNJb1y"
    split_sha256 = "d78cb834f7c5792ceaff2c5ee2d7c76a9e4086e48a3a6b01232989d29cbefdd8"
    split_items_sha256 = "86e0d907236fc556f8cc9e07f6bd82285054fc83a82a3284fcbdd88a1db9e61e"
    n_classes = 101
    n_items = (7639, 1898, 3783)
    n_base_new = (1934, 1849)
    archives = (RemoteFile("UCF-101-midframes.zip", sources=("drive:10Jqome3vtUA2keJkNanAiFpgbyC9Hc2O",)),)
    mirrored = True
    annotations = tuple(RemoteFile(name, inside=LISTS) for name in (CLASSES_FILE, *LIST_FILES))
    own_split_rule = HELD_OUT_RULE
    prompt_template = "a photo of a person doing {}."

    @classmethod
    def own_items(cls, folder: Path) -> Items:
        """Returns all items, split by `own_split_rule`; labels are the publisher's."""

        def read_class(line: str) -> tuple[str, int]:
            number, action = line.split(" ")  # 1 ApplyEyeMakeup
            return action, label_of(number)

        def read_item(line: str) -> Datum:
            action, _, video = line.split(" ")[0].partition("/")  # ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1
            classname = re.sub("(?<!^)(?=[A-Z])", "_", action)
            frame = Path(classname, Path(video).with_suffix(".jpg"))
            return Datum(join_listed(folder / cls.image_dir, str(frame)), labels[action], classname=classname)

        labels = dict(read_list(folder / CLASSES_FILE, read_class, "`NUMBER ACTION` with NUMBER from 1"))
        form = f"`ACTION/VIDEO.avi`, the action one of {Path(CLASSES_FILE).name}"
        return read_and_hold_out([folder / name for name in LIST_FILES], read_item, form)
