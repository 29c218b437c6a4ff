"""What a Hugging Face model is given: its tokenizer and the preparation of its images, as its folder says."""

from __future__ import annotations

import json
from pathlib import Path

from ..tokens import ClipTokenizer, OtherTokenizer, Tokenizer, tokenizer
from ..two_towers import Preprocessing
from .hf_files import PROCESSORS, TOKENIZERS, import_transformers

AS_DATA = {"trust_remote_code": False, "local_files_only": True}  # a folder is read, and nothing in it is run
INTERPOLATIONS = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # PIL's numbers
KNOWN = ("CLIPImageProcessor", "SiglipImageProcessor", "ChineseCLIPImageProcessor", "ViTImageProcessor")
PROBES = ("a photo of a cat.", "Maltese (dog)", "Boeing 737-800", "café")


def read_tokenizer(folder: Path, context_length: int, vocab_size: int) -> Tokenizer:
    """Returns the tokenizer in a folder: ours where it has CLIP's vocabulary and merges.

    Args:
        context_length: L, to which texts are padded.
        vocab_size: rows of the token embedding.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It does not fit the text tower, or cannot be read.
    """
    if not any((folder / name).is_file() for name in TOKENIZERS):
        raise FileNotFoundError(
            f"{folder.absolute()} has no tokenizer. Put its files there, such as {', '.join(TOKENIZERS[:2])} and "
            "merges.txt of CLIP's, or spiece.model of SigLIP's."
        )
    library = import_transformers()
    try:
        theirs = library.AutoTokenizer.from_pretrained(folder, **AS_DATA)
    except ImportError as error:
        raise ValueError(
            f'The tokenizer in {folder} needs a package that is missing ({_first_line(error)}): pip install -e ".[hf]".'
        ) from error
    except Exception as error:  # what a wrong file makes the library raise is not documented, and is passed on here
        raise ValueError(f"The tokenizer in {folder} cannot be read ({_first_line(error)}).") from error
    if theirs.padding_side != "right":
        raise ValueError(
            f"The tokenizer in {folder} pads at the {theirs.padding_side}, so a prompt has no fixed positions; "
            'padding_side must be "right" in tokenizer_config.json.'
        )
    if len(theirs) > vocab_size:
        raise ValueError(
            f"The tokenizer in {folder} has {len(theirs)} tokens, the text tower's embedding {vocab_size} rows. Put "
            "the tokenizer there that the model was trained with."
        )
    if _is_clips(theirs):
        return ClipTokenizer(context_length)
    marks = (theirs.bos_token_id, theirs.cls_token_id, theirs.eos_token_id, theirs.sep_token_id)
    return OtherTokenizer(
        lambda texts: theirs(
            texts, padding="max_length", max_length=context_length, truncation=False, return_tensors="pt"
        )["input_ids"],
        lambda text: theirs.encode(text, add_special_tokens=False, verbose=False),
        context_length,
        special={mark for mark in marks if mark is not None},
        n_special=theirs.num_special_tokens_to_add(),
        end=theirs.eos_token_id,
    )


def _is_clips(theirs) -> bool:
    """Whether a tokenizer gives the ids of CLIP's, by its vocabulary, its merges and what it makes of some texts."""
    ours = tokenizer()
    if theirs.get_vocab() != ours.encoder or not theirs.is_fast:
        return False
    model = json.loads(theirs.backend_tokenizer.to_str())["model"]
    merges = [tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in model.get("merges", ())]
    if merges != sorted(ours.bpe_ranks, key=ours.bpe_ranks.get):
        return False
    rows = ClipTokenizer().rows(list(PROBES)).tolist()
    return all(row[: len(ids)] == ids for row, ids in zip(rows, theirs(list(PROBES))["input_ids"], strict=True))


def read_preprocessing(folder: Path) -> Preprocessing:
    """Returns how the images are prepared, by preprocessor_config.json.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It asks for what is not done here.
    """
    path = next((folder / name for name in PROCESSORS if (folder / name).is_file()), None)
    if path is None:
        raise FileNotFoundError(
            f"{folder.absolute()} has no {PROCESSORS[0]}, which says how images are prepared. Put the one there that "
            "belongs to the weights."
        )
    library = import_transformers()
    try:
        # Its attributes are read, no image is: both of the library's implementations have the same ones.
        theirs = library.AutoImageProcessor.from_pretrained(folder, **AS_DATA)
    except Exception as error:  # as above
        raise ValueError(f"{path} cannot be read ({_first_line(error)}).") from error
    kind = type(theirs).__name__.removesuffix("Pil").removesuffix("Fast")
    if kind not in KNOWN:
        raise ValueError(f"{path} names {kind}; images can be prepared as by {', '.join(KNOWN)}.")
    size, resize = _size(theirs, path)
    wrong = {
        "do_resize is False": not theirs.do_resize,
        "do_rescale is False": not theirs.do_rescale,
        f"rescale_factor is {theirs.rescale_factor}": abs(theirs.rescale_factor * 255 - 1) > 1e-6,
        "do_normalize is False": not theirs.do_normalize,
        f"resample is {theirs.resample}": theirs.resample not in INTERPOLATIONS,
    }
    if found := [text for text, is_wrong in wrong.items() if is_wrong]:
        raise ValueError(
            f"In {path} {', '.join(found)}. Images are always resized (resample 0, 2 or 3: nearest, bilinear, "
            "bicubic), divided by 255 and normalised."
        )
    mean, std = (tuple(float(value) for value in values) for values in (theirs.image_mean, theirs.image_std))
    return Preprocessing(size, INTERPOLATIONS[theirs.resample], resize, mean, std)


def _size(theirs, path: Path) -> tuple[int, str]:
    """Returns the edge of the square images, and how an image becomes one."""
    size, crop = dict(theirs.size), dict(getattr(theirs, "crop_size", None) or {})
    crops = bool(getattr(theirs, "do_center_crop", False))
    edge, height, width = size.get("shortest_edge"), size.get("height"), size.get("width")
    if edge and not size.get("longest_edge") and crops and crop.get("height") == crop.get("width") == edge:
        return edge, "hf_crop"
    if height and height == width and (not crops or crop.get("height") == crop.get("width") == height):
        return height, "squash"
    size, crop = ({name: value for name, value in node.items() if value} for node in (size, crop))
    raise ValueError(
        f"In {path} size is {size}, crop_size {crop}, do_center_crop {crops}. It must be a shortest "
        "edge that is also the edge of a square crop, or a square to which images are squashed."
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().split("\n")[0] or type(error).__name__)[:300]
