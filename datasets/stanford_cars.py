"""Stanford Cars: photographs of 196 makes, models and years of cars.

Paper: 3D Object Representations for Fine-Grained Categorization, Krause, Stark, Deng, Fei-Fei, ICCV workshop 2013.
https://ai.stanford.edu/~jkrause/cars/car_dataset.html (gone since 2023)
"""

from .base import DATASET_REGISTRY, FewShotDataset


@DATASET_REGISTRY.register()
class StanfordCars(FewShotDataset):
    """6,509 training, 1,635 validation and 8,041 test images; names put the year first, "2012 Tesla Model S"."""

    dataset_dir = "stanford_cars"  # the split file's paths start with cars_train/ and cars_test/
    split_file = "split_zhou_StanfordCars.json"
    split_id = "1ObCFbaAgVu0I-k_Au-gIUcefirdAuizT"
    split_sha256 = "40acee7aa65c8e4727a32d90e884b7c3f8960b523422317e163f7af65432959d"
    n_classes = 196
    n_items = (6509, 1635, 8041)
    by_hand = (
        "the publisher's links are dead: take stanford_cars from "
        "https://huggingface.co/datasets/zhengli97/prompt_learning_dataset, to cars_train/*.jpg and cars_test/*.jpg",
    )
