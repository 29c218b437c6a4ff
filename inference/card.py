"""The page beside an exported classifier: what it is, how good it is, and the lines that use it without this code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clip.clip import available_models
from engine.config.load import join_backbone, split_backbone
from engine.text import printable

OPEN_CLIP = {  # OpenAI's name -> open_clip's
    **{name: name for name in ("RN50", "RN101", "RN50x4", "RN50x16", "RN50x64")},
    "ViT-B/32": "ViT-B-32",
    "ViT-B/16": "ViT-B-16",
    "ViT-L/14": "ViT-L-14",
    "ViT-L/14@336px": "ViT-L-14-336",
}
STATED = ("heads", "activation")  # of config.json's backbone_...: what weights of one's own do not say themselves
LIBRARIES = {"classifier.onnx": "onnx", "clip.safetensors": "open_clip"}  # what reads a file, as a page's head names it
N_NAMES = 20  # class names on the page
DECODED_WHOLE = (
    "\n\nIts run decoded large JPEG files at a reduced scale (`INPUT.REDUCED_DECODING`). The lines below decode them "
    "whole, so their answers for large photographs differ from the run's."
)
AS_THE_RUN = "\nLarge JPEG files are decoded at a reduced scale, as in the run.\n"

COSINE = frozenset({"weight", "scale"})  # the tensors of a classifier of text features


def card(facts: dict[str, Any], *, parts: frozenset[str] = COSINE) -> str:
    """Returns the page of a classifier as Markdown, from config.json's entries and the names of its tensors."""
    files = {
        "classifier.safetensors": contents(parts),
        "config.json": "class names, backbone and its digest, preprocessing, training",
    }
    backbone = f"The image features come from CLIP {printable(backbone_name(facts))}, which is not in this folder."
    toolkit = """## Use it with the toolkit

```python
from inference.classifier import Classifier

probabilities, names = Classifier.from_export("FOLDER")(["photo.jpg"])
```
"""
    note = AS_THE_RUN if facts["preprocessing"].get("REDUCED_DECODING") else ""
    return f"{page(facts, files, backbone, recipe(facts, parts))}\n{toolkit}{note}"


def onnx_card(facts: dict[str, Any], *, has_data: bool) -> str:
    """Returns the page of an ONNX file; `has_data` says whether its weights are in a file of their own."""
    height, width = facts["preprocessing"]["SIZE"]
    held = f"`images` (N, 3, {height}, {width}) float32, normalised -> `logits` (N, C) float32; opset {facts['opset']}"
    inside = "float16 inside" if facts["precision"] == "fp16" else "float32"
    files = {"classifier.onnx": f"{held}; {inside}"}
    if has_data:
        files["classifier.onnx.data"] = "its weights, which must lie beside it"
    files["config.json"] = "class names, preprocessing, training; the same as JSON in the metadata of the ONNX file"
    return page(facts, files, f"The image tower is that of CLIP {printable(backbone_name(facts))}.", onnx_recipe(facts))


def merged_card(facts: dict[str, Any]) -> str:
    """Returns the page of a whole CLIP with what was learned in its weights."""
    files = {
        "clip.safetensors": "the weights of CLIP, both towers, float32, with OpenAI's key names",
        "config.json": "class names, the prompt of the training, backbone and its digest, preprocessing, training",
    }
    stated = "".join(
        f' MODEL.BACKBONE.{key.upper()} "{value}"' for key in STATED if (value := facts.get(f"backbone_{key}"))
    )
    backbone = (
        f"It is CLIP {printable(backbone_name(facts))} with what was learned in its weights. The prompt of these "
        f"classes, and of others, is `{printable(facts['template'])}`."
    )
    toolkit = f"""## Use it with the toolkit

Any method trains on it, or is tested with it: `MODEL.BACKBONE.NAME FOLDER/clip.safetensors{stated}` ends the command.
"""
    return f"{page(facts, files, backbone, merged_recipe(facts))}\n{toolkit}"


def page(facts: dict[str, Any], files: dict[str, str], backbone: str, lines: str) -> str:
    """Returns what both pages say: what it is, how good, what the files hold, and the lines that use them."""
    names = [printable(name) for name in facts["classnames"]]
    more = f" and {len(names) - N_NAMES:,} more" if len(names) > N_NAMES else ""
    rows = "\n".join(f"| `{name}` | {held} |" for name, held in files.items())
    library = LIBRARIES.get(next(iter(files)), "prompt-learning-clip")
    return f"""---
library_name: {library}
pipeline_tag: image-classification
tags: [clip, prompt-learning]
---

# {facts["trainer"]} on {facts["source"] or "no training data"}

Classifies images into {len(names):,} classes: {", ".join(names[:N_NAMES])}{more}.

{measured(facts)}

| file | what it holds |
|---|---|
{rows}

{backbone}{DECODED_WHOLE if facts["preprocessing"].get("REDUCED_DECODING") else ""}

## Use it without the toolkit

```python
{lines}
```
"""


def backbone_name(facts: dict[str, Any]) -> str:
    """Returns the name of a CLIP; of weights from a path that of the file, since its folders concern nobody else."""
    name = facts["backbone"]
    if name in available_models():
        return name
    before, path = split_backbone(name)
    return join_backbone(before, Path(path).name)


def measured(facts: dict[str, Any]) -> str:
    """Returns the sentences on training and accuracy."""
    if facts["accuracy"] is None:
        return "It was not tested."
    shots = facts["shots"] if facts["shots"] > 0 else "All"
    trained = f"{shots} training images per class, seed {facts['seed']}"
    said = f"{trained if facts['source'] else 'Nothing is trained'}. "
    images = "" if facts["total"] is None else f" of {facts['total']:,} images"  # Dassl's evaluators count none
    said += f"Accuracy on {facts['dataset']}: {facts['accuracy']:.2f} %{images}."
    return "\n".join([said, *(f"\nWarning: {printable(warning)}" for warning in facts["warnings"] or ())])


def contents(parts: frozenset[str]) -> str:
    if parts == COSINE:
        return "`weight` (C, E) float32, a vector for each class, and `scale`"
    if "keys" in parts:
        return (
            "`weight` (C, E), a text feature for each class, and `scale`; `keys` (N, E) and `owners` (N,), features of "
            "training images, or learned ones, and the class of each; `alpha` and `beta`"
        )
    if "scale" in parts:
        return "`weight` (C, E), `scale` and `bias` (C,), float32, of normalised features"
    return "`weight` (C, E) and `bias` (C,), float32, of features that are not normalised"


def head_lines(parts: frozenset[str]) -> list[str]:
    """Returns the lines from features `x` (N, E) to logits."""
    norm = ["x = x / np.linalg.norm(x, axis=1, keepdims=True)"] if "scale" in parts else []
    scale, more = ('head["scale"] * ' if norm else ""), (' + head["bias"]' if "bias" in parts else "")
    if "keys" in parts:
        more = ' + head["alpha"] * votes'
        norm += [
            'votes = np.exp(-head["beta"] * (1 - x @ head["keys"].T))',
            'votes = votes @ (head["owners"][:, None] == np.arange(len(head["weight"])))  # (N, C)',
        ]
    return [*norm, f'logits = {scale}x @ head["weight"].T{more}']


def recipe(facts: dict[str, Any], parts: frozenset[str]) -> str:
    """Returns Python lines from an image to the class, with numpy and the backbone's library, or features of one's own.

    The backbone's name may be a stranger's text: it stands in the lines as a Python literal.
    """
    name, lines = backbone_name(facts), ["import json", "import numpy as np", "from safetensors.numpy import load_file"]
    if name in OPEN_CLIP:
        lines += open_clip_lines(f'"{OPEN_CLIP[name]}", pretrained="openai"')
    elif name.startswith("open_clip:"):
        lines += open_clip_lines(open_clip_model(name.removeprefix("open_clip:"), facts["preprocessing"]))
    elif name.startswith("hf:"):
        lines += transformers_lines(name.removeprefix("hf:"), facts.get("backbone_library") or {})
    else:
        lines += [f'x = np.load("features.npy")  # (N, E) float32: image features of {printable(name)}']
    return "\n".join(
        [
            *lines,
            'head = load_file("classifier.safetensors")',
            *head_lines(parts),
            'names = json.load(open("config.json", encoding="utf-8"))["classnames"]',
            "print([names[i] for i in logits.argmax(axis=1)])",
        ]
    )


def open_clip_lines(arguments: str) -> list[str]:
    return [
        "import open_clip, torch",
        "from PIL import Image",
        f"model, _, preprocess = open_clip.create_model_and_transforms({arguments})",
        'image = preprocess(Image.open("photo.jpg")).unsqueeze(0)',
        "with torch.no_grad():",
        "    x = model.eval().encode_image(image).float().numpy()  # (1, E)",
    ]


def open_clip_model(name: str, preprocessing: dict[str, Any]) -> str:
    """Returns the arguments by which open_clip builds a model and prepares its images as the run did."""
    architecture, _, weights = name.partition("/")
    before, path = split_backbone(f"open_clip:{name}")
    if name.startswith("hf-hub:"):
        arguments = [repr(name.partition("@")[0])]
    elif path and before in ("open_clip:", "open_clip:local-dir:"):
        arguments = [repr(f"local-dir:{path}")]
    else:  # open_clip computes a tag's QuickGELU only where it is told to
        quick = f"open_clip.get_pretrained_cfg({architecture!r}, {weights!r}).get('quick_gelu', False)"
        arguments = [repr(architecture), f"pretrained={weights!r}", f"force_quick_gelu={quick}"]
    images = {
        "image_mean": tuple(preprocessing["PIXEL_MEAN"]),
        "image_std": tuple(preprocessing["PIXEL_STD"]),
        "image_interpolation": preprocessing["INTERPOLATION"],
        "image_resize_mode": "squash" if preprocessing.get("RESIZE") == "squash" else "shortest",
    }
    return ", ".join([*arguments, *(f"{key}={value!r}" for key, value in images.items())])


def transformers_lines(name: str, facts: dict[str, Any]) -> list[str]:
    arguments = repr(name.partition("@")[0])
    arguments += f", revision={facts['revision']!r}" if facts.get("revision") else ""
    return [
        "import torch",
        "from PIL import Image",
        "from transformers import AutoImageProcessor, AutoModel",
        f"model = AutoModel.from_pretrained({arguments})",
        f'processor = AutoImageProcessor.from_pretrained({arguments}, backend="pil")',
        'image = processor(Image.open("photo.jpg").convert("RGB"), return_tensors="pt")',
        "with torch.no_grad():",
        "    x = model.eval().get_image_features(**image)",
        'x = getattr(x, "pooler_output", x).float().numpy()  # (1, E)',
    ]


def onnx_recipe(facts: dict[str, Any]) -> str:
    """Returns Python lines from an image to the class, with numpy, Pillow and onnxruntime."""
    return "\n".join(
        [
            "import json",
            "import numpy as np",
            "import onnxruntime",
            "from PIL import Image",
            'session = onnxruntime.InferenceSession("classifier.onnx")',
            'image = Image.open("photo.jpg").convert("RGB")',
            *pixel_lines(facts["preprocessing"]),
            'logits = session.run(None, {"images": x.transpose(2, 0, 1)[None]})[0]',
            'names = json.loads(session.get_modelmeta().custom_metadata_map["classnames"])',
            "print([names[i] for i in logits.argmax(axis=1)])",
        ]
    )


def merged_recipe(facts: dict[str, Any]) -> str:
    """Returns Python lines from an image to the class, with open_clip."""
    name = backbone_name(facts)
    architecture = repr(OPEN_CLIP.get(name, "ViT-B-16"))
    known = "" if name in OPEN_CLIP else f"  # open_clip's name of the architecture of {printable(name)}"
    is_quick = facts.get("backbone_activation", "quick_gelu") == "quick_gelu"
    return "\n".join(
        [
            f"architecture = {architecture}{known}",
            "import json",
            *open_clip_lines(f'architecture, pretrained="clip.safetensors", force_quick_gelu={is_quick}'),
            'facts = json.load(open("config.json", encoding="utf-8"))',
            'names = [name.replace("_", " ") for name in facts["classnames"]]',
            'texts = open_clip.get_tokenizer(architecture)([facts["template"].format(name) for name in names])',
            "with torch.no_grad():",
            "    w = model.encode_text(texts).float().numpy()  # (C, E)",
            "cosines = x @ w.T / (x**2).sum() ** 0.5 / (w**2).sum(1) ** 0.5",
            "print([facts['classnames'][i] for i in cosines.argmax(axis=1)])",
        ]
    )


def pixel_lines(keys: dict[str, Any]) -> list[str]:
    """Returns the lines from a PIL `image` to `x` (H, W, 3) float32: what INPUT's keys name, as torchvision does it."""
    (height, width), resampling = keys["SIZE"], f"Image.Resampling.{keys['INTERPOLATION'].upper()}"
    names, size = set(keys["TRANSFORMS"]), f"({width}, {height})"
    if keys["NO_TRANSFORM"] or keys["RESIZE"] == "squash":
        lines = [f"image = image.resize({size}, {resampling})"]
    else:
        edges = f"[edge * {max(height, width)} // min(image.size) for edge in image.size]"
        half = "(edge - size) // 2" if keys["RESIZE"] == "hf_crop" else "round((edge - size) / 2)"
        lines = [
            f"image = image.resize({edges}, {resampling})",
            f"left, top = ({half} for edge, size in zip(image.size, {size}))",
            f"image = image.crop((left, top, left + {width}, top + {height}))",
        ]
    lines.append("x = np.asarray(image, np.float32) / 255")
    if "normalize" in names:
        lines.append(f"x = (x - np.float32({keys['PIXEL_MEAN']})) / np.float32({keys['PIXEL_STD']})")
    if "instance_norm" in names and not keys["NO_TRANSFORM"]:
        lines.append("x = (x - x.mean((0, 1))) / (x.std((0, 1), ddof=1) + np.float32(1e-8))")
    return lines
