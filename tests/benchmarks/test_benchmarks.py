"""Both sides of every benchmark compute the same, count what they compute, and are written to the file of --json."""

import argparse
import copy
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks import (
    checkpoints,
    cocoop,
    deep_prompts,
    evaluation,
    image_tower,
    loader,
    measure,
    memory,
    parts,
    runs,
    startup,
    sweep,
    text_encoder,
    threads,
    train_run,
)
from clip.model import build_model
from engine.config.flags import parse_args, setup_cfg
from tests.support.backbones.tiny_open_clip import write_model
from tests.support.naive import naive_features
from tests.support.tiny_clip import golden_images, golden_state_dict
from tests.support.tiny_run import build_trainer, tiny_cfg
from tests.support.tolerance import EPS, EXACT, FACTOR, assert_near, distance, rounding_tolerance
from tests.trainers.in_towers.by_hand import pairs_of

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["INPUT.SIZE", "(64, 64)", "DATALOADER.NUM_WORKERS", "0", "USE_CUDA", "False"]
SMALL += ["DATALOADER.TRAIN_X.BATCH_SIZE", "4", "DATALOADER.TEST.BATCH_SIZE", "4", "OPTIM.MAX_EPOCH", "8"]


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    """Small and in this process: importing torch in another takes seconds."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # float32 sums in one order: with more threads it changes from call to call
    torch.manual_seed(0)
    monkeypatch.setattr(measure, "ProcessPoolExecutor", lambda n, mp_context: ThreadPoolExecutor(n))
    monkeypatch.setattr(parts, "import_time", lambda: 2.0)
    monkeypatch.setitem(measure.MATMUL_SIZE, "cpu", 64)
    monkeypatch.chdir(ROOT)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture
def small_tower(monkeypatch):
    """The golden CLIP in place of the towers of 12 layers."""

    def build_tower(*_, **__):
        return build_model(golden_state_dict("vit")).requires_grad_(False)

    for module in (text_encoder, cocoop):
        monkeypatch.setattr(module, "build_text_tower", build_tower)
    monkeypatch.setattr(deep_prompts, "build_clip", build_tower)
    monkeypatch.setattr(deep_prompts, "DEPTH", 2)  # its image tower has two blocks


@pytest.fixture
def run_words(tiny_files, tmp_path):
    """Arguments of a benchmark of whole runs, on the tiny folder."""
    data, clips = tiny_files
    flags = ["--root", data, "--dataset", "folder", "--backbone", clips["rn"], "--repeats", 1, "--test-batches", 2]
    return [str(word) for word in [*flags, "--json", tmp_path / "all" / "results.json"]]


@pytest.fixture
def run_args(run_words):
    """The arguments as `train_run` reads them: two shots of three classes in batches of 4."""
    return train_run.parse_args([*run_words, "DATASET.NUM_SHOTS", "2", *SMALL])


def rows_of(words):
    """What the benchmark called with these words wrote: its content, and the rows that compare two sides."""
    path = Path(words[words.index("--json") + 1])
    [line] = path.read_text().splitlines()
    content = json.loads(line)
    assert {"benchmark", "date", "processor", "cores", "GPU", "torch", "threads", "settings"} <= content.keys()
    assert all(row["peak_gb"] > 0 for row in content["rows"] if "peak_gb" in row)
    return content, [row for row in content["rows"] if "ratios" in row]


@pytest.fixture
def exact_sides(small_tower, monkeypatch):
    """A list that receives the sides that a benchmark of the text tower builds, each with the same in float64."""
    pairs = []

    def both(build, clip_model, *args, **options):
        sides = build(clip_model, *args, **options)
        exact = build(copy.deepcopy(clip_model).double(), *args, **options)
        exact.learner.double().load_state_dict(sides.learner.state_dict())
        for name in {"features", "weight"} & vars(sides).keys():
            setattr(exact, name, getattr(sides, name).double())
        pairs.append((sides, exact))
        return sides

    for module in (text_encoder, memory, cocoop, deep_prompts):
        monkeypatch.setattr(module, "Sides", partial(both, module.Sides))
    return pairs


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


def test_text_encoder(exact_sides, tmp_path, capsys):
    words = ["--classes", "3", "--many-classes", "5", "--repeats", "2", "--json", str(tmp_path / "results.json")]
    text_encoder.main(words)
    content, rows = rows_of(words)
    check_exact(exact_sides, rows)
    assert (content["benchmark"], content["settings"]["classes"]) == ("text_encoder", 3)
    positions = {row["case"]: row["positions"] for row in rows}
    # face, leopard, motorbike: a name, a full stop and an end token behind 16 vectors
    assert positions["unified, end"][0] == 3 * 77
    assert positions["class-specific, end"][1] - positions["unified, end"][1] == 2 * 16
    assert rows[-1]["naive_s"] == rows[-1]["ratios"] == []
    assert len(rows[0]["naive_s"]) == len(rows[0]["ours_s"]) == 2
    printed = capsys.readouterr().out
    assert all(row["case"] in printed for row in content["rows"])


def test_text_encoder_of_a_tower_of_open_clip(tmp_path, capsys):
    """The naive side is open_clip's own module: in float64 both sides are equal."""
    write_model(tmp_path / "model", "wide-heads")
    backbone = f"open_clip:{tmp_path / 'model'}"
    words = f"--classes 2 --many-classes 3 --repeats 1 --backbone {backbone} --json {tmp_path / 'all.json'}".split()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_encoder, "N_CTX", 4)  # the tower takes 16 tokens
        text_encoder.main(words)
        clip_model, naive = text_encoder.build_both(backbone, "fp32")
        assert type(naive.text).__module__ == "open_clip.transformer"
        sides = text_encoder.Sides(clip_model.double(), 2, encode_naively=naive.double())
        sides.learner.double()
        assert_near(sides.our_step(), sides.naive_step(), EXACT)
    _, rows = rows_of(words)
    check_rows(rows)
    assert rows[0]["positions"] == [2 * 16, 4 + 2 * 3]
    assert f"{backbone}'s text tower" in capsys.readouterr().out


def test_cocoop(exact_sides, tmp_path, capsys):
    words = ["--classes", "2", "--tested", "5", "--many-classes", "3", "--repeats", "1"]
    words += ["--json", str(tmp_path / "results.json")]
    cocoop.main(words)
    _, rows = rows_of(words)
    check_exact(exact_sides, rows)
    assert [row["positions"][0] for row in rows] == [2 * 77, 4 * 2 * 77, 5 * 4 * 77]
    assert rows[2]["note"] == "the naive side extrapolated from 4 images"
    assert rows[2]["note"] in capsys.readouterr().out


def test_deep_prompts(exact_sides, tmp_path, capsys):
    words = ["--classes", "3", "--images", "2", "--repeats", "2", "--json", str(tmp_path / "results.json")]
    deep_prompts.main(words)
    content, rows = rows_of(words)
    check_rows(rows)
    check_exact(exact_sides, rows[:3])
    parts = ["text forward", "image forward", "loss", "text backward", "image backward", "optimiser"]
    with_frozen = [*parts[:2], "frozen image forward", *parts[2:]]
    assert [row["case"] for row in rows] == [
        *(f"{method}, text" for method in ("MaPLe", "PromptSRC", "TCP")),
        *(f"MaPLe, {part}" for part in ("step", *parts, "checkpointed")),
        *(f"PromptSRC, {part}" for part in ("step", *with_frozen, "checkpointed")),
    ]
    # face, leopard, motorbike: a name, a full stop and an end token, behind "a photo of a" or four vectors of each
    assert [row["positions"] for row in rows[:3]] == [[3 * 77, n] for n in (4 + 3 * 3, 4 + 3 * 3, 3 * (4 + 3))]
    step, *its_parts = rows[3:10]
    for side in ("naive_s", "ours_s"):
        assert [sum(seconds) for seconds in zip(*(row[side] for row in its_parts))] == pytest.approx(step[side])
    peaks = [row["case"] for row in content["rows"] if "peak_gb" in row]
    assert peaks == [f"{name}, {side}" for name in ("MaPLe", "PromptSRC") for side in ("naive", "ours", "checkpointed")]
    assert "times our step as it is" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["MaPLe", "PromptSRC"])
def test_the_measured_step_is_the_trainers(small_tower, tiny_files, tmp_path, monkeypatch, name):
    """From the same vectors and images: the gradients that the trainer gets, also in float64 and with checkpointing."""
    options = ("N_CTX_TEXT", 4, "N_CTX_VISION", 4) if name == "PromptSRC" else ()
    trainer = build_trainer(tiny_cfg(tiny_files[0], tiny_files[1]["vit"], tmp_path, *pairs_of(name, *options)))
    monkeypatch.setattr(deep_prompts, "classnames", lambda n: trainer.dm.dataset.classnames[:n])
    learner, images = trainer.model.prompt_learner, golden_images("vit")[:3]
    trainer.forward_backward({"img": images, "label": torch.arange(3)})
    expected = [parameter.grad.clone() for parameter in learner.parameters()]
    start = build_trainer(tiny_cfg(tiny_files[0], tiny_files[1]["vit"], tmp_path, *pairs_of(name, *options)))
    values = dict(start.model.prompt_learner.named_parameters())
    for dtype, checkpointed in ((torch.float32, False), (torch.float32, True), (torch.float64, False)):
        sides = deep_prompts.Sides(deep_prompts.build_clip("fp32").to(dtype), name, 3)
        sides.learner.to(dtype).load_state_dict(values, strict=False)
        step = deep_prompts.Step(sides, 3, checkpointed=checkpointed)
        step.images = images
        if name == "PromptSRC":
            step.anchors = trainer.zero_shot_features.to(dtype)
        found = [step.gradient(side).clone() for side in ("ours", "naive")]
        assert_near(found[0], torch.cat([gradient.flatten() for gradient in expected]))
        assert_near(*found, EXACT if dtype == torch.float64 else None)


def test_checkpoints(tiny_files, tmp_path, capsys):
    data, clips = tiny_files
    words = "--shots 1 --repeats 1 --steps 20 --seconds 10 --json".split() + [str(tmp_path / "results.json")]
    pairs = ["DATASET.NAME", "Folder", "DATASET.ROOT", str(data), "MODEL.BACKBONE.NAME", str(clips["vit"])]
    checkpoints.main([*words, *pairs, *SMALL, "INPUT.SIZE", "(32, 32)", "DATALOADER.TRAIN_X.BATCH_SIZE", "1"])
    content, [row] = rows_of(words)
    assert row["note"].startswith("3 steps; a write takes ") and ", one in 10 s is " in row["note"]
    early, late = content["rows"][1:]
    assert (early["case"], late["case"]) == ("after 3 steps", "after 21 steps")
    assert 0 < late["resident_gb"] < early["resident_gb"] + 0.1
    assert late["case"] in capsys.readouterr().out


def test_evaluation(run_words, capsys):
    evaluation.main([*run_words, *SMALL])
    _, [first, again] = rows_of(run_words)
    check_rows([first, again])
    assert first["images"] == [8, 8] and again["images"] == [8, 0]
    assert first["positions"][0] == 2 * 3 * 77  # two batches
    assert "all 9 images, extrapolated" in first["note"]
    assert "images encoded: 8 -> 0" in capsys.readouterr().out


def test_train_run(run_words):
    train_run.main([*run_words, "--views", "3", "OPTIM.WARMUP_EPOCH", "-1", *SMALL])
    _, rows = rows_of(run_words)
    check_rows(rows)
    fresh, views = rows[-2:]
    assert (fresh["case"], views["case"]) == ("fresh views", "INPUT.VIEWS 3")
    # three seeds of 8 epochs with one batch of three images, and nine test images in three batches
    assert fresh["images"] == [3 * (8 * 3 + 9), 3 * 8 * 3 + 9]
    assert views["images"] == [3 * (8 * 3 + 9), 3 * 3 * 3 + 9]
    assert fresh["positions"][0] == 3 * (8 + 3) * 3 * 77


def test_sweep(run_words):
    sweep.main(["--shots", "1", "4", "--seeds", "1", "2", *run_words, "--views", "3", *SMALL])
    _, rows = rows_of(run_words)
    check_rows(rows)
    # of two seeds each: one batch of three images, three batches of four
    assert rows[-1]["case"] == "4 runs, INPUT.VIEWS 3"
    assert rows[-1]["images"] == [2 * 8 * (3 + 12) + 4 * 9, 2 * 3 * (3 + 12) + 9]
    assert rows[-1]["positions"][0] == (2 * 8 * (1 + 3) + 4 * 3) * 3 * 77


def test_memory(exact_sides, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(memory, "build_text_tower", text_encoder.build_text_tower)
    words = ["--classes", "30", "--chunks", "60", "30", "--repeats", "1", "--json", str(tmp_path / "results.json")]
    memory.main(words)
    content, rows = rows_of(words)
    check_exact(exact_sides, rows)
    assert [row["case"] for row in content["rows"][:3]] == ["all at once", "CHUNK_ROWS 60", "CHUNK_ROWS 30"]
    assert [row["case"] for row in content["rows"][3:]] == ["CHUNK_ROWS 0", "CHUNK_ROWS 60", "CHUNK_ROWS 30"]
    assert capsys.readouterr().out.count(" times as long") == 2


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
    monkeypatch.setattr(threads.subprocess, "Popen", lambda argv: alive.append(start(argv)) or alive[-1])
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.setattr(threads, "step_s", lambda folder, n: float(1 + n * (1 + sum(p.poll() is None for p in alive))))
    words = ["--repeats", "1", "--steps", "2", "--neighbours", "1", "3", "--json", str(tmp_path / "results.json")]
    threads.main(words)
    _, rows = rows_of(words)
    assert policies == [None, "PASSIVE"]
    assert [row["ours_s"] for row in rows] == [row["naive_s"] for row in rows] == [[3.0], [5.0], [9.0]]
    assert rows[2]["note"] == "by the seconds without neighbours: naive 3.0, ours 3.0"
    assert all(process.poll() is not None for process in alive) and len(alive) == 4


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


def test_the_grid_has_the_papers_epochs(run_words, tmp_path):
    words = ["--shots", "1", "2", "4", "--seeds", "1", *run_words, *SMALL[:-2]]
    assert {run.n_epochs for run in sweep.grid(sweep.parse_args(words), tmp_path)} == {50, 100}


def test_the_naive_run_is_the_formula(run_args, tmp_path):
    trainer = runs.build_run(run_args, tmp_path)
    naive, ctx = runs.NaiveRun(trainer), trainer.model.prompt_learner.ctx
    clip_model = build_model(golden_state_dict("rn"))
    naive.test()
    images = torch.cat([batch["img"] for batch in trainer.test_loader])
    texts = naive_features(clip_model, ctx, trainer.dm.dataset.classnames, "end")
    expected = (
        clip_model.logit_scale.exp()
        * F.normalize(clip_model.encode_image(images), dim=-1)
        @ F.normalize(texts, dim=-1).t()
    )
    assert_near(naive.logits, expected)


def test_what_runs_take_is_added_up_from_their_parts():
    seconds = [np.array([first, 10.0 * first]) for first in (100.0, 20.0, 21.0, 2.0, 300.0, 200.0, 1.0)]
    measured = parts.Parts(*seconds, 5.0, parts.Run(50, 3, 96, 100), (7700, 363), (2465, 25))
    seeds, grid = [measured.run] * 3, [parts.Run(50, 3, 96, 100), parts.Run(200, 6, 192, 220)]
    assert measured.naive_time(seeds).tolist() == [3 * (5 + 50 * 100 + 300), 3 * (5 + 50 * 1000 + 3000)]
    assert measured.our_time(seeds, views=0, start_s=15.0)[0] == 15 + 3 * 50 * 20 + 200 + 2 * 1
    assert measured.our_time(seeds, views=8, start_s=15.0)[0] == 15 + 3 * (8 * 21 + 50 * 2) + 200 + 2 * 1
    assert measured.our_time(seeds, views=99, start_s=15.0)[0] == 15 + 3 * 50 * (21 + 2) + 200 + 2 * 1
    assert measured.naive_time(grid)[0] == 2 * (5 + 300) + 50 * 100 + 200 * 2 * 100
    views_s, epochs_s = 8 * (1 + 2.2) * 21, (50 + 200 * 2) * 2  # by images, by batches
    assert measured.our_time(grid, views=8, start_s=6.0)[0] == pytest.approx(6 + views_s + epochs_s + 200 + 1)
    assert measured.all_positions(grid) == (7700 * (150 + 1200 + 2 * 25), 363 * (150 + 1200 + 2))


def test_operations_are_those_of_the_formula():
    """Linear layers forward and backward to the input, of the last layer only what the end tokens need."""
    clip_model, width, n_layers, embed_dim = build_model(golden_state_dict("vit")).requires_grad_(False), 64, 3, 32
    sides = text_encoder.Sides(clip_model, 6)
    n_rows = sides.positions[1]
    full_layers = (n_layers - 1) * n_rows * 12 * width**2
    last_layer = n_rows * 2 * width**2 + 6 * (10 * width**2 + width * embed_dim)
    expected = 2 * 2 * (full_layers + last_layer)
    counted = measure.count_flops(sides.our_step)
    assert expected < counted < 1.1 * expected  # attention's own come on top


def test_a_report_shows_median_and_spread_and_is_appended(tmp_path, capsys):
    args = argparse.Namespace(json=tmp_path / "new" / "results.json", repeats=3)
    for _ in range(2):
        report = measure.Report("some", args, "Some title")
        report.compare("a case", [8.0, 9.0, 40.0], [1.0, 3.0, 4.0], flops=6e9, rates=[1e10] * 3, positions=(7700, 363))
        report.write()
    one, two = (json.loads(line) for line in args.json.read_text().splitlines())
    assert one["rows"] == two["rows"] and one["rows"][0]["ratios"] == [8, 3, 10]
    line = capsys.readouterr().out.splitlines()[-1].split()
    assert line[2:8] == ["9.00", "3.000", "8.0", "3.0", "-", "10.0"]
    assert line[8:] == ["7,700", "->", "363", "20%", "-"]


def test_the_page_has_a_command_for_every_benchmark():
    page = (ROOT / "BENCHMARKS.md").read_text(encoding="utf-8")
    commands = re.findall(r"^python -m benchmarks\.(\w+) ?(.*?)(?: +#.*)?$", page, re.MULTILINE)
    files = {path.stem for path in (ROOT / "benchmarks").glob("*.py") if "__main__" in path.read_text()}
    assert {name for name, _ in commands} == files
    for name, words in commands:
        import_module(f"benchmarks.{name}").parse_args(words.split())
