"""Fetches one file from one source; what a broken download left is continued."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from engine.files import DISK_IS_FULL

N_RETRIES = 5  # of a connection that breaks, in one call; each goes on where the one before stopped
TIMEOUT_S = (10.0, 60.0)  # to connect, and between two pieces

# What a message of requests ends with; before it come the host, which is named already, and the path.
CAUSE = re.compile(r"HTTPS?ConnectionPool\(.* \(Caused by \w+\(.*?\): (.*)[\"']\)\)$")

logger = logging.getLogger(__name__)


def fetch(source: str, path: Path, *, check: Callable[[Path], None] | None = None) -> None:
    """Downloads a file to path, whole or not at all.

    What a broken download left stays beside path, hidden, and the next call for this source goes on with it.

    Args:
        source: "https://...", "drive:ID", or "hub:OWNER/NAME/FILE" for a file of a Hugging Face data set.
        path: Where to put it; its folder exists.
        check: Raises ValueError where what came is not what it should be; it is then deleted, not put at path.

    Raises:
        ConnectionError: If the source does not give it, or gives something else.
        OSError: If the disk is full or not writable; what has come is kept.
    """
    place = page_of(source)
    logger.info(f"Fetching {path.name} from {place}")
    # Of this source alone: the beginning of one source's file is never continued with the end of another's.
    whole = path.with_name(f".{path.name}.{hashlib.sha256(source.encode()).hexdigest()[:8]}")
    try:
        _download(source, whole)
    except Exception as error:  # gdown's, requests' and the hub's errors have no base class in common
        kept = sum(part.stat().st_size for part in _parts(whole))
        if isinstance(error, OSError) and error.errno in DISK_IS_FULL:
            raise OSError(_no_room(path, place, kept)) from error
        if isinstance(error, OSError) and error.errno is not None:  # the disk's; the network's errors have no number
            raise
        note = f" ({kept:,} bytes of it are kept: run this command again to go on)" if kept else ""
        raise ConnectionError(f"{place}: {_in_one_line(error)}{note}") from error
    try:
        if check:
            check(whole)
    except ValueError as error:
        whole.unlink()
        raise ConnectionError(f"{place} gives another file, which is deleted: {error}") from error
    whole.chmod(0o666 & ~_umask())  # gdown's files are for their owner's eyes only
    whole.replace(path)
    for part in _parts(path.with_name(f".{path.name}.")):  # of other sources
        part.unlink()


def list_hub_files(repo: str) -> list[str]:
    """Returns the names of the files in a Hugging Face data set, "OWNER/NAME".

    Raises:
        ConnectionError: If the hub does not answer.
    """
    from huggingface_hub import HfApi  # here, since it takes long to import and only this needs it

    try:
        found = HfApi(endpoint=_hub()).dataset_info(repo, timeout=TIMEOUT_S[0])
    except Exception as error:  # as above
        raise ConnectionError(f"{page_of(f'hub:{repo}')}: {_in_one_line(error)}") from error
    return [file.rfilename for file in found.siblings or ()]


def page_of(source: str) -> str:
    """Returns the address under which a browser shows or fetches a source."""
    kind, _, name = source.partition(":")
    if kind == "drive":
        return f"https://drive.google.com/file/d/{name}"
    return f"{_hub()}/datasets/{'/'.join(name.split('/')[:2])}" if kind == "hub" else source


def _download(source: str, path: Path) -> None:
    """Lets gdown fetch or continue a file: it asks for ranges, tries again and shows its progress on a terminal."""
    import gdown  # here, since it takes long to import and only this needs it

    def download() -> None:
        gdown.download(
            _address_of(source),
            str(path),
            quiet=not sys.stderr.isatty(),
            use_cookies=False,
            resume=True,
            log_messages={"start": "", "output": ""},
            timeout=TIMEOUT_S,
            retries=N_RETRIES,
        )

    try:
        download()
    except gdown.exceptions.DownloadError as error:
        if "byte range" not in str(error):
            raise
        for part in _parts(path):  # this server cannot go on with it, or the file has changed
            part.unlink()
        download()


def _address_of(source: str) -> str:
    kind, _, name = source.partition(":")
    if kind == "drive":
        return f"https://drive.google.com/uc?id={name}"
    if kind != "hub":
        return source
    from huggingface_hub import hf_hub_url  # as above

    # By its address: huggingface_hub's own download keeps nothing of one that is broken off.
    owner, repo, file = name.split("/", 2)
    return hf_hub_url(f"{owner}/{repo}", file, repo_type="dataset", endpoint=_hub())


def _hub() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def _parts(path: Path) -> list[Path]:
    """Returns what gdown keeps of a broken download to path."""
    return [part for part in path.parent.iterdir() if part.name.startswith(path.name) and part.suffix == ".part"]


def _no_room(path: Path, place: str, n_bytes: int) -> str:
    free_mb, come_mb = shutil.disk_usage(path.parent).free / 1e6, n_bytes / 1e6
    return (
        f"{path.parent} has {free_mb:,.1f} MB free, expected room for the rest of {path.name} from {place}, of which "
        f"{come_mb:,.1f} MB have come. Free some and run this command again, which goes on from there, or pass another "
        "--root."
    )


def _in_one_line(error: Exception) -> str:
    text = str(error).split("\nThe received bytes are kept")[0]  # gdown's hint is for its own command line
    text = CAUSE.sub(r"\1", " ".join(text.split()))
    return text or type(error).__name__


def _umask() -> int:
    mask = os.umask(0)  # it cannot be asked for without setting it
    os.umask(mask)
    return mask
