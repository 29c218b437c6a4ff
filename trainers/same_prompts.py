"""Classes that a method which reads class names cannot tell apart: one prompt, or one text feature, for several.

A name becomes tokens in small letters, with single spaces and Unicode in one form, so "Cat" and "cat", "apple_pie" and
"apple pie" are one prompt. And a backbone that does not know a word may give any two such words the same feature.
"""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip.tokens import ClipTokenizer
from engine import DatasetBase, TrainerX
from engine.text import shorten

logger = logging.getLogger(__name__)

EQUAL = 0.9999  # a cosine from where on two features are one: at CLIP's scale of 100 their logits differ by 1.4 at most
N_NAMED = 3  # of many pairs, so many are named
ROWS_AT_ONCE = 1024  # of the matrix of cosines, bounds memory
ONE_OF_OPENAIS = "ViT-B/16"


def same_prompts_warning(trainer: TrainerX) -> str:
    """Returns a sentence on class names that make the same prompt; those that the benchmark repeats are only logged.

    It looks at every method, however it builds its prompts, but for those that do not read class names.
    """
    if not trainer.reads_classnames:
        return ""
    dataset = trainer.dm.dataset
    twins = find_twins(dataset.classnames, getattr(trainer, "clip_model", None))
    known = [pair for pair in twins if dataset.classnames[pair[1]] in dataset.repeated_names]
    if known:
        logger.info("The data set's own list repeats class names: %s", name_pairs(dataset, known))
    return twins_warning(dataset, [pair for pair in twins if pair not in known])


def find_twins(classnames: Sequence[str], clip_model: nn.Module | None = None) -> list[tuple[int, int]]:
    """Returns (first, later) for each label whose name makes the same tokens as that of an earlier one."""
    encode, first_of = getattr(clip_model, "tokenizer", ClipTokenizer()).encode, {}
    tokens = [tuple(encode(f"{name.replace('_', ' ')}.")) for name in classnames]
    firsts = [first_of.setdefault(ids, label) for label, ids in enumerate(tokens)]
    return [(first, label) for label, first in enumerate(firsts) if first != label]


def twins_warning(dataset: DatasetBase, twins: list[tuple[int, int]]) -> str:
    """Returns a sentence on classes that are one prompt; "" if there are none."""
    if not twins:
        return ""
    return (
        f"Some classes make the same prompt as an earlier one ({len(twins):,} of {dataset.num_classes:,}): "
        f"{name_pairs(dataset, twins)}. Unless the method learns something for each class, they are never answered. "
        "Rename one of each pair, or merge the two."
    )


def name_pairs(dataset: DatasetBase, pairs: Sequence[tuple[int, int]]) -> str:
    """Returns the first few pairs of labels in words."""
    more = f" and {len(pairs) - N_NAMED:,} more" if pairs[N_NAMED:] else ""
    return ", ".join(name_pair(dataset, *pair) for pair in pairs[:N_NAMED]) + more


def name_pair(dataset: DatasetBase, first: int, second: int) -> str:
    one, other = dataset.classnames[first], dataset.classnames[second]
    looks_equal = unicodedata.normalize("NFKC", one) == unicodedata.normalize("NFKC", other)
    show = ascii if one != other and looks_equal else shorten
    return f"{show(other)} (label {second}) as {show(one)} (label {first})"


def at_first_features(encoder: nn.Module, check: Callable[[Tensor], None]) -> None:
    """Calls check(features) with what a text encoder returns when it is first used, so that nothing is computed twice.

    Args:
        encoder: Returns (C, E), or (B, C, E) for B contexts; then the first context's are checked.
        check: Is called with (C, E).
    """
    seen: list[bool] = []

    def hook(_module: nn.Module, _inputs: tuple, features: Tensor) -> None:
        handle.remove()
        if not seen:  # a copy of the module has the hook still
            seen.append(True)
            check(features.detach() if features.dim() == 2 else features[0].detach())

    handle = encoder.register_forward_hook(hook)


@torch.autocast("cuda", enabled=False)  # half precision would round cosines to 1
@torch.no_grad()
def features_warning(features: Tensor, dataset: DatasetBase, backbone: str, clip_model: nn.Module | None = None) -> str:
    """Returns a sentence if text features (C, E) of different prompts are nearly equal; "" if none are."""
    later = {label for _, label in find_twins(dataset.classnames, clip_model)}
    labels = [label for label in range(len(features)) if label not in later]
    features = F.normalize(features[labels].float(), dim=-1)
    n_equal, first = 0, None
    for start in range(0, len(labels), ROWS_AT_ONCE):
        cosines = features[start : start + ROWS_AT_ONCE] @ features.t()
        is_equal = cosines.triu(start + 1) > EQUAL
        n_equal += int(is_equal.sum())
        if first is None and n_equal:
            row, column = divmod(int(is_equal.int().argmax()), len(labels))
            first = labels[start + row], labels[column]
    if first is None:
        return ""
    n_pairs = len(labels) * (len(labels) - 1) // 2
    return (
        f"Some classes have nearly the same text feature with {backbone} and are hardly told apart ({n_equal:,} of "
        f"{n_pairs:,} pairs, cosine above {EQUAL}), such as {name_pair(dataset, *first)}. {advice(backbone)}"
    )


def advice(backbone: str) -> str:
    if backbone.endswith("-shapes"):
        return (
            f"{backbone} knows the words of `shapes` alone: take one of OpenAI's, such as --backbone {ONE_OF_OPENAIS}."
        )
    return f"Give them names that differ more, or take another backbone, such as --backbone {ONE_OF_OPENAIS}."
