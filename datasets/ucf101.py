"""UCF101: 101 human actions, the middle frame of each video.

Paper: UCF101: A Dataset of 101 Human Actions Classes From Videos in The Wild, Soomro, Zamir, Shah, CRCV-TR-12-01, 2012.
https://www.crcv.ucf.edu/data/UCF101.php
"""

from .base import DATASET_REGISTRY, FewShotDataset


@DATASET_REGISTRY.register()
class UCF101(FewShotDataset):
    """7,639 training, 1,898 validation and 3,783 test images; ApplyEyeMakeup is called Apply_Eye_Makeup."""

    dataset_dir = "ucf101"
    image_dir = "UCF-101-midframes"
    split_file = "split_zhou_UCF101.json"
    split_id = "1I0S0q91hJfsV9Gf4xDIjgDq4AqBNJb1y"
    split_sha256 = "d78cb834f7c5792ceaff2c5ee2d7c76a9e4086e48a3a6b01232989d29cbefdd8"
    n_classes = 101
    n_items = (7639, 1898, 3783)
    prompt_template = "a photo of a person doing {}."
    by_hand = (
        "unpack the frames, https://drive.google.com/file/d/10Jqome3vtUA2keJkNanAiFpgbyC9Hc2O, to "
        "UCF-101-midframes/CLASS/*.jpg",
    )
