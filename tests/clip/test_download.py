"""Fetching weights files from a server on the loopback interface: continued, checked, refused."""

import hashlib
import http.server
import re
import threading

import pytest
import torch

import clip
from clip.clip import _MODELS, _download
from tests.support.tiny_clip import golden_state_dict


class Server(http.server.ThreadingHTTPServer):
    """Serves `content` under every path, on the loopback interface."""

    content = bytes(range(256)) * 20_000  # 5 MB
    understands_range = True
    range_shift = 0  # bytes by which a partial answer starts early
    stops_after = None  # bytes of one answer after which the connection ends
    status = None
    asked: list[str | None]  # the Range header of every request

    def url(self, filename: str = "RN50.pt", sha256: str | None = None) -> str:
        return f"http://127.0.0.1:{self.server_port}/{sha256 or hashlib.sha256(self.content).hexdigest()}/{filename}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, requested = self.server, self.headers.get("Range")
        server.asked.append(requested)
        if server.status:
            return self.send_error(server.status)
        start = int(re.fullmatch(r"bytes=(\d+)-", requested).group(1)) if requested and server.understands_range else 0
        if start >= len(server.content):
            return self.send_error(416)
        start = max(start - server.range_shift, 0)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        self.send_header("Content-Length", str(len(server.content) - start))
        self.end_headers()
        self.wfile.write(server.content[start:][: server.stops_after])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with Server(("127.0.0.1", 0), Handler) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_file_is_fetched_once(server, tmp_path):
    path = _download(server.url(), tmp_path / "cache")
    assert path == tmp_path / "cache" / "RN50.pt"
    assert path.read_bytes() == server.content
    assert _download(server.url(), tmp_path / "cache") == path
    assert server.asked == [None]
    assert [file.name for file in path.parent.iterdir()] == ["RN50.pt"]


def test_the_default_cache_is_the_one_clip_users_know(server, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert _download(server.url()) == tmp_path / ".cache" / "clip" / "RN50.pt"


def test_a_model_is_loaded_by_its_name(server, tmp_path, monkeypatch):
    torch.save(golden_state_dict("vit"), tmp_path / "weights.pt")
    server.content = (tmp_path / "weights.pt").read_bytes()
    monkeypatch.setitem(_MODELS, "ViT-B/16", server.url("ViT-B-16.pt"))
    model, _ = clip.load("ViT-B/16", "cpu", download_root=tmp_path)
    assert model.visual.input_resolution == 32
    assert (tmp_path / "ViT-B-16.pt").is_file()


def test_a_broken_download_is_continued_where_it_stopped(server, tmp_path):
    server.stops_after = 3_000_000
    part = tmp_path / "RN50.pt.part"
    message = (
        r"could not be fetched \(the connection ended after 3,000,000 of 5,120,000 bytes\).*3,000,000 bytes in .*kept"
    )
    with pytest.raises(OSError, match=message):
        _download(server.url(), tmp_path)
    assert part.read_bytes() == server.content[:3_000_000]
    assert not (tmp_path / "RN50.pt").exists()
    server.stops_after = None
    assert _download(server.url(), tmp_path).read_bytes() == server.content
    assert server.asked == [None, "bytes=3000000-"]
    assert not part.exists()


def test_a_server_that_ignores_range_sends_the_whole_file(server, tmp_path):
    (tmp_path / "RN50.pt.part").write_bytes(server.content[:1000])
    server.understands_range = False
    assert _download(server.url(), tmp_path).read_bytes() == server.content
    assert server.asked == ["bytes=1000-"]


def test_an_answer_that_is_another_part_is_not_appended(server, tmp_path):
    (tmp_path / "RN50.pt.part").write_bytes(server.content[:1000])
    server.range_shift = 100
    with pytest.raises(ValueError, match="Nothing was kept"):
        _download(server.url(), tmp_path)


def test_a_part_that_is_whole_is_taken(server, tmp_path):
    (tmp_path / "RN50.pt.part").write_bytes(server.content)
    assert _download(server.url(), tmp_path).read_bytes() == server.content


def test_a_wrong_part_is_thrown_away(server, tmp_path):
    (tmp_path / "RN50.pt.part").write_bytes(b"x" * 1000)
    with pytest.raises(
        ValueError, match="The sha256 of http.*RN50.pt is [0-9a-f]{64} instead of [0-9a-f]{64}. Nothing was"
    ):
        _download(server.url(), tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert _download(server.url(), tmp_path).read_bytes() == server.content


def test_a_file_with_the_wrong_checksum_is_not_kept(server, tmp_path):
    with pytest.raises(ValueError, match=f"instead of {'0' * 64}. Nothing was kept"):
        _download(server.url(sha256="0" * 64), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_cached_file_with_the_wrong_checksum_is_refused_and_fetched_again(server, tmp_path):
    (tmp_path / "RN50.pt").write_bytes(b"another model")
    found = hashlib.sha256(b"another model").hexdigest()
    with pytest.warns(
        UserWarning, match=f"The sha256 of .*RN50.pt is {found} instead of .* fetched again and replaced"
    ):
        path = _download(server.url(), tmp_path)
    assert path.read_bytes() == server.content


def test_an_answer_that_is_an_error_says_so(server, tmp_path):
    server.status = 404
    with pytest.raises(
        OSError, match=r"RN50.pt could not be fetched \(HTTP Error 404: Not Found\).*nothing has come yet"
    ):
        _download(server.url(), tmp_path)


def test_no_server_says_so_and_keeps_what_came(server, tmp_path):
    (tmp_path / "RN50.pt.part").write_bytes(b"x" * 1000)
    with pytest.raises(OSError, match=r"could not be fetched .*refused.*the 1,000 bytes in .*RN50.pt.part are kept"):
        _download("http://127.0.0.1:9/" + "0" * 64 + "/RN50.pt", tmp_path)
    assert (tmp_path / "RN50.pt.part").stat().st_size == 1000
