"""Oxford-IIIT Pets: photographs of 37 breeds of cats and dogs.

Paper: Cats and Dogs, Parkhi, Vedaldi, Zisserman, Jawahar, CVPR 2012.
https://www.robots.ox.ac.uk/~vgg/data/pets/
"""

from .base import DATASET_REGISTRY, FewShotDataset


@DATASET_REGISTRY.register()
class OxfordPets(FewShotDataset):
    """2,944 training, 736 validation and 3,669 test images; all lie in one folder."""

    dataset_dir = "oxford_pets"
    image_dir = "images"
    split_file = "split_zhou_OxfordPets.json"
    split_id = "1501r8Ber4nNKvmlFVQZ8SeUHTcdTTEqs"
    split_sha256 = "d7f3ffe65b3919f95132e51422894ae18686b83c331fd8c0adcdc3dc2de6301e"
    split_items_sha256 = "fbb12e86a2462a066ade4063b6b8bc90548b6a972765e496b8f628348d8e2b07"
    n_classes = 37
    n_items = (2944, 736, 3669)
    prompt_template = "a photo of a {}, a type of pet."
    by_hand = ("unpack https://www.robots.ox.ac.uk/~vgg/data/pets/data/images.tar.gz to images/*.jpg",)
