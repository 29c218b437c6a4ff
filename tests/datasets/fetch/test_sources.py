"""Where a data set's files come from: its folder, --from, then each source; every failure told."""

import hashlib
import logging
import zipfile

import pytest

from datasets.fetch.sources import RemoteFile, matching, obtain, plan_file
from tests.support.file_server import no_network, serve, serve_drive
from tests.support.small_copies import pack

REPO = "someone/all_sets"


@pytest.fixture(autouse=True)
def warnings_alone(caplog):
    """Whatever level another test has left behind."""
    caplog.set_level(logging.WARNING)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server whose folder holds images.tar.gz in good/ and, as Oxford-Pets.zip, on the hub."""
    no_network(monkeypatch)
    served = tmp_path / "served"
    write(served / "good" / "images.tar.gz", "a cat")
    write(served / "hub" / REPO / "prepared" / "Oxford-Pets.zip", "a cat")
    write(served / "hub" / REPO / "prepared" / "Other.zip", "a car")
    with serve(served) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "data" / "oxford_pets"


def write(path, text):
    """Writes an archive, of the kind that its name says, with one file in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pack(path.name, {"images/cat.jpg": text.encode()}))
    return path


def md5_of(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def good(server):
    return server.folder / "good" / "images.tar.gz"


def images(*sources, **facts):
    return RemoteFile("images.tar.gz", sources=sources, **facts)


def paths_asked(server):
    return [path for path, _ in server.asked]


def test_every_failure_is_told_once_and_a_person_is_told_what_to_do(server, folder, monkeypatch, caplog):
    serve_drive(monkeypatch, {"1full": None})
    server.replaced = {"parked.tar.gz": b"<html>This domain is for sale</html>"}
    address, parked = f"{server.url}/gone/images.tar.gz", f"{server.url}/parked.tar.gz"
    with pytest.raises(ConnectionError) as caught:
        obtain(images(address, parked, "drive:1full", f"hub:{REPO}"), folder)
    gone, other, drive, hub = caplog.messages
    assert gone.startswith(f"{address}: 404 Client Error")
    assert other == f"{parked} gives another file, which is deleted: it is no whole zip or tar file (36 bytes)"
    assert drive.startswith("https://drive.google.com/file/d/1full: ") and "Too many users" in drive
    assert hub == f"{server.url}/datasets/{REPO} has no images.tar.gz, nor an archive of its name or aliases"
    assert str(caught.value) == (
        f"images.tar.gz is not to be had. By hand: fetch {address} or {parked} or "
        f"https://drive.google.com/file/d/1full or {server.url}/datasets/{REPO} with a browser and save it as "
        f"{folder}/images.tar.gz, or pass the folder that holds it as --from FOLDER."
    )
    assert list(folder.iterdir()) == []


def test_a_wrong_file_in_the_folder_is_refused_and_never_deleted(server, folder):
    found = write(folder / "images.tar.gz", "a dog")
    wrong = images(f"{server.url}/good/images.tar.gz", md5="0" * 32)
    message = rf"{found} is wrong: its md5 is [0-9a-f]{{32}}, not 0{{32}}\. Delete it and run this command again"
    with pytest.raises(ValueError, match=message):
        obtain(wrong, folder)
    message = r"it has [\d,]+ bytes, not 1,234,567\. Delete it"
    with pytest.raises(ValueError, match=message):
        obtain(images(n_bytes=1_234_567), folder)
    for content in (b"", good(server).read_bytes()[:30]):
        found.write_bytes(content)
        with pytest.raises(ValueError, match=rf"it is no whole zip or tar file \({len(content)} bytes\)\. Delete it"):
            obtain(images(), folder)
    assert found.exists() and server.asked == []


def test_the_hubs_archive_is_found_by_an_alias_and_keeps_its_name(server, folder):
    file = RemoteFile("pets.zip", sources=(f"hub:{REPO}",), aliases=("oxford_pets",))
    assert obtain(file, folder) == folder / "Oxford-Pets.zip"
    asked = len(server.asked)
    assert obtain(file, folder) == folder / "Oxford-Pets.zip"
    assert len(server.asked) == asked


def test_a_file_that_resembles_it_but_is_wrong_is_left_alone(server, folder, caplog):
    found = folder / "Oxford-Pets.zip"
    folder.mkdir(parents=True)
    found.write_text("not an archive")
    file = RemoteFile("pets.zip", sources=(f"hub:{REPO}",), aliases=("oxford_pets",))
    with pytest.raises(ConnectionError, match="pets.zip is not to be had"):
        obtain(file, folder)
    assert caplog.messages == [
        f"{found} is wrong: it is no whole zip or tar file (14 bytes)",
        f"{found} is in the way of the one on {server.url}/datasets/{REPO}: move it elsewhere",
    ]
    assert found.read_text() == "not an archive"


def test_names_that_fit_are_chosen_near_and_shallow_first(tmp_path):
    file = RemoteFile("SUN397.tar.gz", aliases=("sun-397",))
    fitting = ["a/SUN397.tar.gz", "sun397/b/SUN397.tar.gz", "SUN_397.ZIP", "x/sun397.tgz", "x/y/Sun 397.tar"]
    others = ["SUN397_part1.zip", "SUN397", "SUN397.tar.gz.part", "sun397.7z", ".zip"]
    paths = [tmp_path / name for name in (*reversed(fitting), *others)]
    expected = ["sun397/b/SUN397.tar.gz", "a/SUN397.tar.gz", "SUN_397.ZIP", "x/sun397.tgz", "x/y/Sun 397.tar"]
    assert matching(file, paths, "sun397") == [tmp_path / name for name in expected]
    assert matching(RemoteFile("split.json"), [tmp_path / "split.zip", tmp_path / "split.json"], "") == [
        tmp_path / "split.json"
    ]


def test_what_from_lacks_or_has_wrong_is_told_and_the_sources_tried(server, folder, tmp_path, caplog):
    (tmp_path / "empty").mkdir()
    file = images(f"{server.url}/good/images.tar.gz", md5=md5_of(good(server)))
    assert obtain(file, folder, source=str(tmp_path / "empty")) == folder / "images.tar.gz"
    assert caplog.messages == [f"{tmp_path}/empty holds no images.tar.gz"]
    (folder / "images.tar.gz").unlink()
    caplog.clear()
    wrong = [write(tmp_path / "usb" / place / "images.tar.gz", "a dog") for place in ("a", "b")]
    assert obtain(file, folder, source=str(tmp_path / "usb")) == folder / "images.tar.gz"
    assert caplog.messages == [f"{path} is wrong: its md5 is {md5_of(path)}, not {file.md5}" for path in wrong]
    assert all(path.exists() for path in wrong)


@pytest.mark.parametrize("place", ["mine", "mine/oxford_pets"])
def test_an_address_named_by_from_is_tried_first(server, folder, place):
    write(server.folder / place / "images.tar.gz", "my cat")
    found = obtain(images(f"{server.url}/good/images.tar.gz"), folder, source=f"{server.url}/mine/")
    assert found.read_bytes() == (server.folder / place / "images.tar.gz").read_bytes()
    assert "/good/images.tar.gz" not in paths_asked(server)


def test_a_file_whose_name_starts_with_a_folder_is_put_there(server, folder):
    (server.folder / "hub" / REPO / "labels").mkdir()
    for place in (server.folder / "labels", server.folder / "hub" / REPO / "labels"):
        place.mkdir(exist_ok=True)
        (place / "list.txt").write_text("a cat")
    file = RemoteFile("labels/list.txt", sources=(f"hub:{REPO}",))
    for source in (server.url, ""):
        assert obtain(file, folder, source=source) == folder / "labels" / "list.txt"
        (folder / "labels" / "list.txt").unlink()
    assert paths_asked(server)[-1] == f"/datasets/{REPO}/resolve/main/labels/list.txt"
    assert [path.name for path in folder.rglob("*")] == ["labels"]


@pytest.mark.parametrize("source", ["/no/such/folder", "ftp://example.org/data"])
def test_from_that_names_neither_a_folder_nor_an_address_is_refused(folder, source):
    message = f"--from is {source}, which is no folder and no address .* of an archive, name the folder"
    with pytest.raises(ValueError, match=message):
        obtain(images(), folder, source=source)


def inner_of(server, **facts):
    """The file inner.tar.gz, to be had inside outer.zip alone."""
    inner = write(server.folder / "inner.tar.gz", "a cat")
    with zipfile.ZipFile(server.folder / "outer.zip", "w") as archive:
        archive.write(inner, "some-set/inner.tar.gz")
    outer = RemoteFile("outer.zip", sources=(f"{server.url}/outer.zip",))
    return inner, RemoteFile("inner.tar.gz", inside=outer, **facts)


def test_an_archive_inside_another_is_verified(server, folder):
    _, file = inner_of(server, md5="0" * 32)
    with pytest.raises(ValueError, match=f"{folder}/inner.tar.gz is wrong: its md5 is .*, not 0{{32}}. Delete it"):
        obtain(file, folder)


def test_an_outer_archive_that_is_not_to_be_had_is_told_with_its_address(server, folder, caplog):
    _, file = inner_of(server, sources=("http://127.0.0.1:9/inner.tar.gz",))
    server.missing = {"outer.zip"}
    message = "^inner.tar.gz is not to be had. By hand: fetch http://127.0.0.1:9/inner.tar.gz"
    with pytest.raises(ConnectionError, match=message):
        obtain(file, folder)
    inner, reason, outer = caplog.messages
    assert inner.startswith("http://127.0.0.1:9/inner.tar.gz: ")
    assert reason.startswith(f"{server.url}/outer.zip: 404")
    by_hand = f"By hand: fetch {server.url}/outer.zip with a browser and save it as {folder}/outer.zip"
    assert outer.startswith(f"outer.zip is not to be had. {by_hand}")


def test_the_plan_says_what_would_be_done_and_asks_nobody(server, folder, tmp_path):
    address = f"{server.url}/good/images.tar.gz"
    _, inner = inner_of(server)
    drive, mirror = "https://drive.google.com/file/d/1aB", f"{server.url}/datasets/{REPO}"
    assert plan_file(images(address, "drive:1aB", f"hub:{REPO}"), folder) == (
        f"images.tar.gz: would be fetched from {address}, else fetched from {drive}, else fetched from {mirror}"
    )
    assert plan_file(images(address), folder, source="http://127.0.0.1:9/") == (
        "images.tar.gz: would be fetched from http://127.0.0.1:9/images.tar.gz, else fetched from "
        f"http://127.0.0.1:9/oxford_pets/images.tar.gz, else fetched from {address}"
    )
    fetched = f"would be fetched from {server.url}/outer.zip"
    assert plan_file(inner, folder) == f"inner.tar.gz: would be taken out of outer.zip: {fetched}"
    found = write(tmp_path / "usb" / "images.tar.gz", "a cat")
    assert plan_file(images(address), folder, source=str(found.parent)) == f"images.tar.gz: there, as {found}"
    write(folder / "images.tar.gz", "a cat")
    assert plan_file(images(address), folder) == "images.tar.gz: there"
    assert server.asked == []
