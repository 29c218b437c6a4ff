"""What was learned for each class, taken for the classes of a data set alone: they may be some, in another order."""

from __future__ import annotations

from torch import Tensor

from engine import DatasetBase
from engine.text import printable, shorten


def take_learned(values: dict[str, Tensor], learned: list[str] | None, dataset: DatasetBase) -> dict[str, Tensor]:
    """Returns what was learned for each class, a row each, for the classes of a data set alone, in their order.

    Args:
        values: Tensors by name; the first dimension numbers the classes of the training.
        learned: Their names, see `learned_rows`.
        dataset: The data set to classify.

    Raises:
        ValueError: If there are more names than rows, or fewer; or as `learned_rows`.
    """
    rows = learned_rows(learned, dataset)
    if rows is None:
        return values
    for name, value in values.items():
        if value.shape[:1] != (len(learned),):
            raise ValueError(
                f"The checkpoint's `{printable(name)}` is {tuple(value.shape)}, which is not a row for each of its "
                f"{len(learned)} `classnames`. Name another checkpoint."
            )
    return {name: value[rows] for name, value in values.items()}


def learned_rows(learned: list[str] | None, dataset: DatasetBase) -> list[int] | None:
    """Returns which rows of what was learned for each class are those of a data set's classes; None: all, in order.

    Args:
        learned: The class names of the training, by label; None where a checkpoint does not say.
        dataset: The data set to classify; its `source_labels` may name the labels there.

    Raises:
        ValueError: If the data set has other classes, or the checkpoint no names.
    """
    asked, labels = dataset.classnames, dataset.source_labels
    if learned is None or learned == asked:
        return None
    if not (isinstance(learned, list) and learned and all(isinstance(name, str) for name in learned)):
        raise ValueError(
            f"The checkpoint's `classnames` is {shorten(learned)}; it should be a list with the name of each class of "
            "the training. Name another checkpoint."
        )
    if labels is not None and max(labels) < len(learned) and [learned[label] for label in labels] == asked:
        return list(labels)
    # Named are the first class, the first that differs, and the last.
    other = next((i for i, (one, another) in enumerate(zip(learned, asked)) if one != another), 0)
    shown = [[printable(names[i]) for i in (0, other, -1)] for names in (learned, asked)]
    there, here = (" ... ".join(dict.fromkeys(names)) for names in shown)
    raise ValueError(
        f"The checkpoint was learned for each of {len(learned)} classes ({there}), but {type(dataset).__name__} has "
        f"{len(asked)} ({here}). What is learned for each class knows no other: test it on the classes it was trained "
        "on, or train what all share (CoOp with CSC False, CoCoOp)."
    )
