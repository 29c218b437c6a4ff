"""From the config to batches."""

import engine
from engine.data.images import DatasetWrapper

__all__ = ["DataManager", "DatasetWrapper"]


class DataManager(engine.DataManager):
    """The engine's; it has labelled training items only, and one domain."""

    train_loader_u = None
    num_source_domains = 0
