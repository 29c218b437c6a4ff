"""Checkpoints of authors' code: what was learned under their names, and often all of CLIP beside it.

    prompt_learner.NAME, image_encoder.VPT, TOWER.transformer.resblocks.I.VPT_shallow     learned, by method
    image_encoder.NAME, text_encoder.NAME, logit_scale                                    CLIP's, frozen

A method says how its tensors are called there, beside its class. CLIP's weights are not taken over, but compared.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor

from engine.text import printable

StateDict = dict[str, Tensor]

FROZEN = {"image_encoder.": "visual.", "text_encoder.": "", "prompt_learner.ZS_image_encoder.": "visual."}
# Relative difference of a tensor of CLIP. float16 rounds by 0.0005, and an average of 50 epochs in it by 0.001.
MOST = 0.02
N_NAMED = 4  # of many entries, so many are named
TOOL = "python -m tools.rename_checkpoint"


def own_entries(
    found: StateDict, own: StateDict, names: Mapping[str, str], clip: StateDict, *, unused: Collection[str] = ()
) -> tuple[StateDict, str]:
    """Returns a checkpoint's entries under the method's own names, and what to be warned of, or "".

    Args:
        found: The checkpoint's state dict.
        own: That of the model, without what is never loaded.
        names: How the authors call what is learned, by the method's own name. What else the model has stays as it is.
        clip: The state dict of the backbone, in OpenAI's layout.
        unused: Entries of the authors' checkpoints that take no part in the method, or their last parts.

    Raises:
        ValueError: If an entry is missing, or one is neither learned, nor CLIP's, nor unused.
    """
    learned = {name: found[theirs] for name, theirs in names.items() if theirs in found}
    left = {key: value for key, value in found.items() if key not in names.values() and not _is_in(key, unused)}
    frozen = {key: clip[clip_name(key)] for key in left if _shape(clip.get(clip_name(key))) == _shape(left[key])}
    left = {key: value for key, value in left.items() if key not in frozen}
    missing = {name: own[name] for name in names if name not in learned}
    if missing or left:
        raise ValueError(_unknown(missing, left, names))
    return {**own, **learned}, frozen_warning({key: found[key] for key in frozen}, frozen)


def clip_name(key: str) -> str:
    """Returns how OpenAI calls a weight of CLIP that the authors' models call `key`."""
    prefix = next((prefix for prefix in FROZEN if key.startswith(prefix)), "")
    return FROZEN.get(prefix, "") + key.removeprefix(prefix)


def frozen_warning(found: StateDict, backbone: StateDict) -> str:
    """Returns a sentence if a checkpoint's weights of CLIP are not the backbone's; keys and shapes are the same."""
    differs = {key: _difference(found[key], backbone[key]) for key in found}
    worst = max(differs, key=differs.get, default="")
    if differs.get(worst, 0) <= MOST:
        return ""
    return (
        f"The checkpoint holds other weights of CLIP than the backbone has ({printable(worst)} differs by "
        f"{differs[worst]:.0%}): what was learned means little here. Name the backbone that it was trained with."
    )


def _difference(found: Tensor, own: Tensor) -> float:
    own, found = own.double().cpu(), found.double().cpu()
    return float((found - own).norm() / own.norm().clamp(min=1e-12))


def _unknown(missing: StateDict, left: StateDict, names: Mapping[str, str]) -> str:
    """Says what a checkpoint lacks and what it holds besides, and by the shapes which could be which."""
    parts = []
    for shape in dict.fromkeys(map(_shape, missing.values())):
        lacking = [f"{name} (there: {names[name]})" for name, value in missing.items() if _shape(value) == shape]
        fitting = [key for key, value in left.items() if _shape(value) == shape]
        parts.append(f"It lacks {', '.join(lacking)} of shape {shape}; of that shape there is {_listed(fitting)}.")
    others = [key for key, value in left.items() if _shape(value) not in map(_shape, missing.values())]
    if others:
        shown = [f"{key} {_shape(left[key])}" for key in others]
        parts.append(f"It holds {_listed(shown)}, which the method does not have with this config.")
    return (
        f"{' '.join(parts)} Give the --trainer, the backbone and the config that it was trained with. If it only calls "
        f"its entries otherwise, write those that are needed under their own names: {TOOL} FILE FOLDER NAME=ENTRY ..."
    )


def _listed(keys: list[str]) -> str:
    more = f" and {len(keys) - N_NAMED:,} more" if len(keys) > N_NAMED else ""
    return ", ".join(map(printable, keys[:N_NAMED])) + more or "nothing else"


def _shape(value: Tensor | None) -> tuple[int, ...] | None:
    return None if value is None else tuple(value.shape)


def _is_in(key: str, names: Collection[str]) -> bool:
    return key in names or key.rpartition(".")[2] in names
