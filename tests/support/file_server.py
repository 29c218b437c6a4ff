"""Stand-ins for where files are fetched from: a server on the loopback interface, its hub, and a Google Drive."""

import contextlib
import functools
import http.server
import io
import json
import re
import socket
import threading
import urllib.parse
from pathlib import Path

import requests
import urllib3

import datasets.fetch.download

QUOTA_PAGE = b'<html><p class="uc-error-subcaption">Too many users have viewed or downloaded this file recently.</p>'


class FileServer(http.server.ThreadingHTTPServer):
    """Serves a folder, with byte ranges; `hub/OWNER/NAME/` in it is also what the hub has as data set OWNER/NAME.

    Attributes:
        url: Its address, without a slash at the end.
        asked: Path and Range header (None without one) of every GET request, in order.
        cut: File name -> bytes of the answer's body after which the connection ends, once.
        missing: File names that are answered with 404.
        replaced: File name -> bytes that are served instead of the file.
        redirected: File name -> path that a request for it is sent on to.
        understands_ranges: Whether parts of a file can be asked for.
    """

    daemon_threads = True

    def __init__(self, folder: Path):
        super().__init__(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
        self.folder = folder
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.asked: list[tuple[str, str | None]] = []
        self.cut: dict[str, int] = {}
        self.missing: set[str] = set()
        self.replaced: dict[str, bytes] = {}
        self.redirected: dict[str, str] = {}
        self.understands_ranges = True


class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        self.server.asked.append((path, self.headers.get("Range")))
        if path.startswith("/api/datasets/"):
            self.answer_hub(path.removeprefix("/api/datasets/"))
        else:
            hub_file = re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/main/(.+)", path)
            self.answer_file("/hub/{}/{}".format(*hub_file.groups()) if hub_file else path)

    def answer_hub(self, repo):
        """Answers what huggingface_hub asks for: what is known of a data set, its files among it."""
        folder = self.server.folder / "hub" / repo
        if not folder.is_dir():
            return self.send_error(404)
        files = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
        known = {"id": repo, "private": False, "disabled": False, "downloads": 0, "likes": 0, "tags": []}
        self.answer(json.dumps({**known, "siblings": [{"rfilename": file} for file in files]}).encode())

    def answer_file(self, path):
        server, name, file = self.server, path.rpartition("/")[2], Path(self.translate_path(path))
        if name in server.redirected:
            self.send_response(302)
            self.send_header("Location", server.redirected[name])
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif name in server.replaced:
            self.answer(server.replaced[name])
        elif name in server.missing or not file.is_file():
            self.send_error(404)
        else:
            self.answer(file.read_bytes(), cut=server.cut.pop(name, None))

    def answer(self, content, cut=None):
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(asked.group(1)) if asked and self.server.understands_ranges else 0
        if start and start >= len(content):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # the client may end a connection too
            self.wfile.write(content[start:][:cut])

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def serve(folder):
    """Serves a folder while the context lasts."""
    with FileServer(Path(folder)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class DriveAdapter(requests.adapters.HTTPAdapter):
    """Answers as Google Drive does, as gdown sees it."""

    def __init__(self, files):
        super().__init__()
        self.files = files

    def send(self, request, **_):
        (file_id,) = urllib.parse.parse_qs(urllib.parse.urlsplit(request.url).query)["id"]
        path, status, headers, content = self.files.get(file_id), 200, {"Content-Type": "text/html"}, QUOTA_PAGE
        if path is not None:
            content, start = path.read_bytes(), int(request.headers.get("Range", "bytes=0-")[len("bytes=") : -1])
            headers = {"Content-Disposition": f'attachment; filename="{path.name}"', "Content-Type": "binary"}
            if start:
                status, headers["Content-Range"] = 206, f"bytes {start}-{len(content) - 1}/{len(content)}"
                content = content[start:]
        elif file_id not in self.files:
            status, content = 404, b""
        headers["Content-Length"] = str(len(content))
        answer = urllib3.HTTPResponse(io.BytesIO(content), headers, status, preload_content=False)
        return self.build_response(request, answer)


def serve_drive(monkeypatch, files):
    """Lets Google Drive hold these files, id -> path; None stands for one that is over its quota of downloads."""
    of_network = requests.Session.get_adapter

    def get_adapter(session, url):
        on_drive = urllib.parse.urlsplit(url).hostname == "drive.google.com"
        return DriveAdapter(files) if on_drive else of_network(session, url)

    monkeypatch.setattr(requests.Session, "get_adapter", get_adapter)


def no_network(monkeypatch):
    """Lets a connection to any other host than this one fail at once, and nothing be tried a second time."""
    of_network = socket.getaddrinfo

    def getaddrinfo(host, *args, **kwargs):
        if host not in ("127.0.0.1", "localhost"):
            raise ConnectionError(f"tests have no network, {host} was asked for")
        return of_network(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(datasets.fetch.download, "N_RETRIES", 0, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
