"""Links that lead nowhere: missing, to the check, to a run and to prepare, which puts nothing over them."""

import os
import re
import shutil
import subprocess

import pytest

from datasets import check, prepare
from tests.support.small_copies import load, small_copy


def link(path):
    """Puts a link to what is not there where a file or folder was."""
    path.unlink() if path.is_file() else shutil.rmtree(path)
    path.symlink_to("/not/mounted/here")
    return path


@pytest.mark.parametrize("path", ["images/banded/banded_0001.jpg", "images/banded", "images", ""])
def test_check_and_prepare_say_so_and_the_command_that_they_say_helps(dtd, web, tmp_path, path, capsys):
    root = tmp_path / "my data"
    dtd.lay_out(root)
    dead = link(root / "dtd" / path)
    remedy = (
        f". 1 link(s) lead nowhere: {dead} to /not/mounted/here. Mount or mend what they lead to, or delete them, "
        f"`find -L '{root}/dtd' -type l -exec rm {{}} +`, and run `python -m datasets.prepare "
        f"DescribableTextures --root '{root}'`."
    )
    assert check.main(["dtd", "--root", str(root)]) == 1
    said = capsys.readouterr().out
    assert remedy in said and said.count("wrong:") == 1
    with pytest.raises(FileNotFoundError, match=re.escape(remedy)):
        load(dtd.dataset, root)
    assert prepare.main(["dtd", "--root", str(root)]) == 1
    err = capsys.readouterr().err
    assert err.startswith("DescribableTextures lacks images in ") and err.endswith(f"{remedy}\n")
    assert web.server.asked == [] and os.readlink(dead) == "/not/mounted/here"
    subprocess.run(["bash", "-c", re.search("`(find .*?)`", said)[1]], check=True)
    assert prepare.main(["dtd", "--root", str(root)]) == 0
    assert dead.exists() and not dead.is_symlink()


def test_images_that_only_folders_list(web, tmp_path, monkeypatch, capsys):
    dataset = small_copy("imagenet_sketch", monkeypatch).lay_out(tmp_path)
    dead = link(next(dataset.glob("images/*/*")))
    for command in (check, prepare):
        assert command.main(["imagenet_sketch", "--root", str(tmp_path)]) == 1
        assert f"lacks 1 image(s) in {dataset}/images: " in (out := capsys.readouterr().out)
        assert f"1 link(s) lead nowhere: {dead} to /not/mounted/here. " in out
    assert web.server.asked == []
