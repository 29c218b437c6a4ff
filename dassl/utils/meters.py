"""Running values and means."""

from __future__ import annotations

from collections import defaultdict
from operator import attrgetter

from torch import Tensor

from engine import log


class AverageMeter(log.AverageMeter):
    """The last value `val` and the mean `avg`."""

    val, avg = (property(attrgetter(name)) for name in ("value", "average"))


class MetricMeter:
    """Meters by name; takes numbers and tensors of one value."""

    def __init__(self, delimiter: str = " "):
        self.meters: dict[str, AverageMeter] = defaultdict(AverageMeter)
        self.delimiter = delimiter

    def update(self, input_dict: dict[str, float | Tensor]) -> None:
        """Adds one value to each named meter."""
        for name, value in input_dict.items():
            self.meters[name].update(value.item() if isinstance(value, Tensor) else value)

    def __str__(self) -> str:
        return self.delimiter.join(f"{name} {meter.val:.4f} ({meter.avg:.4f})" for name, meter in self.meters.items())
