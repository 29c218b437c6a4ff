"""The sheet of docs/shapes.png: each row has a label, and space parts the groups of rows."""

from itertools import groupby

import numpy as np

from tools.contact_sheet import LABEL_WIDTH, contact_sheet, row_groups


def test_rows_have_labels_and_groups_are_apart():
    pixels = np.asarray(contact_sheet().convert("L"))
    is_white = (pixels == 255).all(axis=1)
    bands = [(white, len(list(lines))) for white, lines in groupby(is_white.tolist())]
    groups = row_groups()
    assert [white for white, _ in bands] == [True, *[False, True] * len(groups)]  # space around each group
    heights = [n for white, n in bands if not white]
    assert [n // len(rows) for n, rows in zip(heights, groups, strict=True)] == [96] * 3  # 48 pixels, doubled
    labels = [label for rows in groups for label, _ in rows]
    assert labels[:2] == ["flat", "photo"] and labels[-1] == "shapes_r" and all(labels)
    top = bands[0][1]
    for (_, n), (_, gap), rows in zip(bands[1::2], bands[2::2], groups, strict=True):
        for y in range(top, top + n, n // len(rows)):
            assert pixels[y : y + n // len(rows), :LABEL_WIDTH].min() < 100  # ink
        top += n + gap
