"""The models that can be had by name, with their sizes. Nothing is downloaded to know them.

Run: python -m clip.models
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

from ..clip import available_models, load, resolve

# Name -> megabytes of its file, edge of its images, joint width, width of its text tower.
OPENAI = {
    "RN50": (256, 224, 1024, 512),
    "RN101": (292, 224, 512, 512),
    "RN50x4": (422, 288, 640, 640),
    "RN50x16": (661, 384, 768, 768),
    "RN50x64": (1354, 448, 1024, 1024),
    "ViT-B/32": (354, 224, 512, 512),
    "ViT-B/16": (351, 224, 512, 512),
    "ViT-L/14": (933, 224, 768, 768),
    "ViT-L/14@336px": (934, 336, 768, 768),
}
SHARED, PLAIN = "shared", "plain"


class Row(NamedTuple):
    """A model: sizes are numbers, "-" where they are not known without the weights."""

    name: str
    megabytes: int | str
    pixels: int
    joint: int
    text: int | str
    tower: str


def own_rows() -> Iterator[Row]:
    """OpenAI's models, and the one that comes with the package."""
    for name in available_models():
        if name in OPENAI:
            yield Row(name, *OPENAI[name], SHARED)
        else:
            model, megabytes = load(name, "cpu")[0], round(resolve(name).stat().st_size / 1e6)
            sizes = (model.visual.input_resolution, model.visual.output_dim, model.transformer.width)
            yield Row(name, megabytes, *sizes, SHARED)


def open_clip_rows() -> Iterator[Row]:
    """The models whose weights open_clip knows; none if it is not installed."""
    if find_spec("open_clip") is None:
        return
    import open_clip

    for architecture, tag in open_clip.list_pretrained():
        config = open_clip.get_model_config(architecture)
        pixels = config["vision_cfg"].get("image_size", 224)
        width = config["text_cfg"].get("width", "-")
        sizes = (max(pixels) if isinstance(pixels, Sequence) else pixels, config["embed_dim"], width)
        yield Row(f"open_clip:{architecture}/{tag}", "-", *sizes, text_tower(config))


def text_tower(config: dict[str, Any]) -> str:
    """Returns what the config of an open_clip model says of its text tower: SHARED, PLAIN, or why it is closed."""
    text = config["text_cfg"]
    if "hf_model_name" in text:
        return f"closed: {text['hf_model_name'].rpartition('/')[2][:20]}"
    if "multimodal_cfg" in config or text.get("embed_cls"):
        return "closed: CoCa"
    if text.get("ls_init_value") is not None or text.get("use_pad_mask"):
        return "closed: blocks"
    has_start = "t5" not in text.get("hf_tokenizer_name", "").lower()  # T5's tokenizers set none
    is_read_at_end = text.get("pool_type", "argmax") in ("argmax", "eos")
    return SHARED if is_read_at_end and has_start and not text.get("no_causal_mask") else PLAIN
