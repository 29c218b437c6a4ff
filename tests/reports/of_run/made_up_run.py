"""The folder of one finished run, made up: what it answered is given, row by row."""

import csv
import json

import numpy as np

COLUMNS = ["path", "true", "prediction", "probability", "second", "second_probability", "rank"]  # frozen
LOSSES = """epoch [1/2] batch [5/5] time 0.1 (0.1) data 0.0 (0.0) loss 3.0000 (2.5000) lr 2.0000e-03 eta 0:00
epoch [2/2] batch [5/5] time 0.1 (0.1) data 0.0 (0.0) loss 1.0000 (1.5000) lr 2.0000e-03 eta 0:00
"""


def write_run(folder, rows, *, root="", classnames=(), log=LOSSES, **results):
    """Writes a run whose results fit its rows; `results` are on top."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "predictions.csv").open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    total, correct = len(rows), sum(row[1] == row[2] for row in rows)
    measures = {"accuracy": 100.0 * correct / total, "total": total, "correct": correct, "macro_f1": 50.0}
    run = {"trainer": "CoOp", "dataset": "Folder", "source": "Folder", "shots": 16, "seed": 1, "epoch": 2}
    (folder / "results.json").write_text(json.dumps({**measures, **run, **results}))
    (folder / "config.yaml").write_text(f"DATASET:\n  ROOT: {json.dumps(str(root))}\n")
    names = list(classnames) or sorted({row[1] for row in rows})
    (folder / "classes.json").write_text(json.dumps({"classnames": names, "prompt_template": "a photo of a {}."}))
    (folder / "log.txt").write_text(log)
    return folder


def random_rows(n_classes, n_rows, seed=0):
    """Rows of a test on classes of unequal difficulty; every class has an image."""
    rng, rows = np.random.default_rng(seed), []
    for i in range(n_rows):
        label = i % n_classes
        others = [c for c in range(n_classes) if c != label]
        wrong, third = rng.choice(others[: 1 + label % 5 + 1], 2, replace=False)
        is_right = rng.random() < (label + 1) / (n_classes + 1)
        p = round(rng.uniform(1 / n_classes + 0.01, 1), 6)
        best, second = (label, wrong) if is_right else (wrong, rng.choice([label, third]))
        rank = 1 if is_right else 2 if second == label else 3
        names = [f"class {c:04d}" for c in (label, best, second)]
        rows.append([f"{i}.jpg", *names[:2], f"{p:.6f}", names[2], f"{rng.uniform(0, min(p, 1 - p)):.6f}", rank])
    return rows
