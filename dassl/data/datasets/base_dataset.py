"""Data sets: lists of labelled images."""

from __future__ import annotations

import random
from collections.abc import Sequence

import engine
from engine import Datum


class DatasetBase(engine.DatasetBase):
    """The engine's, called as Dassl's; a subclass draws its few shots before it calls this.

    Raises:
        ValueError: If there are unlabelled items, or as the engine's.
    """

    dataset_dir = ""
    train_u = None

    def __init__(
        self,
        train_x: Sequence[Datum] | None = None,
        train_u: Sequence[Datum] | None = None,
        val: Sequence[Datum] | None = None,
        test: Sequence[Datum] | None = None,
    ):
        if train_u:
            raise ValueError(
                f"{type(self).__name__}.train_u has {len(train_u)} items, but unlabelled training data are not "
                "supported. Leave it out."
            )
        super().__init__(train_x or (), val=val, test=test or ())

    def get_num_classes(self, data_source: Sequence[Datum]) -> int:
        """Returns the number of classes, from the largest label."""
        return max(item.label for item in data_source) + 1

    def get_lab2cname(self, data_source: Sequence[Datum]) -> tuple[dict[int, str], list[str]]:
        """Returns label -> class name, and the class names in order of the labels."""
        names = {item.label: item.classname for item in data_source}
        return names, [names[label] for label in sorted(names)]

    def generate_fewshot_dataset(
        self, *data_sources: Sequence[Datum], num_shots: int = -1, repeat: bool = False
    ) -> list[Datum] | Sequence[Sequence[Datum]]:
        """Draws items of each class by Python's global generator, which train.py has seeded.

        Args:
            data_sources: Lists of items, drawn from one after the other.
            num_shots: Items of each class; below 1 takes all.
            repeat: Whether a class with fewer items gives some of them repeatedly, or each once.

        Returns:
            The drawn items, a list for each source if there are several.
        """
        drawn = [self._draw(items, num_shots, repeat) if num_shots >= 1 else items for items in data_sources]
        return drawn[0] if len(drawn) == 1 else drawn

    def _draw(self, items: Sequence[Datum], num_shots: int, repeat: bool) -> list[Datum]:
        drawn: list[Datum] = []
        for group in self.split_dataset_by_label(items).values():
            if len(group) >= num_shots:
                drawn += random.sample(group, num_shots)
            else:
                drawn += random.choices(group, k=num_shots) if repeat else group
        return drawn

    def split_dataset_by_label(self, data_source: Sequence[Datum]) -> dict[int, list[Datum]]:
        """Returns label -> items, labels in order of first appearance."""
        groups: dict[int, list[Datum]] = {}
        for item in data_source:
            groups.setdefault(item.label, []).append(item)
        return groups
