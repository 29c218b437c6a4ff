"""What was learned for each class, taken for the classes of a data set alone: they may be some, in another order.

A tensor of a checkpoint is per class if the method says so, or by its shape: one dimension counts the classes of the
training, and the same dimension of the model counts those of the data set. Nothing else tells: fifty residuals fit
fifty other classes.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..text import printable, shorten
from .datum import DatasetBase

ADVICE = (
    "What is learned for each class knows no other: test it on the classes it was trained on, or train what all share "
    "(CoOp with CSC False, CoCoOp)."
)

StateDict = dict[str, Tensor]

logger = logging.getLogger(__name__)


class OtherClassesError(ValueError):
    """What was learned for each class, and for others than those asked for."""

    def __init__(self, message: str, names: Iterable[str]):
        super().__init__(message)
        self.names = set(names)  # of the tensors


class ClassRows:
    """Takes what checkpoints hold for each class, for the classes of one data set.

    Args:
        dataset: The data set to classify; its `source_labels` may name the labels of the training.
        declared: Whether a tensor is per class, by its name or that of a module it is in; of others the shape decides.
        reference: Last parts of the names of entries that are never loaded. A checkpoint that does not say its class
            names, as the original's, tells the classes by them: they embed the names.
        trainer: The method's class name, for messages.
    """

    def __init__(self, dataset: DatasetBase, declared: Mapping[str, bool], reference: Iterable[str], trainer: str):
        self.dataset, self.declared, self.trainer = dataset, declared, trainer
        self.reference = frozenset(reference)

    def fit(self, checkpoint: dict[str, Any], own: StateDict, path: Path, *, is_loaded: bool = False) -> str:
        """Gives a checkpoint the rows of the data set's classes, in their order; returns what to be warned of, or "".

        Args:
            checkpoint: Its "state_dict" is replaced; its "classnames" are those of the training, by label.
            own: The state dict of the model that it will be loaded into.
            path: Its file.
            is_loaded: Whether the model may have been loaded from it already. Else, what is equal in both is no matter.

        Raises:
            OtherClassesError: If not all classes of the data set were learned.
            ValueError: If the checkpoint's "classnames" are none, or do not fit its tensors.
        """
        learned, found = checkpoint.get("classnames"), checkpoint["state_dict"]
        if learned == self.dataset.classnames:
            return ""
        unclear = self._unclear(found, own, is_loaded)
        if not unclear:
            return ""
        if learned is None:
            return self._compare_reference(found, own, unclear, path)
        _require_names(learned)
        if dims := self._class_dims(found, own, unclear, len(learned)):
            rows = self._rows(learned)
            if rows is None or None in dims.values():
                raise OtherClassesError(self._other_classes(learned, list(dims)), dims)
            _require_rows({name: found[name] for name in dims}, dims, len(learned))
            taken = {name: found[name].index_select(dim, rows) for name, dim in dims.items()}
            checkpoint["state_dict"] = {**found, **taken}
        return self._several_rows(found, own, [name for name in unclear if name not in dims], len(learned), path)

    def known(self, learned: list[str]) -> list[int | None]:
        """Returns for each class of the data set which of the learned classes it is, None for a new one.

        Of several classes of one name the first here is the first there.

        Raises:
            ValueError: If `learned` is no list of names.
        """
        _require_names(learned)
        places = defaultdict(list)
        for row in reversed(range(len(learned))):
            places[learned[row]].append(row)
        return [places[name].pop() if places[name] else None for name in self.dataset.classnames]

    def fit_start(self, checkpoint: dict[str, Any], own: StateDict, path: Path) -> str:
        """The same for a model that only starts from a checkpoint: what is of other classes is left out.

        Raises:
            ValueError: As `fit`; if the checkpoint holds nothing else that the model has.
        """
        try:
            return self.fit(checkpoint, own, path)
        except OtherClassesError as error:
            rest = {name: value for name, value in checkpoint["state_dict"].items() if name not in error.names}
            if not any(name in own and not self._is_reference(name) for name in rest):
                raise
            checkpoint["state_dict"] = rest
            logger.warning(f"{path} was learned for other classes: not taken from it is {_listed(sorted(error.names))}")
            return ""

    def _unclear(self, found: StateDict, own: StateDict, is_loaded: bool) -> list[str]:
        """Returns the names of the tensors that may be per class; where none is declared, of those that differ."""
        declared = {name: self._is_declared(name) for name in found if name in own}
        return [
            name
            for name, is_so in declared.items()
            if is_so or (is_so is None and (is_loaded or not is_same(found[name], own[name])))
        ]

    def _is_reference(self, name: str) -> bool:
        return name.rpartition(".")[2] in self.reference

    def _is_declared(self, name: str) -> bool | None:
        """Says whether the method declares a tensor per class, or not; None where it does not speak of it."""
        if self._is_reference(name):
            return False  # never loaded
        return next((is_so for key, is_so in self.declared.items() if f"{name}.".startswith(f"{key}.")), None)

    def _class_dims(self, found: StateDict, own: StateDict, names: list[str], n_learned: int) -> dict[str, int | None]:
        """Returns the dimension that counts the classes of each tensor that is per class, None if it may be several."""
        counts = (n_learned, self.dataset.num_classes)
        dims = {}
        for name in names:
            shapes = list(zip(found[name].shape, own[name].shape)) if found[name].dim() == own[name].dim() else []
            if self._is_declared(name):
                dims[name] = 0
            elif counts in shapes:
                dims[name] = shapes.index(counts) if shapes.count(counts) == 1 else None
        return dims

    def _several_rows(self, found: StateDict, own: StateDict, names: list[str], n_learned: int, path: Path) -> str:
        """Returns what to be warned of if tensors might hold several rows for each of as many other classes, or ""."""
        if n_learned != self.dataset.num_classes:
            return ""  # then their shapes would not fit
        fitting = [name for name in names if found[name].dim() and found[name].shape == own[name].shape]
        several = [name for name in fitting if found[name].shape[0] % n_learned == 0 and n_learned > 1]
        if not several:
            return ""
        return (
            f"The checkpoint {path.name} was learned for other classes. If its {_listed(several)} has several rows for "
            f"each class, the result is wrong. Say so, or that all classes share it, in the class {self.trainer}: "
            f'learned_per_class = {{"{printable(several[0])}": True or False}}.'
        )

    def _rows(self, learned: list[str]) -> Tensor | None:
        """Returns which of the learned classes are those of the data set, in its order; None if some are not."""
        asked, labels = self.dataset.classnames, self.dataset.source_labels
        if labels is not None:
            fits = max(labels) < len(learned) and [learned[label] for label in labels] == asked
            return torch.tensor(labels) if fits else None
        there, here = Counter(learned), Counter(asked)
        if any(there[name] != n for name, n in here.items()):
            return None  # of two classes of one name, as ImageNet has, one alone would be ambiguous
        return torch.tensor(self.known(learned))

    def _other_classes(self, learned: list[str], names: list[str]) -> str:
        asked = self.dataset.classnames
        # Named are the first class, the first that differs, and the last.
        other = next((i for i, (one, another) in enumerate(zip(learned, asked)) if one != another), 0)
        shown = [[printable(names[i]) for i in (0, other, -1)] for names in (learned, asked)]
        there, here = (" ... ".join(dict.fromkeys(names)) for names in shown)
        return (
            f"The checkpoint holds {_listed(names)}, learned for each of {len(learned)} classes ({there}), but "
            f"{type(self.dataset).__name__} has {len(asked)} ({here}). {ADVICE}{self._how_to_declare(names)}"
        )

    def _how_to_declare(self, names: list[str]) -> str:
        told = [name for name in names if self._is_declared(name) is None]
        if not told:
            return ""
        declaration = ", ".join(f'"{printable(name)}": False' for name in told[:3])
        return (
            f" Shapes tell this. If all classes share it, write learned_per_class = {{{declaration}}} into the class "
            f"{self.trainer}."
        )

    def _compare_reference(self, found: StateDict, own: StateDict, names: list[str], path: Path) -> str:
        """Does for a checkpoint without class names what can be done; returns what to be warned of, or "".

        Raises:
            OtherClassesError: If its embedded class names are others than the data set's.
        """
        names = [name for name in names if found[name].shape == own[name].shape]  # what does not fit is refused later
        names = list(self._class_dims(found, own, names, self.dataset.num_classes))
        if not names:
            return ""
        references = [name for name in found if self._is_reference(name) and name in own]
        same = {name: _same_rows(found[name], own[name]) for name in references}
        same = {name: rows for name, rows in same.items() if rows is not None}
        for name, rows in same.items():
            if not all(rows):
                n_other, example = rows.count(False), printable(self.dataset.classnames[rows.index(False)])
                raise OtherClassesError(
                    f"The checkpoint's `{printable(name)}` is that of other classes, or of another CLIP ({n_other} of "
                    f"{len(rows)} rows differ, that of {example} among them), and it holds {_listed(names)}, learned "
                    f"for each class. {ADVICE}{self._how_to_declare(names)}",
                    names,
                )
        if same:
            return ""
        return (
            f"The checkpoint {path.name} does not say its class names, and it holds {_listed(names)}, learned for each "
            f"class: the result is right only if they were those of {type(self.dataset).__name__}, in this order."
            f"{self._how_to_declare(names)}"
        )


def _same_rows(found: Tensor, own: Tensor) -> list[bool] | None:
    """Says of each class whether its embedded name is the same; None where they do not tell classes apart."""
    found, own = found.float().cpu(), own.float().cpu()
    if found.shape != own.shape or bool((own == own[:1]).all()):
        return None  # [SOS] is that of all classes
    # Each may have been rounded to bfloat16, by 2^-9. Other tokens differ in hundreds of values.
    return torch.isclose(found, own, rtol=2**-7, atol=1e-6).flatten(1).all(dim=1).tolist()


def is_same(found: Tensor, own: Tensor) -> bool:
    """Says whether a model has the values already, as of what is never trained."""
    return found.shape == own.shape and bool((found.to(own.dtype).cpu() == own.cpu()).all())


def _require_names(learned: Any) -> None:
    if not (isinstance(learned, list) and learned and all(isinstance(name, str) for name in learned)):
        raise ValueError(
            f"The checkpoint's `classnames` is {shorten(learned)}; it should be a list with the name of each class of "
            "the training. Name another checkpoint."
        )


def _require_rows(values: StateDict, dims: dict[str, int], n_learned: int) -> None:
    for name, value in values.items():
        if value.shape[dims[name] : dims[name] + 1] != (n_learned,):
            raise ValueError(
                f"The checkpoint's `{printable(name)}` is {tuple(value.shape)}, which is not a row for each of its "
                f"{n_learned} `classnames`. Name another checkpoint."
            )


def _listed(names: list[str]) -> str:
    more = f" (and {len(names) - 3} more)" if len(names) > 3 else ""
    return ", ".join(f"`{printable(name)}`" for name in names[:3]) + more
