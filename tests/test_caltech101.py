"""Caltech-101 is fetched, here from a loopback server, checked and never written over."""

import functools
import hashlib
import io
import json
import tarfile
import threading
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import gdown
import pytest
from PIL import Image

from datasets import caltech101
from datasets.caltech101 import Caltech101
from engine import get_cfg_default

FOLDERS = {"BACKGROUND_Google": 3, "Faces": 10, "Faces_easy": 3, "accordion": 10, "airplanes": 10}
SPLIT = {
    part: [
        [f"{folder}/image_{i:04d}.jpg", label, name]
        for label, (folder, name) in enumerate(
            [("Faces", "face"), ("accordion", "accordion"), ("airplanes", "airplane")]
        )
        for i in numbers
    ]
    for part, numbers in (("train", range(5)), ("val", range(5, 7)), ("test", range(7, 10)))
}


def inner_archive():
    """Returns the bytes of a small 101_ObjectCategories.tar.gz."""
    image = io.BytesIO()
    Image.new("RGB", (8, 8)).save(image, "JPEG")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for folder, n in FOLDERS.items():
            for i in range(n):
                member = tarfile.TarInfo(f"101_ObjectCategories/{folder}/image_{i:04d}.jpg")
                member.size = len(image.getvalue())
                tar.addfile(member, io.BytesIO(image.getvalue()))
    return archive.getvalue()


class Handler(SimpleHTTPRequestHandler):
    def do_GET(self):
        self.server.n_downloads += 1
        super().do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture
def publisher(tmp_path, monkeypatch):
    """A loopback server that has the outer archive, and a Google Drive that has the split."""
    served = tmp_path / "served"
    served.mkdir()
    with zipfile.ZipFile(served / "caltech-101.zip", "w") as outer:
        outer.writestr("caltech-101/101_ObjectCategories.tar.gz", inner_archive())
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(served)))
    server.n_downloads, server.archive = 0, served / "caltech-101.zip"
    server.split = json.dumps(SPLIT)
    md5 = hashlib.md5(server.archive.read_bytes()).hexdigest()
    monkeypatch.setattr(caltech101, "ARCHIVE_URL", f"http://127.0.0.1:{server.server_port}/caltech-101.zip")
    monkeypatch.setattr(caltech101, "ARCHIVE_MD5", md5)
    monkeypatch.setattr(Caltech101, "n_classes", 3)
    monkeypatch.setattr(Caltech101, "n_items", (15, 6, 9))
    monkeypatch.setattr(Caltech101, "split_sha256", hashlib.sha256(server.split.encode()).hexdigest())
    canonical = json.dumps(list(SPLIT.values()), separators=(",", ":"))
    monkeypatch.setattr(Caltech101, "split_items_sha256", hashlib.sha256(canonical.encode()).hexdigest())

    def from_drive(*, id, output, quiet):
        server.n_downloads += 1
        if server.split is None:
            raise RuntimeError("quota exceeded")
        Path(output).write_text(server.split)
        return output

    monkeypatch.setattr(gdown, "download", from_drive)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data"


def cfg_of(root, *, shots=-1, seed=1):
    cfg = get_cfg_default()
    cfg.DATASET.ROOT, cfg.DATASET.NUM_SHOTS, cfg.SEED = str(root), shots, seed
    return cfg


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_images_and_split_are_fetched_once(publisher, root):
    Caltech101.prepare(root)
    n_downloads = publisher.n_downloads
    report = Caltech101.check(root, decode=True)
    assert report.ok, str(report)
    assert names(root / "caltech-101") == [
        "101_ObjectCategories",
        "101_ObjectCategories.tar.gz",
        "caltech-101.zip",
        "split_zhou_Caltech101.json",
    ]
    dataset = Caltech101(cfg_of(root))
    assert dataset.classnames == ["face", "accordion", "airplane"]
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    Caltech101.prepare(root)
    assert publisher.n_downloads == n_downloads > 0
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_an_archive_that_is_there_is_unpacked_without_the_network(publisher, root):
    for place in ("", "caltech-101"):  # as the publisher's inner archive, or where the outer one unpacks it
        folder = root / f"root{place}" / "caltech-101" / place
        folder.mkdir(parents=True)
        (folder / "101_ObjectCategories.tar.gz").write_bytes(inner_archive())
        (root / f"root{place}" / "caltech-101" / "split_zhou_Caltech101.json").write_text(publisher.split)
        Caltech101.prepare(root / f"root{place}")
        assert Caltech101.check(root / f"root{place}").ok
    assert publisher.n_downloads == 0


def test_what_a_user_put_there_is_not_touched(publisher, root):
    image = root / "caltech-101" / "101_ObjectCategories" / "Faces" / "image_0000.jpg"
    image.parent.mkdir(parents=True)
    image.write_text("mine")
    (root / "caltech-101" / "split_zhou_Caltech101.json").write_text(publisher.split)
    Caltech101.prepare(root)
    assert image.read_text() == "mine" and publisher.n_downloads == 0
    assert "29 image(s) are missing" in str(Caltech101.check(root))


def test_a_download_with_a_wrong_checksum_is_refused(publisher, root, monkeypatch):
    monkeypatch.setattr(caltech101, "ARCHIVE_MD5", "0" * 32)
    with pytest.raises(
        ConnectionError, match="caltech-101.zip is incomplete .*expected a file of md5 0000.*by hand to"
    ):
        Caltech101.prepare(root)
    assert names(root / "caltech-101") == ["caltech-101.zip.part"]


def test_a_download_goes_on_after_a_failure(publisher, root):
    whole = publisher.archive.read_bytes()
    publisher.archive.write_bytes(whole[:100])
    with pytest.raises(ConnectionError):
        Caltech101.prepare(root)
    publisher.archive.write_bytes(whole)
    Caltech101.prepare(root)
    assert Caltech101.check(root).ok


def test_no_server_is_said_with_the_remedy(publisher, root, monkeypatch):
    monkeypatch.setattr(caltech101, "ARCHIVE_URL", "http://127.0.0.1:9/caltech-101.zip")
    with pytest.raises(ConnectionError, match=f"127.0.0.1:9/.* or fetch the file by hand to {root}"):
        Caltech101.prepare(root)


def test_an_archive_of_other_bytes_is_named(publisher, root):
    archive = root / "caltech-101" / "caltech-101.zip"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(b"cut")
    with pytest.raises(ValueError, match=f"Archive {archive} has md5 .*, expected .*. Delete it and run"):
        Caltech101.prepare(root)
    assert archive.read_bytes() == b"cut"


def test_a_broken_inner_archive_leaves_no_half_of_the_images(publisher, root):
    archive = root / "caltech-101" / "101_ObjectCategories.tar.gz"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(inner_archive()[:-300])
    with pytest.raises(ValueError, match=f"Archive {archive} does not unpack .* Delete it and run this command again"):
        Caltech101.prepare(root)
    with tarfile.open(archive, "w:gz"):
        pass
    with pytest.raises(ValueError, match=f"Archive {archive} holds no 101_ObjectCategories, expected"):
        Caltech101.prepare(root)
    assert names(archive.parent) == ["101_ObjectCategories.tar.gz"]


def test_a_split_of_other_bytes_with_the_same_items_is_as_good(publisher, root):
    publisher.split = json.dumps(SPLIT, indent=3)
    Caltech101.prepare(root)
    assert Caltech101.check(root).ok


@pytest.mark.parametrize("split", [None, "<html>", json.dumps({**SPLIT, "train": SPLIT["train"][::-1]})])
def test_without_the_papers_split_one_is_drawn_and_said_to_be_another(publisher, root, split, caplog):
    publisher.split = split
    Caltech101.prepare(root)
    reason = {None: "quota exceeded", "<html>": "is not readable"}.get(split, "expected the papers'")
    assert reason in caplog.text and Caltech101.split_id in caplog.text
    assert "It is NOT the papers' split" in caplog.text
    assert not (root / "caltech-101" / "split_zhou_Caltech101.json").exists()
    report = Caltech101.check(root)
    assert not report.ok and "split_seed1_Caltech101.json is NOT the papers' split" in str(report)
    caplog.clear()
    dataset = Caltech101(cfg_of(root))
    assert "It is NOT the papers' split" in caplog.text
    assert (dataset.classnames, len(dataset.train_x)) == (["face", "accordion", "airplane"], 15)
    publisher.split = json.dumps(SPLIT)
    Caltech101.prepare(root)
    assert Caltech101.check(root).ok
