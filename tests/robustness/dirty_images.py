"""Draws dirty image files, and says of each kind what is read from it: RGB pixels, or an error with these words."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

COLOURS = np.array([[200, 30, 40], [20, 180, 60], [40, 50, 210], [0, 0, 0], [255, 255, 255], [230, 150, 20]], np.uint8)
INDICES = np.arange(6, dtype=np.uint8).reshape(2, 3).repeat(16, axis=0).repeat(16, axis=1)  # (32, 48): 6 flat squares
PIXELS = COLOURS[INDICES]
GREY = (40 * INDICES).astype(np.uint8)
GREY_12 = INDICES.astype(np.uint16) * 819  # 0 to 4095
GREY_16 = INDICES.astype(np.uint16) * 10_000 + 77  # white from the second square on, were it cut off at 255
BEST = {"quality": 95, "subsampling": 0}  # JPEG, so that the squares' edges stay sharp
LONG = np.linspace(0, 255, 30_000).astype(np.uint8)[None, :, None].repeat(10, axis=0).repeat(3, axis=2)


class Kind(NamedTuple):
    """A kind of file.

    Attributes:
        name: The file's.
        draw: Writes it.
        pixels: What is read, (H, W, 3) uint8 or (H, W) of grey; the words of the error where nothing can be.
        atol: Of JPEG.
    """

    name: str
    draw: Callable[[Path], object]
    pixels: np.ndarray | str
    atol: int = 0


def save(pixels: np.ndarray, **options) -> Callable[[Path], object]:
    return lambda path: Image.fromarray(pixels).save(path, **options)


def save_frames(path: Path, **options) -> None:
    first, *others = (Image.fromarray(np.roll(PIXELS, 16 * i, axis=1)) for i in range(3))
    first.save(path, save_all=True, append_images=others, **options)


def save_cut(share: float, **options) -> Callable[[Path], None]:
    """Writes the first `share` of the bytes of a file of noise."""

    def draw(path: Path) -> None:
        save(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8), **options)(path)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

    return draw


def save_palette(path: Path) -> None:
    image = Image.frombytes("P", INDICES.shape[::-1], INDICES.tobytes())
    image.putpalette(COLOURS.flatten().tolist())
    image.save(path, transparency=bytes([0, 128, 255, 0, 10, 20]))


def save_with_alpha(pixels: np.ndarray) -> Callable[[Path], object]:
    colours = pixels if pixels.ndim == 3 else pixels[:, :, None]
    return save(np.concatenate([colours, GREY[:, :, None]], axis=2))


def save_cmyk(path: Path, *, marked: bool = True) -> None:
    """As Adobe's programs write it: inverted, with their marker, or after another program has removed that."""
    Image.fromarray(PIXELS).convert("CMYK").save(path, quality=95)
    content = path.read_bytes()
    start = content.index(b"\xff\xee\x00\x0eAdobe")
    if not marked:
        path.write_bytes(content[:start] + content[start + 16 :])


def save_turned(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # Orientation: to be turned by 90 degrees
    save(PIXELS, exif=exif, **BEST)(path)


def png(width: int, height: int, bits: int, colour_type: int, rows: bytes, *before: tuple[bytes, bytes]) -> bytes:
    """The bytes of a PNG; `before` are chunks that stand before the pixels."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    chunks = [(b"IHDR", header), *before, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    packed = (struct.pack(">I", len(x)) + name + x + struct.pack(">I", zlib.crc32(name + x)) for name, x in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def png_of(pixels: np.ndarray, *before: tuple[bytes, bytes]) -> bytes:
    """The bytes of an RGB PNG of 8 or 16 bits."""
    big_endian = pixels.astype(f">u{pixels.itemsize}")
    rows = b"".join(b"\0" + row.tobytes() for row in big_endian)
    return png(pixels.shape[1], pixels.shape[0], 8 * pixels.itemsize, 2, rows, *before)


def tiff(content: bytes, *, bits: int, photometric: int, n_channels: int = 1) -> bytes:
    """The bytes of a TIFF of the squares' size: the header, the widths of channels, the pixels, the directory."""
    height, width = INDICES.shape
    start = 8 + 2 * n_channels
    entries = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, n_channels, 8 if n_channels > 2 else bits), (259, 3, 1, 1),
        (262, 3, 1, photometric), (273, 4, 1, start), (277, 3, 1, n_channels), (278, 4, 1, height),
        (279, 4, 1, len(content)),
    ]  # fmt: skip
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    header = b"II*\0" + struct.pack("<I", start + len(content)) + struct.pack("<H", bits) * n_channels
    return header + content + directory + struct.pack("<I", 0)


def pack_12(pixels: np.ndarray) -> bytes:
    """Two values of 12 bits in three bytes, the upper bits first."""
    first, second = pixels.reshape(-1, 2).T
    return np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=1).astype(np.uint8).tobytes()


def write(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def forbid(path: Path) -> None:
    save(PIXELS)(path)
    path.chmod(0)


COLOUR_16 = PIXELS.astype(np.uint16) * 256 + 255  # the lower bits do not count
DECODE = "does not decode"
KINDS = {
    "grey JPEG": Kind("a.jpg", save(GREY, quality=95), GREY, 2),
    "CMYK JPEG": Kind("a.jpg", save_cmyk, PIXELS, 6),
    "CMYK JPEG without Adobe's marker": Kind("a.jpg", lambda path: save_cmyk(path, marked=False), PIXELS, 6),
    "1 bit": Kind("a.png", save(INDICES > 2), np.where(INDICES > 2, 255, 0)),
    "palette with transparency": Kind("a.png", save_palette, PIXELS),
    "grey with transparency": Kind("a.png", save_with_alpha(GREY), GREY),
    "RGB with transparency": Kind("a.png", save_with_alpha(PIXELS), PIXELS),
    "16-bit grey PNG": Kind("a.png", save(GREY_16), GREY_16 // 256),
    "16-bit grey TIFF": Kind("a.tif", save(GREY_16), GREY_16 // 256),
    "12-bit grey TIFF": Kind("a.tif", write(tiff(pack_12(GREY_12), bits=12, photometric=1)), GREY_12 // 16),
    "16-bit grey TIFF, white is zero": Kind(
        "a.tif", write(tiff((65_535 - GREY_16).tobytes(), bits=16, photometric=0)), GREY_16 // 256
    ),
    "16-bit PGM": Kind("a.pgm", write(b"P5 48 32 65535\n" + GREY_16.astype(">u2").tobytes()), GREY_16 // 256),
    "16-bit colour PNG": Kind("a.png", write(png_of(COLOUR_16)), PIXELS),
    "16-bit colour TIFF": Kind("a.tif", write(tiff(COLOUR_16.tobytes(), bits=16, photometric=2, n_channels=3)), PIXELS),
    "animated GIF": Kind("a.gif", save_frames, PIXELS),
    "animated PNG": Kind("a.png", save_frames, PIXELS),
    "animated WebP": Kind("a.webp", lambda path: save_frames(path, lossless=True), PIXELS),
    "several pictures (MPO)": Kind("a.jpg", lambda path: save_frames(path, format="MPO", **BEST), PIXELS, 6),
    "turned by EXIF": Kind("a.jpg", save_turned, PIXELS, 6),
    "broken EXIF": Kind("a.jpg", save(PIXELS, exif=b"Exif\0\0MM\0*" + b"\xfe" * 60_000, **BEST), PIXELS, 6),
    "broken colour profile": Kind("a.png", save(PIXELS, icc_profile=b"no profile"), PIXELS),
    "long texts": Kind("a.png", write(png_of(PIXELS, *[(b"tEXt", b"key\0" + b"x" * 900_000)] * 3)), PIXELS),
    "wrong extension": Kind("a.jpg", save(PIXELS, format="PNG"), PIXELS),
    "1 x 1": Kind("a.png", save(PIXELS[:1, :1]), PIXELS[:1, :1]),
    "very long": Kind("a.png", save(LONG), LONG),
    "cut JPEG": Kind("a.jpg", save_cut(0.9), DECODE),
    "progressive JPEG, cut early": Kind("a.jpg", save_cut(0.3, progressive=True), DECODE),
    "progressive JPEG, cut late": Kind("a.jpg", save_cut(0.95, progressive=True), DECODE),
    "cut PNG": Kind("a.png", save_cut(0.9), DECODE),
    "cut after the header": Kind("a.jpg", save_cut(0.01), DECODE),
    "empty file": Kind("a.jpg", write(b""), DECODE),
    "a text": Kind("a.jpg", write(b"an image"), DECODE),
    "an HTML page": Kind("a.jpg", write(b"<!DOCTYPE html><html><body>404 Not Found</body></html>"), DECODE),
    "PostScript": Kind("a.jpg", write(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n"), DECODE),
    "float TIFF": Kind("a.tif", save((GREY / 255).astype(np.float32)), "32 bits and no known range"),
    "32-bit TIFF": Kind("a.tif", save(GREY.astype(np.int32)), "32 bits and no known range"),
    "decompression bomb": Kind("a.png", write(png(30_000, 30_000, 1, 0, b"")), "900000000 pixels"),
    "text bomb": Kind("a.png", write(png_of(PIXELS, (b"zTXt", b"key\0\0" + zlib.compress(bytes(10**7))))), DECODE),
    "a folder": Kind("a.jpg", lambda path: path.mkdir(), DECODE),
    "no permission": Kind("a.png", forbid, DECODE),
    "dangling link": Kind("a.jpg", lambda path: path.symlink_to("nothing.jpg"), "is missing"),
    "no file": Kind("a.jpg", lambda path: None, "is missing"),
}
