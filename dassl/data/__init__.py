"""From the config to batches."""

from .data_manager import DataManager, DatasetWrapper
