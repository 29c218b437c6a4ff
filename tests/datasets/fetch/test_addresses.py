"""Where files are fetched from: https alone, and with a digest where one is known."""

import re

import pytest

import datasets  # noqa: F401  registers the data sets
from clip.clip import _URLS
from datasets.fetch.download import page_of
from datasets.fetch.sources import RemoteFile
from engine import DATASET_REGISTRY
from tests.interface.test_imports import SOURCES, name_of

DATASETS = [DATASET_REGISTRY.get(name) for name in DATASET_REGISTRY.registered_names()]


def remote_files(dataset):
    """All files of a data set, and the archives that they are inside of."""
    for file in (*dataset.archives, *dataset.label_files, *dataset.annotations):
        while file:
            yield file
            file = file.inside


FILES = {(dataset.__name__, file.name): file for dataset in DATASETS for file in remote_files(dataset)}


def test_weights_have_the_digest_in_their_address():
    for url in _URLS.values():
        assert re.fullmatch(r"https://openaipublic\.azureedge\.net/clip/models/[0-9a-f]{64}/[\w-]+\.pt", url)


@pytest.mark.parametrize("file", FILES.values(), ids=["/".join(key) for key in FILES])
def test_a_data_sets_file(file):
    assert isinstance(file, RemoteFile)
    assert all(page_of(source).startswith("https://") for source in file.sources)
    assert re.fullmatch(r"[0-9a-f]{32}|", file.md5)


@pytest.mark.parametrize("dataset", DATASETS, ids=lambda dataset: dataset.__name__)
def test_split_files_have_a_digest_or_known_counts(dataset):
    assert re.fullmatch("[0-9a-f]{64}|", dataset.split_sha256)
    assert not dataset.split_id or dataset.split_sha256 or all(dataset.n_items)


def test_no_other_address_is_without_encryption():
    """But for what a user gives to --from."""
    assert [name_of(path) for path in SOURCES if "http://" in path.read_text(encoding="utf-8")] == [
        "datasets/fetch/sources.py"
    ]
