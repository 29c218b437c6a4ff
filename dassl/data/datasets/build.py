"""The data set that the config names."""

import engine
from engine import DATASET_REGISTRY


def build_dataset(cfg) -> engine.DatasetBase:
    """Builds the data set that DATASET.NAME names."""
    return DATASET_REGISTRY.get(cfg.DATASET.NAME)(cfg)
