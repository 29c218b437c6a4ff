"""Benchmarks of reading, of the image tower, of a start and of threads."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from benchmarks import image_tower, loader, reading, startup, threads
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


@pytest.mark.parametrize("has_bfloat16", [True, False])
def test_image_tower(has_bfloat16, monkeypatch, tmp_path):
    monkeypatch.setattr(image_tower, "multiplies_bfloat16", lambda: has_bfloat16)
    for kind, name in (("rn", "RN50"), ("vit", "ViT-B/16")):
        monkeypatch.setitem(loader.TOWERS, name, lambda kind=kind: build_model(golden_state_dict(kind)).visual)
    words = ["--repeats", "2", "--batch-size", "3", "--json", str(tmp_path / "results.json")]
    image_tower.main(words)
    _, rows = rows_of(words)
    in_half = [row for row in rows if row["case"].endswith("bf16")]
    check_rows([row for row in rows if row not in in_half])
    ways = ["prepared", "bf16"] if has_bfloat16 or torch.cuda.is_available() else ["prepared"]
    assert [row["case"] for row in rows] == [f"{name}, {way}" for name in ("RN50", "ViT-B/16") for way in ways]
    for row in in_half:
        assert rounding_tolerance() < row["difference"] < 8 * torch.finfo(torch.bfloat16).eps
        assert float(row["note"].split()[-1]) > 0.999


def test_reading(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(loader.TOWERS, "RN50", lambda: build_model(golden_state_dict("rn")).visual)
    monkeypatch.setattr(reading, "TOWERS", ["RN50"])
    for name, size in (("SIZE", (64, 64)), ("IMAGE_SIZE", (80, 70)), ("PHOTO_SIZE", (640, 480))):
        monkeypatch.setattr(reading, name, size)
    reading.main(["--images", "3", "--workers", "1", "--repeats", "2", "--json", str(tmp_path / "results.json")])
    content, _ = rows_of(["--json", str(tmp_path / "results.json")])
    parts = ["bytes", "decoding", "test view", "random view", "loader, 1 workers", "both, RN50"]
    kinds = ["80 x 70", "640 x 480", "640 x 480, reduced"]
    measured = [row for row in content["rows"] if "part" in row]
    assert [(row["case"], row["part"]) for row in measured] == [("", "RN50"), *((k, p) for k in kinds for p in parts)]
    assert all(len(row["images_per_s"]) == 2 and min(row["images_per_s"]) > 0 for row in measured)
    assert [row["case"] for row in content["rows"] if "bound" in row] == kinds
    assert "640 x 480, reduced, RN50: " in capsys.readouterr().out


def test_reading_with_reduced_decoding_is_of_smaller_images_and_the_costlier_side_bounds(monkeypatch, tmp_path):
    photos = reading.Files(tmp_path / "photos", (2000, 1000), 1, reduced=True, n_workers=0)
    assert (photos.image.size, photos.image_of_random.size) == ((500, 250), (2000, 1000))
    monkeypatch.setattr(reading, "device", lambda: torch.device("cpu"))
    monkeypatch.setattr(reading, "n_cores", lambda: 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    rates = {"bytes": [1000.0], "decoding": [100.0, 1.0, 900.0], "test view": [500.0], "both, T": [25.0]}
    row = reading.bound(rates, "T", [50.0])  # 0.013 seconds of one core, half of that with two; the tower 0.02
    assert (row["bound"], row["reading"]) == ("the tower", pytest.approx(0.0065 / 0.0265))
    assert row["of_fastest"] == pytest.approx(25 * 0.0265)
    assert reading.bound(rates, "T", [400.0])["bound"] == "reading"
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # one core is left to reading, and waits
    row = reading.bound(rates, "T", [50.0])
    assert (row["reading"], row["of_fastest"]) == (pytest.approx(0.013 / 0.033), pytest.approx(25 * 0.02))


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
