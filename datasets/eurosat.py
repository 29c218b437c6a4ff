"""EuroSAT: Sentinel-2 satellite images of 10 kinds of land, 64 x 64 pixels.

Paper: EuroSAT: A Novel Dataset and Deep Learning Benchmark for Land Use and Land Cover Classification, Helber, Bischke,
Dengel, Borth, IEEE J-STARS 2019.
https://github.com/phelber/EuroSAT
"""

from typing import ClassVar

from .base import DATASET_REGISTRY, FewShotDataset, RemoteFile

PUBLISHER = "https://madm.dfki.de/files/sentinel/EuroSAT.zip"
COPY = (  # the one that torchvision takes
    "https://huggingface.co/datasets/torchgeo/eurosat/resolve/c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip"
)


@DATASET_REGISTRY.register()
class EuroSAT(FewShotDataset):
    """The RGB version; class names are written out, two of the ten are their folders'."""

    dataset_dir = "eurosat"
    image_dir = "2750"
    split_file = "split_zhou_EuroSAT.json"
    split_id = "1Ip7yaCWFi0eaOFUGga0lUdVi_DDQth1o"
    split_sha256 = "541503a77d0b26b735d85ec7a3e672804fe0aa466c2e5f07da772cc6c0af8ad2"
    split_items_sha256 = "3c417b259c8aff68d9dbf47142524b3ee641419d6d6d2a313d650b5af8d1110e"
    n_classes = 10
    n_items = (13500, 5400, 8100)
    n_base_new = (4200, 3900)
    archives = (RemoteFile("EuroSAT.zip", sources=(PUBLISHER, COPY), md5="c8fa014336c82ac7804f0398fcb19387"),)
    mirrored = True
    renamed_folders: ClassVar = {
        "AnnualCrop": "Annual Crop Land",
        "HerbaceousVegetation": "Herbaceous Vegetation Land",
        "Highway": "Highway or Road",
        "Industrial": "Industrial Buildings",
        "Pasture": "Pasture Land",
        "PermanentCrop": "Permanent Crop Land",
        "Residential": "Residential Buildings",
        "SeaLake": "Sea or Lake",
    }
    prompt_template = "a centered satellite photo of {}."
