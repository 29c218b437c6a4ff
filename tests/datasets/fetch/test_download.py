"""Fetching one file: continued, checked, there whole or not at all; from a server on the loopback interface."""

import errno
import io
import os
import re
from pathlib import Path

import pytest

from datasets.fetch import download
from datasets.fetch.download import fetch, list_hub_files
from tests.support.file_server import no_network, serve, serve_drive

CONTENT = bytes(range(256)) * 8_000  # 2 MB
REPO = "someone/some_images"


@pytest.fixture
def server(tmp_path, monkeypatch):
    no_network(monkeypatch)
    (tmp_path / "served" / "hub" / REPO).mkdir(parents=True)
    (tmp_path / "served" / "images.tar").write_bytes(CONTENT)
    (tmp_path / "served" / "hub" / REPO / "Some Images.zip").write_bytes(CONTENT)
    with serve(tmp_path / "served") as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture
def path(tmp_path):
    (tmp_path / "here").mkdir()
    return tmp_path / "here" / "images.tar"


def names(folder):
    return [file.name for file in folder.iterdir()]


def size_of_part(path):
    """Returns the size of what is kept, which has to be the only file there."""
    (part,) = path.parent.iterdir()
    assert part.name.startswith(f".{path.name}.")
    return part.stat().st_size


def test_a_file_is_fetched_whole_and_others_may_read_it(server, path):
    fetch(f"{server.url}/images.tar", path)
    (path.parent / "made_by_hand").touch()
    assert path.read_bytes() == CONTENT
    assert path.stat().st_mode == (path.parent / "made_by_hand").stat().st_mode
    assert sorted(names(path.parent)) == ["images.tar", "made_by_hand"]


@pytest.mark.parametrize("source", ["{url}/images.tar", f"hub:{REPO}/Some Images.zip"])
def test_a_broken_connection_is_continued_in_the_same_call(server, path, monkeypatch, source):
    monkeypatch.setattr(download, "N_RETRIES", 1)
    monkeypatch.setattr("random.uniform", lambda *_: 0.0)  # seconds until gdown tries again
    server.cut = {"images.tar": 700_000, "Some Images.zip": 700_000}
    fetch(source.format(url=server.url), path)
    assert path.read_bytes() == CONTENT
    (_, whole), (_, rest) = server.asked
    assert whole is None
    assert 0 < int(rest.removeprefix("bytes=").removesuffix("-")) <= 700_000


@pytest.mark.parametrize("source", ["{url}/images.tar", f"hub:{REPO}/Some Images.zip"])
def test_what_a_broken_run_left_is_continued_by_the_next(server, path, source):
    server.cut = {"images.tar": 700_000, "Some Images.zip": 700_000}
    with pytest.raises(ConnectionError) as caught:
        fetch(source.format(url=server.url), path)
    n_bytes = size_of_part(path)
    told = f"received {n_bytes} bytes but the server announced 2048000 bytes. ({n_bytes:,} bytes of it are kept: run"
    assert told in str(caught.value)
    fetch(source.format(url=server.url), path)
    assert path.read_bytes() == CONTENT
    assert server.asked[-1][1] == f"bytes={n_bytes}-"
    assert names(path.parent) == ["images.tar"]


@pytest.mark.parametrize("number", [None, errno.ENOSPC, errno.EDQUOT], ids=["interrupted", "full disk", "quota"])
def test_what_a_run_left_that_was_ended_is_continued_by_the_next(server, path, number, monkeypatch):
    error = OSError(number, os.strerror(number)) if number else KeyboardInterrupt()

    class Ending(io.FileIO):
        def write(self, content):
            if self.tell():
                raise error
            return super().write(content)

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", lambda name, mode: Ending(name, mode))
        with pytest.raises(type(error)) as caught:
            fetch(f"{server.url}/images.tar", path)
    assert caught.value is error, "other sources would be tried"
    n_bytes = size_of_part(path)
    fetch(f"{server.url}/images.tar", path)
    assert path.read_bytes() == CONTENT
    assert server.asked[-1][1] == f"bytes={n_bytes}-"


@pytest.mark.parametrize(
    ("change", "content"),
    [({"understands_ranges": False}, CONTENT), ({"replaced": {"images.tar": b"a short one"}}, b"a short one")],
    ids=["no ranges", "shorter now"],
)
def test_where_nothing_can_be_continued_the_whole_file_is_fetched(server, path, change, content):
    server.cut = {"images.tar": 700_000}
    with pytest.raises(ConnectionError):
        fetch(f"{server.url}/images.tar", path)
    vars(server).update(change)
    fetch(f"{server.url}/images.tar", path)
    assert path.read_bytes() == content
    assert names(path.parent) == ["images.tar"]


def test_one_sources_beginning_is_not_continued_with_anothers_end(server, path):
    server.cut = {"images.tar": 700_000}
    with pytest.raises(ConnectionError):
        fetch(f"{server.url}/images.tar", path)
    (server.folder / "mirror").mkdir()
    (server.folder / "mirror" / "images.tar").write_bytes(CONTENT[::-1])
    fetch(f"{server.url}/mirror/images.tar", path)
    assert path.read_bytes() == CONTENT[::-1]
    assert names(path.parent) == ["images.tar"], "the beginning of the other one stays"


def test_a_redirected_address_is_followed_and_continued(server, path):
    server.redirected, server.cut = {"latest.tar": "/images.tar"}, {"images.tar": 700_000}
    with pytest.raises(ConnectionError, match="bytes of it are kept"):
        fetch(f"{server.url}/latest.tar", path)
    n_bytes = size_of_part(path)
    fetch(f"{server.url}/latest.tar", path)
    assert path.read_bytes() == CONTENT
    assert server.asked[-1] == ("/images.tar", f"bytes={n_bytes}-")


def test_a_file_that_the_check_refuses_is_deleted_and_not_continued(server, path):
    def refuse(found):
        assert found.read_bytes() == CONTENT
        raise ValueError("the sky is in it")

    message = f"{server.url}/images.tar gives another file, which is deleted: the sky is in it"
    with pytest.raises(ConnectionError, match=message):
        fetch(f"{server.url}/images.tar", path, check=refuse)
    assert names(path.parent) == []
    fetch(f"{server.url}/images.tar", path)
    assert {asked for _, asked in server.asked} == {None}


def test_no_file_and_no_server_say_so(server, path):
    with pytest.raises(ConnectionError, match=f"{server.url}/other.tar: 404 Client Error: Not Found"):
        fetch(f"{server.url}/other.tar", path)
    told = r"http://127.0.0.1:9/images.tar: Failed to establish a new connection: \[Errno 111\] Connection refused"
    with pytest.raises(ConnectionError, match=f"^{told}$"):
        fetch("http://127.0.0.1:9/images.tar", path)
    assert names(path.parent) == []


def test_google_drive_gives_a_file_by_its_id(server, path, monkeypatch):
    serve_drive(monkeypatch, {"1aB-c_D": server.folder / "images.tar", "1full": None})
    fetch("drive:1aB-c_D", path)
    assert path.read_bytes() == CONTENT
    with pytest.raises(ConnectionError, match="https://drive.google.com/file/d/1full: .*Too many users have viewed"):
        fetch("drive:1full", path)
    with pytest.raises(
        ConnectionError, match="https://drive.google.com/file/d/1gone: Failed to retrieve file url: Cannot"
    ):
        fetch("drive:1gone", path)


def test_the_hub_lists_and_gives_files(server, path):
    (server.folder / "hub" / REPO / "data").mkdir()
    (server.folder / "hub" / REPO / "data" / "more.zip").touch()
    assert list_hub_files(REPO) == ["Some Images.zip", "data/more.zip"]
    fetch(f"hub:{REPO}/Some Images.zip", path)
    assert path.read_bytes() == CONTENT
    with pytest.raises(ConnectionError, match=f"{server.url}/datasets/no/where: .*404"):
        list_hub_files("no/where")


def test_a_folder_that_cannot_be_written_is_no_fault_of_the_source(server, tmp_path):
    (tmp_path / "a_file").touch()
    with pytest.raises(NotADirectoryError):
        fetch(f"{server.url}/images.tar", tmp_path / "a_file" / "images.tar")


def test_what_fetches_is_imported_only_to_fetch():
    for path in Path(download.__file__).parent.glob("*.py"):
        assert not re.search(
            r"^(import|from) (gdown|huggingface_hub)\b", path.read_text(encoding="utf-8"), re.MULTILINE
        )
