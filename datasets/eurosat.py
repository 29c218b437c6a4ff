"""EuroSAT: Sentinel-2 satellite images of 10 kinds of land, 64 x 64 pixels.

Paper: EuroSAT: A Novel Dataset and Deep Learning Benchmark for Land Use and Land Cover Classification, Helber, Bischke,
Dengel, Borth, IEEE J-STARS 2019.
https://github.com/phelber/EuroSAT
"""

from .base import DATASET_REGISTRY, FewShotDataset


@DATASET_REGISTRY.register()
class EuroSAT(FewShotDataset):
    """13,500 training, 5,400 validation and 8,100 test images; names are words, such as "Annual Crop Land"."""

    dataset_dir = "eurosat"
    image_dir = "2750"
    split_file = "split_zhou_EuroSAT.json"
    split_id = "1Ip7yaCWFi0eaOFUGga0lUdVi_DDQth1o"
    split_sha256 = "541503a77d0b26b735d85ec7a3e672804fe0aa466c2e5f07da772cc6c0af8ad2"
    n_classes = 10
    n_items = (13500, 5400, 8100)
    prompt_template = "a centered satellite photo of {}."
    by_hand = ("unpack https://madm.dfki.de/files/sentinel/EuroSAT.zip to 2750/CLASS/*.jpg",)
