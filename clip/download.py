"""Fetch a weights file into the cache: checked by its sha256, continued where a broken download stopped."""

import hashlib
import http.client
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

CACHE = "~/.cache/clip"
CHUNK = 1 << 20  # bytes
TIMEOUT_S = 30  # without a byte
RANGE_NOT_SATISFIABLE = 416


def download(url: str, root: str | Path | None = None) -> Path:
    """Path of the file that a URL names, from the cache or else from the network.

    Args:
        url: ends in SHA256/FILENAME, as OpenAI's do.
        root: cache folder, `~/.cache/clip` by default.

    Raises:
        OSError: the file could not be fetched whole; what came is kept beside it as FILENAME.part for the next call.
        ValueError: the file came whole, but is not the one the sha256 names; nothing is kept.
    """
    expected, filename = url.split("/")[-2:]
    target = Path(root or CACHE).expanduser() / filename
    if target.is_file() and _cached_file_fits(target, expected):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(filename + ".part")
    try:
        _fetch(url, part)
    except (OSError, http.client.HTTPException) as error:
        raise OSError(_failure(url, target, part, error)) from error
    found = sha256(part)
    if found != expected:
        part.unlink()
        raise ValueError(
            f"The sha256 of {url} is {found} instead of {expected}. Nothing was kept: run the command again, "
            f"or get the file from another network and put it at {target}."
        )
    part.replace(target)
    return target


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _cached_file_fits(target: Path, expected: str) -> bool:
    found = sha256(target)
    if found != expected:
        warnings.warn(
            f"The sha256 of {target} is {found} instead of {expected}. It is fetched again and replaced; "
            "to use a file of your own, move it elsewhere and give its path instead of the model's name.",
            stacklevel=3,
        )
    return found == expected


def _fetch(url: str, part: Path) -> None:
    """Append to `part` what is missing of the URL's content."""
    n_have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={n_have}-"} if n_have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == RANGE_NOT_SATISFIABLE and n_have:
            return  # nothing is missing; whether it is the right file the checksum says
        raise
    with response:
        resumes = response.status == http.client.PARTIAL_CONTENT and _range_start(response) == n_have
        n_have = n_have if resumes else 0  # a server that ignores Range sends the file from its start
        n_left = response.length  # None where the server does not say
        n_total = None if n_left is None else n_have + n_left
        with part.open("ab" if resumes else "wb") as file:
            for chunk in _chunks(response, part.stem, n_have, n_total):
                file.write(chunk)
        n_have = part.stat().st_size
    if n_total is not None and n_have != n_total:
        raise OSError(f"the connection ended after {n_have:,} of {n_total:,} bytes")


def _chunks(response: http.client.HTTPResponse, name: str, n_have: int, n_total: int | None) -> Iterator[bytes]:
    with tqdm(desc=name, initial=n_have, total=n_total, unit="B", unit_scale=True, unit_divisor=1024) as bar:
        while chunk := response.read(CHUNK):
            yield chunk
            bar.update(len(chunk))


def _range_start(response: http.client.HTTPResponse) -> int | None:
    """First byte that a partial answer holds: 5 for "bytes 5-99/100"."""
    start = response.headers.get("Content-Range", "").removeprefix("bytes ").split("-")[0]
    return int(start) if start.isdigit() else None


def _failure(url: str, target: Path, part: Path, error: Exception) -> str:
    n_have = part.stat().st_size if part.exists() else 0
    kept = f"the {n_have:,} bytes in {part} are kept and continued" if n_have else "nothing has come yet"
    return (
        f"{url} could not be fetched ({error}). Run the command again when the network is there ({kept}), or "
        f"fetch the file by other means and put it at {target}."
    )
