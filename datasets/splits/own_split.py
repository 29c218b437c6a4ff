"""Splits of our own: they stand in where the papers' split is not to be had, and where a folder has none."""

import random
from collections.abc import Sequence

from engine import Datum

from .few_shot import group_by_label
from .split_file import Items

OWN_SPLIT_SEED = 1
HALF_RULE = "half of each class to train on, a fifth for val, the rest to test on"
HELD_OUT_RULE = "the publisher's test images; of the others a fifth of each class for val"


def draw_split(items: Sequence[Datum], seed: int) -> Items:
    """Splits each class at random: half (rounded up) to train on, a fifth (down) for val, the rest to test on."""
    rng = random.Random(seed)
    train, val, test = [], [], []
    for group in group_by_label(items):
        shuffled = rng.sample(group, len(group))
        n_train, n_val = (len(group) + 1) // 2, len(group) // 5
        train += shuffled[:n_train]
        val += shuffled[n_train : n_train + n_val]
        test += shuffled[n_train + n_val :]
    return train, val, test


def hold_out_val(items: Sequence[Datum], seed: int = OWN_SPLIT_SEED) -> tuple[list[Datum], list[Datum]]:
    """Returns the items to train on and a fifth of each class, drawn at random, for val; both keep their order."""
    rng = random.Random(seed)
    held_out = {item.impath for group in group_by_label(items) for item in rng.sample(group, round(len(group) / 5))}
    train = [item for item in items if item.impath not in held_out]
    return train, [item for item in items if item.impath in held_out]
