"""Benchmarks of reading, of the image tower, of a start and of threads."""

import os
from concurrent.futures import ThreadPoolExecutor

import torch

from benchmarks import image_tower, loader, startup, threads
from clip.model import build_model
from engine.config.flags import parse_args, setup_cfg
from tests.benchmarks.checks import check_rows, rows_of
from tests.support.tiny_clip import golden_state_dict
from tests.support.tolerance import rounding_tolerance


def test_loader(monkeypatch, tmp_path):
    monkeypatch.setattr(loader, "ProcessPoolExecutor", lambda n, mp_context: ThreadPoolExecutor(n))
    monkeypatch.setattr(loader, "IMAGE_SIZE", (50, 40))
    for kind, name in (("rn", "RN50"), ("vit", "ViT-B/16")):
        monkeypatch.setitem(loader.TOWERS, name, lambda kind=kind: build_model(golden_state_dict(kind)).visual)
    words = ["--images", "3", "--repeats", "1", "--json", str(tmp_path / "results.json")]
    loader.main(words)
    _, rows = rows_of(words)
    check_rows(rows)
    assert [row["case"] for row in rows] == [
        "an epoch of 3 files", "RN50, memory kept", "RN50, channels last", "RN50, both", "ViT-B/16, both",
    ]  # fmt: skip
    assert rows[0]["difference"] == 0


def test_image_tower(monkeypatch, tmp_path):
    for kind, name in (("rn", "RN50"), ("vit", "ViT-B/16")):
        monkeypatch.setitem(loader.TOWERS, name, lambda kind=kind: build_model(golden_state_dict(kind)).visual)
    words = ["--repeats", "2", "--batch-size", "3", "--json", str(tmp_path / "results.json")]
    image_tower.main(words)
    _, rows = rows_of(words)
    prepared, in_half = rows[::2], rows[1::2]
    check_rows(prepared)
    assert [row["case"] for row in rows] == ["RN50, prepared", "RN50, bf16", "ViT-B/16, prepared", "ViT-B/16, bf16"]
    for row in in_half:
        assert rounding_tolerance() < row["difference"] < 8 * torch.finfo(torch.bfloat16).eps
        assert float(row["note"].split()[-1]) > 0.999


def test_startup(monkeypatch, capsys):
    monkeypatch.setattr(startup, "cpu_s", lambda argv: 2.0 if "-c" in argv else 0.1 if "--help" in argv else 3.0)
    startup.main(["--repeats", "2"])
    lines = [line.partition(" s of a core, ratio ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [float(line.split()[-1]) for line, _, _ in lines] == [2.0, 0.1, 3.0, 3.0]
    assert [ratio for _, _, ratio in lines] == ["1.00 (1.00 - 1.00)", "0.05 (0.05 - 0.05)", *["1.50 (1.50 - 1.50)"] * 2]


def test_startup_counts_the_seconds_of_a_process_and_runs_one_step(tmp_path):
    burn = "import os, time\nos.fork()\nwhile time.process_time() < 0.2: pass\ntry: os.wait()\nexcept OSError: pass"
    assert startup.cpu_s(["-c", burn]) >= 2 * 0.2
    cfg = setup_cfg(parse_args(startup.run_words(tmp_path)))
    n_items, size = 96 * cfg.DATASET.NUM_SHOTS, cfg.DATALOADER.TRAIN_X.BATCH_SIZE
    assert (n_items // size, cfg.OPTIM.MAX_EPOCH, cfg.TRAINER.NAME) == (1, 1, "CoOp")


def test_threads(monkeypatch, tmp_path, capsys):
    """Alone and beside a process that counts, with how threads wait set for our side alone."""
    policies, alive = [], []

    def pool(n, mp_context):
        policies.append(os.environ.get("OMP_WAIT_POLICY"))
        return ThreadPoolExecutor(n)

    monkeypatch.setattr(threads, "ProcessPoolExecutor", pool)
    start = threads.subprocess.Popen
    monkeypatch.setattr(threads.subprocess, "Popen", lambda argv, **how: alive.append(start(argv, **how)) or alive[-1])
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.setattr(threads, "step_s", lambda folder, n: float(1 + n * (1 + sum(p.poll() is None for p in alive))))
    words = ["--repeats", "1", "--steps", "2", "--neighbours", "1", "3", "--json", str(tmp_path / "results.json")]
    threads.main(words)
    _, rows = rows_of(words)
    assert policies == [None, "PASSIVE"]
    assert [row["ours_s"] for row in rows[:3]] == [row["naive_s"] for row in rows[:3]] == [[3.0], [5.0], [9.0]]
    slower = [(row["case"], row["median"], row["quartiles"]) for row in rows[3:]]
    of_one, of_three = (5 / 3, [5 / 3, 5 / 3]), (3.0, [3.0, 3.0])
    assert slower[:2] == [("naive: beside 1 by alone", *of_one), ("ours: beside 1 by alone", *of_one)]
    assert slower[2:] == [("naive: beside 3 by alone", *of_three), ("ours: beside 3 by alone", *of_three)]
    assert all(process.poll() is not None for process in alive) and len(alive) == 4
