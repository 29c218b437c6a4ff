"""Caltech-101, an archive in an archive: fetched from stand-ins for publisher, Drive and mirror, and checked."""

import json

import pytest

from datasets import check, prepare
from datasets.caltech101 import Caltech101
from engine import get_cfg_default
from tests.support.small_copies import MIRROR_FOLDER, pack, published, small_copy, small_web, write_files

INNER, OUTER = "101_ObjectCategories.tar.gz", "caltech-101.zip"


@pytest.fixture
def copy(monkeypatch):
    return small_copy("caltech101", monkeypatch)


@pytest.fixture
def web(copy, tmp_path, monkeypatch):
    """All that is published of Caltech-101; `publishers` is where the outer archive lies."""
    with small_web(tmp_path / "web", monkeypatch) as web:
        web.publish(copy)
        [web.publishers] = [path for path in web.folder.rglob(OUTER) if "hub" not in path.parts]
        yield web


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def folder(root):
    return root / "caltech-101"


def run(command, root, *words):
    return command.main(["caltech101", "--root", str(root), *words])


def load(root):
    cfg = get_cfg_default()
    cfg.DATASET.ROOT = str(root)
    return Caltech101(cfg)


def state(root):
    return {path: path.stat().st_mtime_ns for path in root.rglob("*")}


def test_both_archives_are_unpacked_and_nothing_is_fetched_twice(web, copy, root, folder):
    assert run(prepare, root) == 0
    assert run(check, root, "--decode") == 0
    assert load(root).classnames == ["face", "accordion", "airplane"]
    assert not (folder / "caltech-101").exists() and not list(folder.rglob("*.m"))  # only what is needed
    asked, before = list(web.server.asked), state(folder)
    web.drive.clear()
    assert run(prepare, root) == 0
    assert (web.server.asked, state(folder)) == (asked, before)


@pytest.mark.parametrize("where", ["folder", "from"])
@pytest.mark.parametrize("name", [INNER, OUTER])
def test_archives_that_are_there_are_used_without_the_network(web, copy, root, folder, tmp_path, name, where):
    archive = web.publishers.read_bytes() if name == OUTER else published(copy, INNER)
    place = folder if where == "folder" else tmp_path / "downloads"
    write_files(place, {name: archive, Caltech101.split_file: copy.beside[Caltech101.split_file]})
    assert run(prepare, root, *(["--from", str(place)] if where == "from" else [])) == 0
    assert run(check, root) == 0
    assert web.server.asked == []


def test_what_a_user_put_there_is_completed_but_not_touched(web, root, folder):
    mine = folder / Caltech101.image_dir / "Faces" / "image_0000.jpg"
    write_files(mine.parent, {mine.name: b"mine"})
    assert run(prepare, root) == 0
    assert mine.read_bytes() == b"mine"


@pytest.mark.parametrize(
    "content, told",
    [(b"an error page", "no whole zip"), (pack(OUTER, {"caltech-101/Annotations.tar": b"others"}), "md5")],
    ids=["an error page", "another archive"],
)
def test_other_bytes_than_the_publishers_are_told_and_the_mirrors_archive_is_taken(
    web, copy, root, folder, content, told, caplog
):
    web.publishers.write_bytes(content)
    assert run(prepare, root) == 0
    assert f"{OUTER} gives another file" in caplog.text and told in caplog.text
    for path, image in copy.laid_out().items():
        assert (folder / path).read_bytes() == image


@pytest.mark.parametrize("where", ["folder", "from"])
def test_the_mirrors_archive_fetched_by_hand_is_used_though_the_publishers_has_its_name(
    web, root, folder, tmp_path, where
):
    place = folder / "mirror" if where == "folder" else tmp_path / "downloads"
    write_files(place, {OUTER: (web.folder / MIRROR_FOLDER / OUTER).read_bytes()})
    web.take_down_publishers()
    (web.folder / MIRROR_FOLDER / OUTER).unlink()
    assert run(prepare, root, *(["--from", str(place)] if where == "from" else [])) == 0


def test_a_broken_inner_archive_leaves_no_half_of_the_images(web, copy, root, folder, caplog):
    web.publishers.unlink()
    (web.folder / MIRROR_FOLDER / OUTER).unlink()
    write_files(folder, {INNER: published(copy, INNER)[:-300]})
    assert run(prepare, root) == 1
    assert INNER in caplog.text
    assert not (folder / Caltech101.image_dir).exists()


def test_a_split_of_other_bytes_with_the_same_items_is_as_good(web, copy, root):
    web.drive[Caltech101.split_id].write_text(json.dumps(copy.items, indent=3))
    assert run(prepare, root) == 0


@pytest.mark.parametrize("drive", ["over its quota", "a page of HTML", "another order"])
def test_without_the_papers_split_one_is_drawn_and_said_to_be_another(web, copy, root, folder, drive, caplog, capsys):
    on_drive, mirrored = web.drive[Caltech101.split_id], web.folder / MIRROR_FOLDER / OUTER
    mirrored.unlink()
    if drive == "over its quota":
        web.drive[Caltech101.split_id] = None
    elif drive == "a page of HTML":
        on_drive.write_text("<html>")
    else:
        on_drive.write_text(json.dumps({**copy.items, "train": copy.items["train"][::-1]}))
    assert run(prepare, root) == 1
    assert "It is NOT the papers' split" in caplog.text and Caltech101.split_id in caplog.text
    assert not (folder / Caltech101.split_file).exists()
    assert "split_seed1_Caltech101.json is NOT the papers' split" in capsys.readouterr().out
    caplog.clear()
    dataset = load(root)
    assert "It is NOT the papers' split" in caplog.text
    assert (dataset.classnames, len(dataset.train_x)) == (["face", "accordion", "airplane"], 18)

    on_drive.write_bytes(copy.beside[Caltech101.split_file])
    web.drive[Caltech101.split_id] = on_drive
    assert run(prepare, root) == 0
