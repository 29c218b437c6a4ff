"""DTD: photographs of 47 textures, called by the words that people use for them.

Paper: Describing Textures in the Wild, Cimpoi, Maji, Kokkinos, Mohamed, Vedaldi, CVPR 2014.
https://www.robots.ox.ac.uk/~vgg/data/dtd/
"""

from .base import DATASET_REGISTRY, FewShotDataset, RemoteFile


@DATASET_REGISTRY.register()
class DescribableTextures(FewShotDataset):
    """Folders and class names are adjectives; the split is none of the publisher's ten."""

    dataset_dir = "dtd"
    image_dir = "images"
    split_file = "split_zhou_DescribableTextures.json"
    split_id = "1u3_QfB467jqHgNXC00UIzbLZRQCg2S7x"
    split_sha256 = "f26ebeccd2b58e68d70f07a0dc39fe49bf7b69024bac34396b954dfd87969c38"
    split_items_sha256 = "460b9ea269753f33a1a5f348c87c27cb0c6c154e9991018006b86a2a16ed6331"
    n_classes = 47
    n_items = (2820, 1128, 1692)
    n_base_new = (864, 828)
    archives = (
        RemoteFile(
            "dtd-r1.0.1.tar.gz",
            sources=("https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz",),
            md5="fff73e5086ae6bdbea199a49dfb8a4c1",
            members={"dtd/images": "images"},
        ),
    )
    mirrored = True
    prompt_template = "{} texture."
