"""A data set's folder is filled: what is tried in which order; nothing is lost, changed or fetched twice."""

import errno
import json
import os
import shutil

import pytest

from datasets import prepare
from datasets.base import DataCopy
from datasets.check import find_dataset
from datasets.fetch import fill
from datasets.fetch.sources import MIRROR
from tests.support.small_copies import CLASSES, MIRROR_FOLDER, pack, published, small_copy, write_files

DTD_SPLIT = "split_zhou_DescribableTextures.json"
OWN_SPLIT = "split_seed1_DescribableTextures.json"
INNER, OUTER = "101_ObjectCategories.tar.gz", "caltech-101.zip"
SAME_NAME = ["food101", "eurosat", "caltech101"]  # the mirror calls its archive as the publisher does


@pytest.fixture
def run(tmp_path, caplog, capsys):
    """Calls prepare NAMES, by default dtd, on tmp_path/data; returns exit code and all that was said."""

    def run(*names, options=()):
        caplog.clear()
        caplog.set_level("INFO")
        code = prepare.main([*(names or ["dtd"]), "--root", str(tmp_path / "data"), *options])
        shown = capsys.readouterr()
        return code, f"{caplog.text}\n{shown.out}\n{shown.err}"

    return run


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "data" / "dtd"


@pytest.fixture
def publish(web, monkeypatch):
    """Publishes the small copy of a data set and returns it."""

    def publish(name):
        copy = small_copy(name, monkeypatch)
        web.publish(copy)
        return copy

    return publish


def asked(web):
    """The names of the files that were asked for; the hub's list is called by its data set."""
    return [path.rpartition("/")[2] for path, _ in web.server.asked]


def state(folder):
    """Path -> content and time of the last change of each file."""
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def forget_split(web, copy, *, in_archive=True):
    """Takes the split file from Google Drive and, if wanted, out of the mirror's archive."""
    web.drive[copy.dataset.split_id] = None
    if not in_archive:
        whole = {**copy.laid_out(), **copy.annotations}
        del whole[copy.dataset.split_file]
        mirrored = {f"{copy.dataset.dataset_dir}/{path}": content for path, content in whole.items()}
        web.write(f"{MIRROR_FOLDER}/{copy.dataset.dataset_dir}.zip", pack("a.zip", mirrored))


class TestImages:
    def test_the_publisher_goes_first(self, web, dtd, run, folder):
        assert run()[0] == 0
        assert asked(web) == ["dtd-r1.0.1.tar.gz"]
        assert sorted(os.listdir(folder)) == ["dtd-r1.0.1.tar.gz", "images", DTD_SPLIT]

    def test_where_nothing_is_to_be_had_the_steps_by_hand_are_said(self, web, dtd, run, folder):
        web.take_down_publishers()
        shutil.rmtree(web.folder / "hub")
        code, said = run()
        assert code == 1 and "DescribableTextures's images are not to be had; what was tried" in said
        (archive,) = dtd.dataset.archives
        assert said.count(f"404 Client Error: Not Found for url: {archive.sources[0]}") == 1
        page = f"{web.server.url}/datasets/{MIRROR.removeprefix('hub:')}"
        drive, publisher = f"https://drive.google.com/file/d/{dtd.dataset.split_id}", archive.sources[0]
        save = "with a browser and save it as"
        assert said.endswith(
            "By hand, and then this command again, with --from FOLDER for files that are saved elsewhere:\n"
            f"  1. fetch {drive} or {page} {save} {folder}/{DTD_SPLIT}\n"
            f"  2. fetch {publisher} {save} {folder}/{archive.name}; or fetch {page} {save} {folder}/mirror/dtd.zip\n"
        )
        assert not any(path.is_file() for path in folder.rglob("*"))  # no split of our own of images that are not there

    @pytest.mark.parametrize("root", ["data", "data/dtd", "data/dtd/images"])
    def test_nothing_is_fetched_where_the_images_lie_nearby(self, web, dtd, tmp_path, root, capsys):
        """One level too deep in the root, or the root too deep."""
        dtd.lay_out(tmp_path / "data" / "dtd" if root == "data" else tmp_path / "data")
        before = state(tmp_path / "data")
        assert prepare.main(["dtd", "--root", str(tmp_path / root)]) == 1
        error, deeper = capsys.readouterr().err, tmp_path / "data" / "dtd" / "dtd"
        assert f"lacks images in {tmp_path / root}/dtd/images; none are fetched. " in error
        remedy = f"--root {tmp_path}/data." if root != "data" else f"It lies at {deeper}/images: run `mv -n "
        assert remedy in error and web.server.asked == [] and state(tmp_path / "data") == before

    def test_a_full_disk_ends_it(self, web, dtd, run, monkeypatch):
        def unpack(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(fill, "unpack", unpack)
        code, said = run()
        assert code == 1 and "No space left on device" in said
        assert asked(web) == ["dtd-r1.0.1.tar.gz"]  # the mirror's archive would not fit either

    @pytest.mark.parametrize("options", [[], ["--dry-run"]])
    def test_a_data_set_that_no_command_fetches(self, dtd, run, monkeypatch, options):
        monkeypatch.setattr(dtd.dataset, "archives", ())
        monkeypatch.setattr(dtd.dataset, "mirrored", False)
        monkeypatch.setattr(dtd.dataset, "by_hand", ("ask the publisher for images/",))
        code, said = run(options=options)
        assert "1. ask the publisher for images/" in said
        assert options or code == 1 and "images are not all in" in said and "no command fetches them" in said

    @pytest.mark.parametrize("where", ["folder", "from"])
    @pytest.mark.parametrize("name", [INNER, OUTER])
    def test_archives_that_are_there_are_used_without_the_network(self, web, publish, run, tmp_path, name, where):
        """Caltech-101's archive lies in another one."""
        copy = publish("caltech101")
        put = tmp_path / "data" / "caltech-101" if where == "folder" else tmp_path / "downloads"
        write_files(put, {name: published(copy, name), **copy.beside})
        assert run("caltech101", options=["--from", str(put)] if where == "from" else [])[0] == 0
        assert web.server.asked == []

    def test_a_broken_inner_archive_leaves_no_half_of_the_images(self, web, publish, run, tmp_path):
        copy, folder = publish("caltech101"), tmp_path / "data" / "caltech-101"
        web.server.missing.add(OUTER)
        write_files(folder, {INNER: published(copy, INNER)[:-300]})
        code, said = run("caltech101")
        assert code == 1 and INNER in said
        assert not (folder / copy.dataset.image_dir).exists()


class TestSplit:
    def test_a_file_of_the_mirror_is_next_to_google_drive(self, web, dtd, run, folder):
        forget_split(web, dtd)
        web.write(f"{MIRROR_FOLDER}/splits/{DTD_SPLIT}", dtd.beside[DTD_SPLIT])
        code, _ = run()
        assert code == 0 and "dtd.zip" not in asked(web)
        assert (folder / DTD_SPLIT).read_bytes() == dtd.beside[DTD_SPLIT]

    def test_then_the_mirrors_archive_which_has_the_images_too(self, web, dtd, run, folder):
        forget_split(web, dtd)
        code, said = run()
        assert code == 0 and f"Looking for {DTD_SPLIT} in the mirror's archive" in said
        assert asked(web).count("dtd.zip") == 1 and "dtd-r1.0.1.tar.gz" not in asked(web)

    def test_then_a_split_of_our_own_until_the_papers_is_to_be_had(self, web, dtd, run, folder):
        forget_split(web, dtd, in_archive=False)
        code, said = run()
        assert code == 1
        assert f"{OWN_SPLIT} is used: half of each class to train on" in said
        assert "It is NOT the papers' split" in said and dtd.dataset.split_id in said
        assert (folder / OWN_SPLIT).exists() and not (folder / DTD_SPLIT).exists()
        web.drive[dtd.dataset.split_id] = web.folder / "drive" / dtd.dataset.split_id
        assert run()[0] == 0 and (folder / OWN_SPLIT).exists()

    @pytest.mark.parametrize("name", SAME_NAME)
    def test_the_mirrors_archive_may_be_called_as_the_publishers(self, name, web, publish, run, tmp_path):
        copy = publish(name)
        assert run(name)[0] == 0
        folder = tmp_path / "data" / copy.dataset.dataset_dir
        (folder / copy.dataset.split_file).unlink()
        forget_split(web, copy)
        before = state(folder)
        assert run(name)[0] == 0
        assert before.items() <= state(folder).items()

    @pytest.mark.parametrize("change", ["other items", "another order", "no split file"])
    def test_another_split_is_not_taken(self, web, dtd, run, folder, change):
        split = {part: list(items) for part, items in dtd.items.items()}
        if change == "other items":
            split["train"].append(split["test"].pop())
        split["train"].reverse()
        other = b"<html>" if change == "no split file" else json.dumps(split).encode()
        web.write(f"drive/{dtd.dataset.split_id}", other)
        in_folder = {f"dtd/{path}": content for path, content in {**dtd.laid_out(), DTD_SPLIT: other}.items()}
        web.write(f"{MIRROR_FOLDER}/dtd.zip", pack("a.zip", in_folder))
        code, said = run()
        assert code == 1 and "It is NOT the papers' split" in said
        assert ("is not readable" if change == "no split file" else "the papers' split has (18, 9, 9)") in said
        assert not (folder / DTD_SPLIT).exists()

    def test_one_of_other_bytes_with_the_same_items_is_as_good(self, web, dtd, run):
        web.drive[dtd.dataset.split_id].write_text(json.dumps(dtd.items, indent=3))
        assert run()[0] == 0

    @pytest.mark.parametrize("name", [name for name in CLASSES if find_dataset(name).split_file])
    def test_our_own_split_has_the_papers_classes(self, name, web, publish, run, tmp_path):
        copy = publish(name)
        forget_split(web, copy, in_archive=False)
        code, said = run(name)
        assert code == 1 and "It is NOT the papers' split" in said and copy.dataset.own_split_rule in said
        kept = json.loads(DataCopy(copy.dataset, tmp_path / "data").own_split.read_text())
        items = {part: {tuple(item) for item in kept[part]} for part in kept}
        assert set.union(*items.values()) == {item for listed in copy.items.values() for item in listed}
        if "publisher's test images" in copy.dataset.own_split_rule:
            assert items["test"] == set(copy.items["test"])
            assert [len(items[part]) for part in ("train", "val")] == [3 * 7, 3 * 2]
        else:
            assert [len(items[part]) for part in ("train", "val", "test")] == [3 * 6, 3 * 2, 3 * 4]

    def test_no_split_is_drawn_of_images_that_lack_a_class(self, web, dtd, run, folder):
        forget_split(web, dtd, in_archive=False)
        for path, content in dtd.laid_out().items():
            if path != DTD_SPLIT and not path.startswith("images/blotchy"):
                write_files(folder, {path: content})
        code, said = run()
        assert code == 1 and not (folder / OWN_SPLIT).exists()
        assert f"{folder}/images holds images of 2 classes, not of 3: no split of our own is drawn. Move" in said


class TestWhatIsThere:
    def test_a_second_run_fetches_and_changes_nothing(self, web, dtd, run, folder):
        run()
        (folder / "dtd-r1.0.1.tar.gz").unlink()  # archives may be deleted
        before = state(folder)
        web.server.asked.clear()
        web.drive.clear()
        assert run()[0] == 0
        assert asked(web) == [] and state(folder) == before

    def test_missing_images_are_completed_and_nothing_else_is_touched(self, web, dtd, run, folder):
        dtd.lay_out(folder.parent)
        mine, gone = folder / "images" / "banded" / "banded_0001.jpg", folder / "images" / "blotchy"
        mine.write_bytes(b"the user's own")
        write_files(folder, {"images/banded/note.txt": b"mine", "images/mine/a.jpg": b"mine"})
        shutil.rmtree(gone)
        (folder / "images" / "banded" / "banded_0002.jpg").unlink()
        before = state(folder)
        run()
        after = state(folder)
        assert {path: after[path] for path in before} == before
        added = {path.relative_to(folder).as_posix() for path in after.keys() - before.keys()}
        blotchy = {path for path in dtd.laid_out() if path.startswith("images/blotchy/")}
        assert added == {"dtd-r1.0.1.tar.gz", "images/banded/.directory", "images/banded/banded_0002.jpg", *blotchy}
        assert all((folder / path).read_bytes() == dtd.laid_out()[path] for path in blotchy)

    def test_a_run_that_is_killed_while_it_unpacks_goes_on(self, web, dtd, run, folder, monkeypatch):
        def killed(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("datasets.fetch.archives.merge", killed)
            with pytest.raises(KeyboardInterrupt):
                run()
        assert not (folder / "images").exists()
        write_files(folder, {".unpacking-killed/0/images/banded/half.jpg": b"half"})  # as a kill by the system leaves
        assert run()[0] == 0 and asked(web).count("dtd-r1.0.1.tar.gz") == 1
        assert not list(folder.glob(".*")) and not list(folder.rglob("half.jpg"))


class TestOptions:
    def test_a_dry_run_touches_nothing_and_asks_nobody(self, web, dtd, run, folder):
        code, said = run(options=["--dry-run"])
        assert code == 0
        assert f"{DTD_SPLIT}: would be fetched from https://drive.google.com/file/d/{dtd.dataset.split_id}" in said
        publisher, mirror = said.split("or, where these are not to be had:")
        assert f"dtd-r1.0.1.tar.gz: would be fetched from {dtd.dataset.archives[0].sources[0]}" in publisher
        assert "dtd.zip: would be fetched from" in mirror
        assert asked(web) == [] and not folder.parent.exists()
        run()
        web.server.asked.clear()
        code, said = run(options=["--dry-run"])
        assert code == 0 and "images: there" in said and f"{DTD_SPLIT}: there" in said and asked(web) == []

    def test_a_dry_run_of_what_is_made_or_the_users_own(self, run, tmp_path):
        assert f"Shapes in {tmp_path}/data/shapes:\n  nothing is fetched\n" in run("shapes", options=["--dry-run"])[1]
        (tmp_path / "data").mkdir()
        assert f"Folder in {tmp_path}/data:\n  images: there\n" in run("folder", options=["--dry-run"])[1]

    def test_from_a_folder_only_what_belongs_there_is_copied(self, web, dtd, run, tmp_path, folder):
        source = tmp_path / "usb"
        shutil.copytree(web.folder / "www.robots.ox.ac.uk", source / "deep")
        write_files(source, {DTD_SPLIT: dtd.beside[DTD_SPLIT]})
        before = state(source)
        for path in (source, *source.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        web.drive.clear()
        code, said = run(options=["--from", str(source)])
        assert code == 0, said
        assert asked(web) == [] and state(source) == before
        assert sorted(os.listdir(folder)) == ["images", DTD_SPLIT]
        for path, content in dtd.laid_out().items():
            assert (folder / path).read_bytes() == content

    @pytest.mark.parametrize("where", ["folder", "from"])
    @pytest.mark.parametrize("name", ["dtd", *SAME_NAME])
    def test_the_mirrors_archive_fetched_by_hand_is_enough(self, name, where, web, publish, run, tmp_path):
        copy = publish(name)
        web.take_down_publishers()
        folder = tmp_path / "data" / copy.dataset.dataset_dir / "mirror" if where == "folder" else tmp_path / "usb"
        shutil.copytree(web.folder / MIRROR_FOLDER, folder)
        (web.folder / "hub").rename(tmp_path / "unplugged")
        code, said = run(name, options=["--from", str(folder)] if where == "from" else [])
        assert code == 0, said

    @pytest.mark.parametrize("name", SAME_NAME)
    def test_a_publishers_archive_is_not_taken_for_the_mirrors(self, name, web, publish, run, tmp_path):
        web.drive[publish(name).dataset.split_id] = None
        for path in web.folder.iterdir():
            if path.name not in ("hub", "drive"):
                shutil.copytree(path, tmp_path / "usb" / path.name)
        assert run(name, options=["--from", str(tmp_path / "usb")])[0] == 0

    def test_one_of_several_that_fails_does_not_stop_the_others(self, web, dtd, publish, run, tmp_path):
        for name in ("oxford_pets", "eurosat"):
            publish(name)
        web.server.missing |= {"images.tar.gz", "oxford_pets.zip"}
        code, said = run("oxford_pets", "dtd", "EuroSAT")
        assert code == 1 and "OxfordPets's images are not to be had" in said
        assert (tmp_path / "data" / "dtd" / "images").is_dir() and (tmp_path / "data" / "eurosat" / "2750").is_dir()


class TestExport:
    def test_it_says_what_it_wrote(self, web, dtd, run, tmp_path):
        path = tmp_path / "few.jsonl"
        code, said = run(options=["--export-fewshot", str(path), "--shots", "2"])
        assert code == 0 and f"{path}: 6 training and 6 validation items\n" in said
        assert len(path.read_text().splitlines()) == 12

    def test_nothing_is_written_of_a_wrong_copy(self, web, dtd, run, tmp_path):
        forget_split(web, dtd, in_archive=False)
        code, said = run(options=["--export-fewshot", str(tmp_path / "few.jsonl")])
        assert code == 1 and not (tmp_path / "few.jsonl").exists()
        assert "few.jsonl is not written. Correct first what is wrong with DescribableTextures" in said

    def test_nor_of_one_without_training_items(self, publish, run, tmp_path):
        publish("imagenet_a")
        code, said = run("imagenet_a", options=["--export-fewshot", str(tmp_path / "few.jsonl")])
        assert code == 1 and not (tmp_path / "few.jsonl").exists()
        assert "ImageNetA has no training items to write. Name another data set for --export-fewshot." in said
