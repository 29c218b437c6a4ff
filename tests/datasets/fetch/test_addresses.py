"""Where files are fetched from: https alone, and the archives that torchvision knows, byte for byte."""

import inspect
import re
import sys

import pytest
import torchvision

import datasets  # noqa: F401  registers the data sets
from datasets.check import find_dataset
from datasets.fetch.download import page_of
from engine import DATASET_REGISTRY
from tests.interface.test_imports import SOURCES, name_of

DATASETS = [DATASET_REGISTRY.get(name) for name in DATASET_REGISTRY.registered_names()]
TORCHVISIONS = {
    "caltech101": torchvision.datasets.Caltech101,
    "oxford_pets": torchvision.datasets.OxfordIIITPet,
    "oxford_flowers": torchvision.datasets.Flowers102,
    "food101": torchvision.datasets.Food101,
    "dtd": torchvision.datasets.DTD,
    "eurosat": torchvision.datasets.EuroSAT,
}


def remote_files(dataset):
    """All files of a data set, and the archives that they are inside of."""
    for file in (*dataset.archives, *dataset.label_files, *dataset.annotations):
        while file:
            yield file
            file = file.inside


@pytest.mark.parametrize("dataset", DATASETS, ids=lambda dataset: dataset.__name__)
def test_a_data_sets_files_come_encrypted_and_what_is_known_of_them_is_well_formed(dataset):
    for file in remote_files(dataset):
        assert all(page_of(address).startswith("https://") for address in file.sources)
        assert re.fullmatch(r"[0-9a-f]{32}|", file.md5)
    assert re.fullmatch("[0-9a-f]{64}|", dataset.split_sha256)
    assert not dataset.split_id or dataset.split_sha256 or all(dataset.n_items)


@pytest.mark.parametrize("name", TORCHVISIONS)
def test_digests_are_torchvisions(name):
    source = inspect.getsource(sys.modules[TORCHVISIONS[name].__module__])
    known = {file.name: file.md5 for file in remote_files(find_dataset(name)) if file.md5}
    assert known
    for file, md5 in known.items():
        assert file in source and md5 in source


def test_aircraft_come_from_the_address_that_torchvision_takes():
    [archive] = find_dataset("fgvc_aircraft").archives
    assert archive.sources[0] in inspect.getsource(sys.modules[torchvision.datasets.FGVCAircraft.__module__])


def test_no_other_address_is_without_encryption():
    """But for what a user gives to --from."""
    unencrypted = [name_of(path) for path in SOURCES if "http://" in path.read_text(encoding="utf-8")]
    assert unencrypted == ["datasets/fetch/sources.py"]
