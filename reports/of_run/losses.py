"""The training loss over the epochs, from log.txt: ours or the original's."""

from __future__ import annotations

import re
from pathlib import Path

from engine.run.names import LOG

from ..runs import NUMBER

STEP = re.compile(rf"epoch \[(\d{{1,9}})/\d{{1,9}}\].{{0,500}}?\bloss {NUMBER} \(({NUMBER})\)")  # last value (mean)


def read_losses(folder: Path) -> dict[int, float]:
    """Returns epoch, from 1 -> mean loss of its batches so far, in the last line on it; after a resume the later one.

    Empty where nothing was trained, or where no line was logged.
    """
    path = folder / LOG
    if not path.is_file():
        return {}
    losses = {}
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if found := STEP.match(line):
                losses[int(found[1])] = float(found[2])
    return dict(sorted(losses.items()))
