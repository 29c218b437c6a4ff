"""Dirty images: each kind is read as DATASETS.md says, or named in the error that it says; none floods the terminal."""

import os
import re
import warnings
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision import transforms as T

from engine import build_transform, get_cfg_default
from engine.data import image_io as image_files
from engine.data.image_io import read_image
from tests.robustness.dirty_images import KINDS

PAGE = (Path(__file__).parents[2] / "DATASETS.md").read_text(encoding="utf-8")
SECTION = PAGE.split("\n## Dirty images\n")[1].split("\n## ")[0]
ROWS = [line.strip("| ").split(" | ") for line in SECTION.splitlines() if line.startswith("| ")][1:]
DOCUMENTED = {kind: result for kinds, result in ROWS for kind in kinds.split("; ")}
NOBODY = 65534  # a user who owns nothing
READABLE = [name for name, kind in KINDS.items() if not isinstance(kind.pixels, str)]
BAD = [name for name in KINDS if name not in READABLE]


@pytest.fixture(autouse=True)
def new_filters():
    """Each test has warning filters of its own, as a process has."""
    image_files._hush_pillow.cache_clear()


def draw(name, folder):
    """Returns the path of a file of this kind."""
    path = folder / KINDS[name].name
    KINDS[name].draw(path)
    return path


@contextmanager
def rights_of_a_user():
    """Until its end, root may not read every file either."""
    if is_root := os.geteuid() == 0:
        os.seteuid(NOBODY)
    yield
    if is_root:
        os.seteuid(0)


def test_the_table_has_every_kind_and_says_which_are_errors():
    assert list(DOCUMENTED) == list(KINDS)
    assert [name for name, result in DOCUMENTED.items() if result.startswith("error")] == BAD


@pytest.mark.parametrize("name", READABLE)
def test_what_can_be_read_is_read_as_documented(tmp_path, name):
    image, pixels = read_image(draw(name, tmp_path)), KINDS[name].pixels
    assert image.mode == "RGB"
    expected = pixels if pixels.ndim == 3 else pixels[:, :, None].repeat(3, axis=2)
    np.testing.assert_allclose(np.asarray(image, dtype=int), expected, rtol=0, atol=KINDS[name].atol)


@pytest.mark.parametrize("name", READABLE)
def test_a_jpeg_file_at_a_reduced_scale_has_the_same_picture_and_other_files_are_whole(tmp_path, name):
    path = draw(name, tmp_path)
    found, whole = read_image(path, shorter_edge=8), np.asarray(read_image(path), dtype=int)
    step = 4 if path.read_bytes().startswith(b"\xff\xd8") else 1  # each square of 16 x 16 pixels has 4 x 4 then
    np.testing.assert_allclose(np.asarray(found, dtype=int), whole[::step, ::step], rtol=0, atol=KINDS[name].atol)
    assert found.mode == "RGB"


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_is_named_with_the_documented_words(tmp_path, name):
    path = draw(name, tmp_path)
    with rights_of_a_user() if name == "no permission" else nullcontext():
        with pytest.raises((ValueError, FileNotFoundError)) as error:
            read_image(path)
        with pytest.raises(type(error.value)) as reduced:
            read_image(path, shorter_edge=8)
    assert str(reduced.value) == str(error.value)
    words = re.match("error `(.+?)`", DOCUMENTED[name]).group(1)
    assert re.match(rf"Image {path} .*{re.escape(words)}.*\. [A-Z].*\.$", str(error.value))
    assert KINDS[name].pixels in str(error.value)


def test_no_other_program_is_started_for_an_image(tmp_path):
    path = draw("PostScript", tmp_path)
    assert Image.open(path).format == "EPS"  # whose pixels Pillow has Ghostscript make
    with pytest.raises(ValueError, match="UnidentifiedImageError"):
        read_image(path)


def test_a_name_cannot_forge_a_line_of_the_log(tmp_path):
    path = tmp_path / "a\n* accuracy: 99%.jpg"
    with pytest.raises(FileNotFoundError) as error:
        read_image(path)
    assert "\n" not in str(error.value)


def test_pillow_warns_of_none(tmp_path):
    def n_warnings():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for i, name in enumerate(READABLE):
                (folder := tmp_path / f"{i}").mkdir(exist_ok=True)
                read_image(draw(name, folder))
        return len(caught)

    assert n_warnings() == 0
    assert n_warnings() > 0  # in filters where it has not been asked to hold its tongue


@pytest.mark.parametrize("name", READABLE)
def test_what_is_read_goes_through_every_transform(tmp_path, name):
    cfg = get_cfg_default()
    cfg.INPUT.SIZE, cfg.INPUT.INTERPOLATION = (32, 32), "bicubic"
    image = read_image(draw(name, tmp_path))
    assert build_transform(cfg, is_train=False)(image).shape == (3, 32, 32)
    for names in (("random_resized_crop",), ("random_crop",), ("random_translation",), ("center_crop",)):
        cfg.INPUT.TRANSFORMS = (*names, "random_flip", "normalize")
        assert build_transform(cfg, is_train=True)(image).shape == (3, 32, 32)


class TestLongImages:
    """Only the middle of a very long image is resized; the centre crop shows what it would show of all of it."""

    @pytest.fixture
    def transform(self):
        cfg = get_cfg_default()
        cfg.INPUT.SIZE, cfg.INPUT.INTERPOLATION = (224, 224), "bicubic"
        return build_transform(cfg, is_train=False)

    @pytest.mark.parametrize("size", [(30_000, 10), (10, 30_000), (65_000, 1), (3_001, 150)])
    def test_stays_small(self, transform, size):
        resized = transform.transforms[0](Image.new("RGB", size))
        assert min(resized.size) == 224 and max(resized.size) < 19 * 224

    @pytest.mark.parametrize("size", [(340, 20), (500, 10), (10, 501), (379, 9), (1, 90), (4_001, 100), (8_000, 313)])
    def test_shows_what_the_whole_would(self, transform, size):
        image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
        plain = T.Compose([T.Resize(224, T.InterpolationMode.BICUBIC), T.CenterCrop(224), T.ToTensor()])
        is_whole = max(size) <= 17 * min(size)
        assert (transform(image) - plain(image)).abs().max() <= (0 if is_whole else 4 / 255)
