"""Fetches what a data set needs: checked, put in place whole or not at all, nothing overwritten or deleted."""

from __future__ import annotations

import logging
import shutil
import tarfile
import tempfile
import zipfile
from http.client import HTTPException
from pathlib import Path

from torchvision.datasets.utils import calculate_md5, download_url, extract_archive

logger = logging.getLogger(__name__)


def fetch_archive(url: str, path: Path, md5: str) -> None:
    """Downloads url to path unless it is there already.

    Raises:
        ConnectionError: If the download fails or gives other bytes.
        ValueError: If the file that is there has another md5.
    """
    if path.exists():
        if (found := calculate_md5(str(path))) != md5:
            raise ValueError(f"Archive {path} has md5 {found}, expected {md5}. Delete it and run this command again.")
        return
    partial = path.with_name(f"{path.name}.part")
    logger.info(f"Fetching {url}")
    try:
        download_url(url, str(path.parent), partial.name, md5)
    except (OSError, RuntimeError, HTTPException) as error:
        raise ConnectionError(
            f"Download of {url} is incomplete ({error}), expected a file of md5 {md5}. Run this command again, or "
            f"fetch the file by hand to {path}."
        ) from error
    partial.replace(path)


def fetch_from_drive(file_id: str, path: Path) -> Path:
    """Downloads a Google Drive file and returns where it lies: beside path, to be moved there once it is checked.

    Raises:
        ConnectionError: If Google Drive does not give it.
    """
    import gdown  # here, since it takes long to import and only this needs it

    partial = path.with_name(f"{path.name}.part")
    logger.info(f"Fetching {path.name} from Google Drive")
    try:
        if gdown.download(id=file_id, output=str(partial), quiet=True) is None:
            raise RuntimeError("no file came")
    except Exception as error:  # over its versions gdown's errors have no base class in common
        raise ConnectionError(
            f"{path.name} is not to be had from Google Drive ({error}), expected the file {file_id}. Fetch "
            f"https://drive.google.com/file/d/{file_id} with a browser and save it as {path}."
        ) from error
    return partial


def unpack(archive: Path, destination: Path) -> None:
    """Unpacks the file or folder named as `destination` out of an archive, unless it is there already.

    Raises:
        ValueError: If the archive is broken or holds nothing of that name.
    """
    if destination.exists():
        return
    logger.info(f"Unpacking {archive}")
    workplace = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=destination.parent))
    try:
        try:
            extract_archive(str(archive), str(workplace))
        except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, RuntimeError) as error:
            raise ValueError(
                f"Archive {archive} does not unpack ({error}), expected a whole one. Delete it and run this "
                "command again."
            ) from error
        found = sorted(workplace.rglob(destination.name))
        if not found:
            raise ValueError(
                f"Archive {archive} holds no {destination.name}, expected the publisher's archive. Replace it."
            )
        found[0].replace(destination)
    finally:
        shutil.rmtree(workplace)
