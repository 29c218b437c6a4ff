"""What a benchmark wrote to the file of --json, and what has to hold for its rows."""

import json
from pathlib import Path

from tests.support.tolerance import EPS, EXACT, FACTOR, assert_near, distance, rounding_tolerance

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["INPUT.SIZE", "(64, 64)", "DATALOADER.NUM_WORKERS", "0", "USE_CUDA", "False"]
SMALL += ["DATALOADER.TRAIN_X.BATCH_SIZE", "4", "DATALOADER.TEST.BATCH_SIZE", "4", "OPTIM.MAX_EPOCH", "8"]


def rows_of(words):
    """What the benchmark called with these words wrote: its content, and the rows that compare two sides."""
    path = Path(words[words.index("--json") + 1])
    [line] = path.read_text().splitlines()
    content = json.loads(line)
    assert {"benchmark", "date", "processor", "cores", "GPU", "torch", "threads", "settings"} <= content.keys()
    assert all(row["peak_gb"] > 0 for row in content["rows"] if "peak_gb" in row)
    return content, [row for row in content["rows"] if "ratios" in row]


def check_exact(pairs, rows):
    """In float64 both sides are equal; the difference that is reported is float32's rounding."""
    for (sides, exact), row in zip(pairs[: len(rows)], rows, strict=True):  # those after them show the peak memory
        gradient = exact.naive_step()
        assert_near(exact.our_step(), gradient, EXACT)
        if row["difference"] is not None:
            assert row["difference"] <= rounding_between_sides(sides.naive_step(), gradient)


def rounding_between_sides(plain, exact):
    """What may lie between two float32 results: the plain one's own error and, see `assert_as_exact`, that of ours."""
    return (1 + FACTOR) * max(distance(plain, exact), EPS)


def check_rows(rows):
    for row in rows:
        assert row["difference"] is None or row["difference"] < rounding_tolerance()
        assert row["ratios"] == [naive / ours for naive, ours in zip(row["naive_s"], row["ours_s"], strict=False)]
    assert any(row["difference"] is not None for row in rows)
