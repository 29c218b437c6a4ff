"""The publishers' archives are those that torchvision's data sets know, byte for byte."""

import inspect
import sys

import pytest
import torchvision

from datasets import check

TORCHVISIONS = {
    "caltech101": torchvision.datasets.Caltech101,
    "oxford_pets": torchvision.datasets.OxfordIIITPet,
    "oxford_flowers": torchvision.datasets.Flowers102,
    "food101": torchvision.datasets.Food101,
    "dtd": torchvision.datasets.DTD,
    "eurosat": torchvision.datasets.EuroSAT,
}


def files_with_md5(dataset):
    files = [outer for file in (*dataset.archives, *dataset.annotations) for outer in (file, file.inside) if outer]
    return {file.name: file.md5 for file in files if file.md5}


@pytest.mark.parametrize("name", TORCHVISIONS)
def test_digests_are_torchvisions(name):
    source = inspect.getsource(sys.modules[TORCHVISIONS[name].__module__])
    known = files_with_md5(check.find_dataset(name))
    assert known
    for file, md5 in known.items():
        assert file in source and md5 in source


def test_aircraft_come_from_the_address_that_torchvision_takes():
    [archive] = check.find_dataset("fgvc_aircraft").archives
    assert archive.sources[0] in inspect.getsource(sys.modules[torchvision.datasets.FGVCAircraft.__module__])
