"""Caltech-101's real archive and the papers' split, where COOP_DATA names the folder of the data sets."""

import os
import shutil
from pathlib import Path

import pytest

from datasets import check, prepare
from datasets.caltech101 import Caltech101


@pytest.mark.real_data
def test_every_image_of_the_real_copy_decodes(tmp_path, capsys):
    downloads = Path(os.environ.get("COOP_DATA", ""), "caltech-101")
    needed = (Caltech101.split_file, Caltech101.archives[0].name)
    if not os.environ.get("COOP_DATA") or not all((downloads / name).is_file() for name in needed):
        pytest.skip(f"COOP_DATA does not name a folder with {' and '.join(f'caltech-101/{name}' for name in needed)}")
    assert prepare.main(["caltech101", "--root", str(tmp_path), "--from", str(downloads)]) == 0
    assert check.main(["caltech101", "--root", str(tmp_path), "--decode"]) == 0
    assert f"{sum(Caltech101.n_items):,} image(s) were decoded" in capsys.readouterr().out
    shutil.rmtree(tmp_path)
