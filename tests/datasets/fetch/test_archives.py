"""What is taken out of archives, where it goes, and what is refused: nothing is written over, nothing outside."""

import errno
import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from datasets.fetch import archives
from datasets.fetch.archives import unpack
from tests.robustness.small_disk import small_disk
from tests.support.small_copies import pack, write_files

FILES = {"set/images/a/1.jpg": "1", "set/images/b/2.jpg": "2", "set/labels.txt": "labels", "set/README": "read me"}
IMAGES = {"set/images": "images"}
TAR_AND_ZIP = pytest.mark.parametrize("suffix", ["tar", "zip"])


def encoded(files):
    return {name: text.encode() for name, text in files.items()}


def write_archive(path, files):
    path.write_bytes(pack(path.name, encoded(files)))
    return path


def add(packed, name, text="", **attributes):
    """Adds an entry to an open tar: a file, or what the attributes make it."""
    entry = tarfile.TarInfo(name)
    entry.size = len(text)
    for key, value in attributes.items():
        setattr(entry, key, value)
    packed.addfile(entry, io.BytesIO(text.encode()))


def tree(folder):
    """Returns path -> text of all files in a folder, hidden ones too."""
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "root" / "set"


@pytest.mark.parametrize(
    ("kind", "name"), [("tar", "x.tar"), ("tar.gz", "x.zip"), ("zip", "x.tar"), ("tar", "download")]
)
def test_only_what_is_wanted_is_taken_out_and_the_content_tells_the_kind(tmp_path, folder, kind, name):
    archive = write_archive(tmp_path / f"y.{kind}", FILES).rename(tmp_path / name)
    unpack(archive, folder, {"set/images": "pictures/all", "labels.txt": "labels/of_all.txt"})
    assert tree(folder) == {"pictures/all/a/1.jpg": "1", "pictures/all/b/2.jpg": "2", "labels/of_all.txt": "labels"}
    assert not list(folder.glob(".*"))


@TAR_AND_ZIP
def test_whole_names_count_and_of_several_folders_the_shortest(tmp_path, folder, suffix):
    files = {"x/y/images/1.jpg": "deep", "x/my images/1.jpg": "mine", "./x/images/images/1.jpg": "right"}
    of_macos = ("__MACOSX/images/1.jpg", "x/images/._1.jpg", "x/images/.DS_Store", "x/images/._a/1.jpg")
    unpack(
        write_archive(tmp_path / f"x.{suffix}", {**dict.fromkeys(of_macos, ""), **files}), folder, {"images": "images"}
    )
    assert tree(folder) == {"images/images/1.jpg": "right"}


@TAR_AND_ZIP
def test_a_folder_that_exists_is_completed_and_nothing_in_it_changes(tmp_path, folder, suffix):
    mine = {"images/a/1.jpg": "mine", "images/a/3.jpg": "mine", "labels.txt": "mine", "images/b/0.jpg": ""}
    write_files(folder, encoded(mine))
    archive = write_archive(tmp_path / f"x.{suffix}", {**FILES, "set/images/b/0.jpg": "0", "set/images/c/9.jpg": "9"})
    for _ in range(2):
        unpack(archive, folder, {**IMAGES, "labels.txt": "labels.txt"})
        assert tree(folder) == {**mine, "images/b/2.jpg": "2", "images/c/9.jpg": "9"}


def rename_on_one_disk(monkeypatch, disk):
    """Lets nothing be renamed to below a folder, as if it were on another disk."""
    rename = Path.rename

    def refuse(path, target):
        if Path(target).resolve().is_relative_to(disk):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)


@pytest.mark.parametrize("other_disk", [False, True])
def test_a_folder_that_is_a_link_is_completed_where_it_points_to(tmp_path, folder, other_disk, monkeypatch):
    linked = tmp_path / "disk"
    write_files(linked, encoded({"a/1.jpg": "mine"}))
    folder.mkdir(parents=True)
    (folder / "images").symlink_to(linked)
    if other_disk:
        rename_on_one_disk(monkeypatch, linked)
    unpack(write_archive(tmp_path / "x.tar", {**FILES, "set/images/a/c/3.jpg": "3"}), folder, IMAGES)
    assert tree(linked) == {"a/1.jpg": "mine", "b/2.jpg": "2", "a/c/3.jpg": "3"}
    assert (folder / "images").is_symlink()


def add_special(kind):
    """Returns what writes set/images/x of a kind to an open tar."""
    return lambda packed: add(packed, "set/images/x", type=kind)


def add_link(target, *, kind=tarfile.SYMTYPE, name="set/images/x"):
    """Returns what writes a link to an open tar."""
    return lambda packed: add(packed, name, type=kind, linkname=target)


UNSAFE = {
    "parent": lambda packed: add(packed, "set/images/../../../x", "evil"),
    "parent, not wanted": lambda packed: add(packed, "../x", "evil"),
    "absolute": lambda packed: add(packed, "/set/images/x", "evil"),
    "link out": add_link("../../../../x"),
    "hard link out": add_link("../../../x", kind=tarfile.LNKTYPE),
    "the images a link": add_link("../../x", name="set/images"),
    "link out of the folder that is moved": add_link("../../../x", name="a/b/set/images/x"),
    "device": add_special(tarfile.CHRTYPE),
    "pipe": add_special(tarfile.FIFOTYPE),
}


@pytest.mark.parametrize("kind", UNSAFE)
def test_a_tar_that_would_write_or_point_outside_is_refused(tmp_path, folder, kind):
    write_files(folder, encoded({"labels.txt": "mine"}))
    archive = tmp_path / "x.tar"
    with tarfile.open(archive, "w") as packed:
        add(packed, "set/images/b/2.jpg", "2")
        UNSAFE[kind](packed)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=f"archive {archive} holds '.*', which is not safe to unpack .*. Replace it"):
        unpack(archive, folder, IMAGES)
    assert sorted(tmp_path.rglob("*")) == before


def link_in_zip(name):
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


@pytest.mark.parametrize("entry", ["../x", "set/images/../../x", "/set/images/x", link_in_zip("set/images/x")])
def test_a_zip_that_would_write_or_point_outside_is_refused(tmp_path, folder, entry):
    archive = write_archive(tmp_path / "x.zip", FILES)
    with zipfile.ZipFile(archive, "a") as packed:
        packed.writestr(entry, "../../../x")
    with pytest.raises(ValueError, match=f"archive {archive} holds .*x', which is not safe to unpack"):
        unpack(archive, folder, IMAGES)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["root", "set", "x.zip"]


def test_links_within_the_folder_are_kept(tmp_path, folder):
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as packed:
        add(packed, "set/images/a/1.jpg", "1")
        add_link("../a/1.jpg", name="set/images/b/1.jpg")(packed)
        add_link("set/images/a/1.jpg", name="set/images/c/1.jpg", kind=tarfile.LNKTYPE)(packed)
    unpack(tmp_path / "x.tar.gz", folder, IMAGES)
    assert tree(folder) == {f"images/{name}/1.jpg": "1" for name in "abc"}
    assert os.readlink(folder / "images" / "b" / "1.jpg") == "../a/1.jpg"


def test_a_python_without_safe_unpacking_is_told_which_has_it(tmp_path, folder, monkeypatch):
    archive = write_archive(tmp_path / "x.tar", FILES)
    monkeypatch.delattr(tarfile, "data_filter")
    with pytest.raises(NotImplementedError, match="Python 3.* does not unpack archives safely; 3.10.12, .*by hand"):
        unpack(archive, folder, IMAGES)
    assert tree(folder) == {}


def broken_zip(path):
    """One byte of an image is another one."""
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("set/images/a/1.jpg", "pixels")
    path.write_bytes(path.read_bytes().replace(b"pixels", b"pixelz"))


def random_files():
    return {f"set/images/{i}.jpg": os.urandom(500).hex() for i in range(20)}


def cut(path):
    """Half of an archive is missing."""
    write_archive(path, random_files())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BROKEN = {f"x.{suffix}": cut for suffix in ("tar", "tar.gz", "zip")}
BROKEN |= {"other.zip": broken_zip, "page.tar.gz": lambda path: path.write_text("<html>quota exceeded")}
BROKEN |= {"empty.zip": lambda path: path.write_bytes(b"")}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_archive_changes_nothing(tmp_path, folder, name):
    archive = tmp_path / name
    BROKEN[name](archive)
    write_files(folder, encoded({"labels.txt": "mine"}))
    with pytest.raises(ValueError, match=rf"archive {archive} does not unpack \(.+\). Delete it"):
        unpack(archive, folder, IMAGES)
    assert tree(folder) == {"labels.txt": "mine"} and not (folder / "images").exists()


def test_a_member_that_is_not_there_is_named(tmp_path, folder):
    archive = write_archive(tmp_path / "x.zip", {**FILES, "notes.txt": ""})
    wanted = {**IMAGES, "set/split.json": "split.json"}
    with pytest.raises(ValueError, match=f"{archive} holds no set/split.json; at its top are: notes.txt, set. Repl"):
        unpack(archive, folder, wanted)
    assert tree(folder) == {}
    with pytest.raises(ValueError, match="at its top are: no files"):
        unpack(write_archive(tmp_path / "y.zip", {}), folder, wanted)


@pytest.fixture(name="small_disk")
def disk_of_256_kb():
    with small_disk("256k") as path:
        yield path


@pytest.mark.parametrize("suffix", ["tar.gz", "zip"])
def test_a_full_disk_is_said_and_leaves_no_half_of_the_images(tmp_path, small_disk, suffix):
    write_files(small_disk, encoded({"set/images/0.jpg": "mine"}))
    archive = write_archive(tmp_path / f"x.{suffix}", {f"set/images/{i}.jpg": "0" * 50_000 for i in range(19)})
    with pytest.raises(OSError, match=rf"^{small_disk}/set could not be written \(No space left on device"):
        unpack(archive, small_disk / "set", IMAGES)
    assert tree(small_disk) == {"set/images/0.jpg": "mine"}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_without_a_small_disk(tmp_path, folder, number, monkeypatch):
    def fail(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(archives, "merge", fail)
    with pytest.raises(OSError, match="could not be written .* MB are free"):
        unpack(write_archive(tmp_path / "x.tar", FILES), folder, IMAGES)
    assert tree(folder) == {}


def test_another_fault_of_the_disk_is_told_as_it_is(tmp_path, folder, monkeypatch):
    def fail(*args):
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(PermissionError, match="Permission denied"):
        unpack(write_archive(tmp_path / "x.tar", FILES), folder, IMAGES)
