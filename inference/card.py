"""The page beside an exported classifier: what it is, how good it is, and the lines that use it without this code."""

from __future__ import annotations

from typing import Any

from engine.config.load import split_backbone
from engine.text import printable

OPEN_CLIP = {  # OpenAI's name -> open_clip's
    **{name: name for name in ("RN50", "RN101", "RN50x4", "RN50x16", "RN50x64")},
    "ViT-B/32": "ViT-B-32",
    "ViT-B/16": "ViT-B-16",
    "ViT-L/14": "ViT-L-14",
    "ViT-L/14@336px": "ViT-L-14-336",
}
N_NAMES = 20  # class names on the page

HEADS = {
    "cosine": 'x = x / np.linalg.norm(x, axis=1, keepdims=True)\nlogits = head["scale"] * x @ head["weight"].T',
    "linear": 'logits = x @ head["weight"].T + head["bias"]',
}


def card(facts: dict[str, Any], *, kind: str = "cosine") -> str:
    """Returns the page as Markdown, from the entries of config.json; `kind` is "cosine" or "linear"."""
    names = [printable(name) for name in facts["classnames"]]
    more = f" and {len(names) - N_NAMES:,} more" if len(names) > N_NAMES else ""
    return f"""---
library_name: prompt-learning-clip
pipeline_tag: image-classification
tags: [clip, prompt-learning]
---

# {facts["trainer"]} on {facts["source"] or "no training data"}

Classifies images into {len(names):,} classes: {", ".join(names[:N_NAMES])}{more}.

{measured(facts)}

| file | what it holds |
|---|---|
| `classifier.safetensors` | {contents(kind)} |
| `config.json` | class names, backbone and its digest, preprocessing, training |

The image features come from CLIP {printable(facts["backbone"])}, which is not in this folder.

## Use it without the toolkit

```python
{recipe(facts, kind)}
```

## Use it with the toolkit

```python
from inference.classifier import Classifier

probabilities, names = Classifier.from_export("FOLDER")(["photo.jpg"])
```
"""


def measured(facts: dict[str, Any]) -> str:
    """Returns the sentences on training and accuracy."""
    if facts["accuracy"] is None:
        return "It was not tested."
    trained = f"{facts['shots']} training images per class, seed {facts['seed']}"
    said = f"{trained if facts['source'] else 'Nothing is trained'}. "
    said += f"Accuracy on {facts['dataset']}: {facts['accuracy']:.2f} % of {facts['total']:,} images."
    return "\n".join([said, *(f"\nWarning: {printable(warning)}" for warning in facts["warnings"] or ())])


def contents(kind: str) -> str:
    if kind == "linear":
        return "`weight` (C, E) and `bias` (C,), float32, of features that are not normalised"
    return "`weight` (C, E) float32, a normalised feature for each class, and `scale`"


def recipe(facts: dict[str, Any], kind: str) -> str:
    """Returns Python lines from an image to the class, with numpy and the backbone's library, or features of one's own.

    The backbone's name may be a stranger's text: it stands in the lines as a Python literal.
    """
    name, lines = facts["backbone"], ["import json", "import numpy as np", "from safetensors.numpy import load_file"]
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
            HEADS[kind],
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
