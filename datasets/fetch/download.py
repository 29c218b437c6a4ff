"""Fetches one file from one address; what a broken download left is continued."""

import hashlib
import logging
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

N_RETRIES = 5  # of a connection that breaks, in one call; each goes on where the one before stopped
TIMEOUT_S = (10.0, 60.0)  # to connect, and between two pieces

# What a message of requests ends with; before it come the host, which is named already, and the path.
CAUSE = re.compile(r"HTTPS?ConnectionPool\(.* \(Caused by \w+\(.*?\): (.*)[\"']\)\)$")

logger = logging.getLogger(__name__)


def fetch(address: str, path: Path, *, check: Callable[[Path], None] | None = None) -> None:
    """Downloads a file to path, whole or not at all.

    What a broken download left stays beside path, hidden, and the next call for this address goes on with it.

    Args:
        address: "https://...", "drive:ID", or "hub:OWNER/NAME/FILE" for a file of a Hugging Face data set.
        path: Where to put it; its folder exists.
        check: Raises ValueError where what came is not what it should be; it is then deleted.

    Raises:
        ConnectionError: If it is not to be had there, or is something else.
        OSError: If the disk is full or not writable; what has come is kept.
    """
    page = page_of(address)
    logger.info(f"Fetching {path.name} from {page}")
    # Of this address alone: the beginning of one file is never continued with the end of another.
    whole = path.with_name(f".{path.name}.{hashlib.sha256(address.encode()).hexdigest()[:8]}")
    try:
        _download(address, whole)
    except Exception as error:  # gdown's, requests' and the hub's errors have no base class in common
        if isinstance(error, OSError) and error.errno is not None:  # the disk's; the network's errors have no number
            raise
        kept = sum(part.stat().st_size for part in _parts(whole))
        note = f" ({kept:,} bytes of it are kept: run this command again to go on)" if kept else ""
        raise ConnectionError(f"{page}: {_in_one_line(error)}{note}") from error
    try:
        if check:
            check(whole)
    except ValueError as error:
        whole.unlink()
        raise ConnectionError(f"{page} gives another file, which is deleted: {error}") from error
    whole.chmod(0o666 & ~_umask())  # gdown's files are for their owner's eyes only
    whole.replace(path)
    for part in _parts(path.with_name(f".{path.name}.")):  # of other addresses
        part.unlink()


def list_hub_files(repo: str) -> list[str]:
    """Returns the names of the files in a Hugging Face data set, "OWNER/NAME"; ConnectionError without an answer."""
    from huggingface_hub import HfApi  # here, since it takes long to import and only this needs it

    try:
        found = HfApi(endpoint=_hub()).dataset_info(repo, timeout=TIMEOUT_S[0])
    except Exception as error:  # as above
        raise ConnectionError(f"{page_of(f'hub:{repo}')}: {_in_one_line(error)}") from error
    return [file.rfilename for file in found.siblings or ()]


def page_of(address: str) -> str:
    """Returns under which URL a browser shows or fetches what is at an address."""
    kind, _, name = address.partition(":")
    if kind == "drive":
        return f"https://drive.google.com/file/d/{name}"
    return f"{_hub()}/datasets/{'/'.join(name.split('/')[:2])}" if kind == "hub" else address


def _download(address: str, path: Path) -> None:
    """Lets gdown fetch or continue a file: it asks for ranges, tries again and shows its progress on a terminal."""
    import gdown  # here, since it takes long to import and only this needs it

    def download() -> None:
        gdown.download(
            _url_of(address),
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


def _url_of(address: str) -> str:
    kind, _, name = address.partition(":")
    if kind == "drive":
        return f"https://drive.google.com/uc?id={name}"
    if kind != "hub":
        return address
    from huggingface_hub import hf_hub_url  # as above

    # By its address: huggingface_hub's own download keeps nothing of one that is broken off.
    owner, repo, file = name.split("/", 2)
    return hf_hub_url(f"{owner}/{repo}", file, repo_type="dataset", endpoint=_hub())


def _hub() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def _parts(path: Path) -> list[Path]:
    """Returns what gdown keeps of a broken download to path."""
    return [part for part in path.parent.iterdir() if part.name.startswith(path.name) and part.suffix == ".part"]


def _in_one_line(error: Exception) -> str:
    text = str(error).split("\nThe received bytes are kept")[0]  # gdown's hint is for its own command line
    text = CAUSE.sub(r"\1", " ".join(text.split()))
    return text or type(error).__name__


def _umask() -> int:
    mask = os.umask(0)  # it cannot be asked for without setting it
    os.umask(mask)
    return mask
