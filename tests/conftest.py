"""What several files of tests start from."""

import pytest

from tests.tiny_run import write_clip, write_images


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory):
    """A folder of small images, and the files of both small CLIPs by kind; nobody changes them."""
    folder = tmp_path_factory.mktemp("tiny")
    write_images(folder / "data")
    return folder / "data", {kind: write_clip(folder / f"{kind}.pt", kind) for kind in ("vit", "rn")}
