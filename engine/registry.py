"""Registries: the class of a trainer, a data set or an evaluator by its name in the config."""

from __future__ import annotations

import difflib
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager


def near_name(name: str, options: Iterable[str]) -> str:
    """Returns `" Did you mean X?"` when one option is close to `name`, else an empty string."""
    by_lower = {option.lower(): option for option in options}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.7)
    return f" Did you mean {by_lower[close[0]]}?" if close else ""


class Registry:
    """A table of classes by name; messages call an entry `name` ("trainer"), `contract` says what it must do."""

    def __init__(self, name: str, contract: str):
        self.name = name
        self.__doc__ = contract
        self._entries: ChainMap[str, type] = ChainMap()

    def register(self, cls: type | None = None, *, name: str | None = None) -> Callable | type:
        """Class decorator: `@REGISTRY.register()`; the entry's name is the class's unless `name` is given."""
        if cls is None:
            return lambda decorated: self.register(decorated, name=name)
        key = name or cls.__name__
        taken = self._entries.maps[0].get(key)
        if taken is not None and (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
            raise KeyError(
                f"The {self.name} name {key} is taken by {taken.__module__}.{taken.__qualname__}. Rename "
                f"{cls.__module__}.{cls.__qualname__}."
            )
        self._entries[key] = cls
        return cls

    def get(self, name: str) -> type:
        """Returns the class registered under `name`; if there is none, KeyError says the names."""
        if name not in self._entries:
            raise KeyError(self.unknown(name))
        return self._entries[name]

    def unknown(self, name: str) -> str:
        """Returns the message for an unknown name."""
        options = ", ".join(self.registered_names()) or "none registered; import the package that defines them"
        return f"The {self.name} is {name!r}, expected one of: {options}.{near_name(name, self._entries)}"

    def registered_names(self) -> list[str]:
        """Returns all names, sorted."""
        return sorted(self._entries)

    @contextmanager
    def overlay(self) -> Iterator[None]:
        """Until the `with` block ends, every name is free again; what is registered in it is then forgotten."""
        self._entries = self._entries.new_child()
        try:
            yield
        finally:
            self._entries = self._entries.parents

    def layers(self) -> list[Mapping[str, type]]:
        """Returns name -> class: first what is registered outside any overlay, then for each overlay."""
        return self._entries.maps[::-1]

    def __contains__(self, name: str) -> bool:
        return name in self._entries


TRAINER_REGISTRY = Registry(
    "trainer",
    """A method. Called with the frozen cfg; must return a `TrainerX`: `build_model()` sets up what is trained,
    `forward_backward(batch)` does one step and returns its losses by name, `model_inference(images)` maps
    (B, 3, H, W) float32 to logits (B, C). Its options are declared by a static method `add_config(cfg)`.""",
)

DATASET_REGISTRY = Registry(
    "data set",
    """A data set. Called with the frozen cfg; must return a `DatasetBase` (lists of `Datum`: train_x, val, test)
    whose class attribute `prompt_template` is its hand-made prompt, with `{}` for the class name.""",
)

EVALUATOR_REGISTRY = Registry(
    "evaluator",
    """A measure. Called with (cfg, lab2cname); must have `reset()`, `process(logits (B, C), labels (B,))` and
    `evaluate()`, which logs the result and returns it as an ordered dict whose first entry is the main number; may have
    `chance_warning()`, a sentence if the answers could be guesses, else "", and `answers`, which predictions.csv needs
    (`engine/evaluation/answers.py`).""",
)
