"""An image file is read as RGB, or named in the error."""

import pytest
from PIL import Image

from engine import Datum, build_transform, get_cfg_default
from engine.data.image_io import read_image
from engine.data.manager import build_data_loader


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "CMYK"])
def test_every_kind_of_image_is_read_as_rgb(tmp_path, mode):
    path = tmp_path / ("image.jpg" if mode == "CMYK" else "image.png")
    Image.new("RGB", (5, 4), (255, 255, 255)).convert(mode).save(path)
    image = read_image(path)
    assert (image.mode, image.size, image.getpixel((0, 0))) == ("RGB", (5, 4), (255, 255, 255))


def break_image(path, how):
    if how == "missing":
        path.unlink()
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    else:
        path.write_text("no image")


@pytest.mark.parametrize("how", ["missing", "cut", "text"])
@pytest.mark.parametrize("n_workers", [0, 2])
def test_an_image_that_cannot_be_read_is_named(tmp_path, how, n_workers):
    cfg = get_cfg_default()
    path = tmp_path / "bad.jpg"
    Image.new("RGB", (64, 64)).save(path)
    break_image(path, how)
    loader = build_data_loader(
        cfg, [Datum(str(path))], build_transform(cfg, is_train=False), is_train=False, n_workers=n_workers
    )
    error, words = (FileNotFoundError, "is missing") if how == "missing" else (ValueError, "does not decode")
    batches = iter(loader)
    with pytest.raises(error, match=f"^Image {path} {words}.*expected .*python -m datasets.check.*[.]$") as found:
        next(batches)
    with pytest.raises(error) as direct:
        read_image(path)
    assert str(found.value) == str(direct.value)  # whichever process has read it
    if n_workers:
        batches._shutdown_workers()  # left to the garbage collector, this would wait for five seconds
