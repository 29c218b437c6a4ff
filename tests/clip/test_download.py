"""Fetching weights files from a server on the loopback interface: continued, checked, refused."""

import hashlib

import pytest
import torch

import clip
from clip.clip import _MODELS, _download
from tests.support.file_server import serve
from tests.support.tiny_clip import golden_state_dict

CONTENT = bytes(range(256)) * 20_000  # 5 MB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(tmp_path):
    """Serves the content as SHA256/RN50.pt."""
    with serve(tmp_path / "served") as server:
        write(server, SHA256)
        yield server


def write(server, sha256, content=CONTENT, filename="RN50.pt"):
    """Puts a file onto the server and returns its URL."""
    path = server.folder / sha256 / filename
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return f"{server.url}/{sha256}/{filename}"


def url_of(server):
    return f"{server.url}/{SHA256}/RN50.pt"


def ranges(server):
    return [asked for _, asked in server.asked]


@pytest.fixture
def cache(tmp_path):
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def test_a_file_is_fetched_once(server, tmp_path):
    path = _download(url_of(server), tmp_path / "new")
    assert path == tmp_path / "new" / "RN50.pt"
    assert path.read_bytes() == CONTENT
    assert _download(url_of(server), tmp_path / "new") == path
    assert ranges(server) == [None]
    assert [file.name for file in path.parent.iterdir()] == ["RN50.pt"]


def test_the_default_cache_is_the_one_clip_users_know(server, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert _download(url_of(server)) == tmp_path / ".cache" / "clip" / "RN50.pt"


def test_a_model_is_loaded_by_its_name(server, cache, tmp_path, monkeypatch):
    torch.save(golden_state_dict("vit"), tmp_path / "weights.pt")
    content = (tmp_path / "weights.pt").read_bytes()
    url = write(server, hashlib.sha256(content).hexdigest(), content, "ViT-B-16.pt")
    monkeypatch.setitem(_MODELS, "ViT-B/16", url)
    model, _ = clip.load("ViT-B/16", "cpu", download_root=cache)
    assert model.visual.input_resolution == 32
    assert (cache / "ViT-B-16.pt").is_file()


def test_a_broken_download_is_continued_where_it_stopped(server, cache):
    server.cut = {"RN50.pt": 3_000_000}
    part = cache / "RN50.pt.part"
    message = (
        r"could not be fetched \(the connection ended after 3,000,000 of 5,120,000 bytes\).*3,000,000 bytes in .*kept"
    )
    with pytest.raises(OSError, match=message):
        _download(url_of(server), cache)
    assert part.read_bytes() == CONTENT[:3_000_000]
    assert not (cache / "RN50.pt").exists()
    assert _download(url_of(server), cache).read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=3000000-"]
    assert not part.exists()


@pytest.mark.parametrize(("n_bytes", "understands_ranges"), [(1000, False), (len(CONTENT), True)])
def test_a_server_that_ignores_range_and_a_part_that_is_whole(server, cache, n_bytes, understands_ranges):
    (cache / "RN50.pt.part").write_bytes(CONTENT[:n_bytes])
    server.understands_ranges = understands_ranges
    assert _download(url_of(server), cache).read_bytes() == CONTENT
    assert ranges(server) == [f"bytes={n_bytes}-"]


def test_a_wrong_part_is_thrown_away(server, cache):
    (cache / "RN50.pt.part").write_bytes(b"x" * 1000)
    with pytest.raises(
        ValueError, match="The sha256 of http.*RN50.pt is [0-9a-f]{64} instead of [0-9a-f]{64}. Nothing was"
    ):
        _download(url_of(server), cache)
    assert list(cache.iterdir()) == []
    assert _download(url_of(server), cache).read_bytes() == CONTENT


def test_a_cached_file_with_the_wrong_checksum_is_refused_and_fetched_again(server, cache):
    (cache / "RN50.pt").write_bytes(b"another model")
    found = hashlib.sha256(b"another model").hexdigest()
    with pytest.warns(
        UserWarning, match=f"The sha256 of .*RN50.pt is {found} instead of .* fetched again and replaced"
    ):
        path = _download(url_of(server), cache)
    assert path.read_bytes() == CONTENT


def test_an_answer_that_is_an_error_says_so(server, cache):
    server.missing = {"RN50.pt"}
    with pytest.raises(
        OSError, match=r"RN50.pt could not be fetched \(HTTP Error 404: Not Found\).*nothing has come yet"
    ):
        _download(url_of(server), cache)


def test_no_server_says_so_and_keeps_what_came(cache):
    (cache / "RN50.pt.part").write_bytes(b"x" * 1000)
    with pytest.raises(OSError, match=r"could not be fetched .*refused.*the 1,000 bytes in .*RN50.pt.part are kept"):
        _download("http://127.0.0.1:9/" + "0" * 64 + "/RN50.pt", cache)
    assert (cache / "RN50.pt.part").stat().st_size == 1000
