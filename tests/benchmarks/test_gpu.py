"""`benchmarks.gpu` and its own parts on a CPU, in small: what they compute, write and say."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks import cocoop, equality, gpu, measure, short_run, text_encoder
from clip.model import CLIP, build_model, convert_weights
from clip.prompts import PromptEncoder
from tests.support.tiny_clip import golden_state_dict
from trainers.backbone import PRECISIONS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """The golden CLIP in place of the towers of 12 layers, on the CPU."""
    n_threads = torch.get_num_threads()

    def build_tower(embed_dim=0, prec="fp32"):
        clip_model = build_model(golden_state_dict("vit")).requires_grad_(False)
        convert_weights(clip_model, PRECISIONS[prec])
        return clip_model

    torch.set_num_threads(1)  # what is forked here cannot use the threads of this process
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(text_encoder, "build_text_tower", build_tower)
    monkeypatch.setitem(measure.MATMUL_SIZE, "cpu", 64)
    monkeypatch.chdir(ROOT)
    yield
    torch.set_num_threads(n_threads)


def written(path):
    [line] = path.read_text(encoding="utf-8").splitlines()
    return json.loads(line)["rows"]


def test_equality_holds_in_every_precision(tmp_path):
    assert equality.main(["--classes", "5", "--json", str(tmp_path / "all.json")]) == 0
    rows = written(tmp_path / "all.json")
    assert [row["case"] for row in rows] == [f"{case}, {prec}" for prec in ("fp32", "bf16") for case in equality.CASES]
    for row in rows:
        rounding = {"fp32": 2**-23, "bf16": 2**-8}[row["case"].split()[-1]]
        assert rounding / 30 < row["naive_error"] < 100 * rounding, row


def test_equality_sees_a_result_that_is_off(tmp_path, capsys, monkeypatch):
    encode = PromptEncoder.forward
    monkeypatch.setattr(PromptEncoder, "forward", lambda self, ctx, *deep: encode(self, ctx, *deep) + 1e-3 * ctx.sum())
    assert equality.main(["--classes", "3", "--prec", "fp32", "--json", str(tmp_path / "all.json")]) == 1
    assert not any(row["holds"] for row in written(tmp_path / "all.json"))
    assert capsys.readouterr().out.count("  !\n") == len(equality.CASES)


@pytest.mark.parametrize("trainer", ["CoOp", "CoCoOp"])
def test_a_short_run(tiny_files, tmp_path, monkeypatch, trainer):
    data, clips = tiny_files
    monkeypatch.setattr(short_run, "build_clip", lambda prec: CLIP(512, 48, 2, 64, 16, 77, 49408, 64, 1, 2))
    operations, count = [], short_run.count_flops
    monkeypatch.setattr(short_run, "count_flops", lambda step: operations.append(count(step)) or operations[0])
    monkeypatch.setattr(short_run, "matmul_rate", lambda prec: 1e9)
    words = ["--trainer", trainer, "--cfg", "tiny", "--steps", "2", "--repeats", "1", "--dataset", "folder"]
    words += ["--root", str(data), "--json", str(tmp_path / "all.json")]
    pairs = ["OPTIM.MAX_EPOCH", "2", "DATALOADER.NUM_WORKERS", "0", "DATALOADER.TRAIN_X.BATCH_SIZE", "4"]
    short_run.main([*words, *pairs])
    steps, whole = written(tmp_path / "all.json")
    assert steps["case"] == f"{trainer}, ViT-B/16, fp32, batch 4"
    assert steps["step_s"] > 0 and steps["step_in_memory_s"] > 0
    assert steps["of_matmul"] == pytest.approx(operations[0] / steps["step_in_memory_s"] / 1e9)
    assert 0 <= whole["accuracy"] <= 100 and whole["run_s"] > 0


def test_without_a_gpu_it_names_commands_that_exist(tmp_path, capsys):
    assert gpu.main(["--out", str(tmp_path / "out")]) == 0
    assert not (tmp_path / "out").exists()
    commands = re.findall(r"^  python -m benchmarks\.(\w+) ?(.*)$", capsys.readouterr().out, re.MULTILINE)
    assert len(commands) == len(gpu.PARTS)
    for name, words in commands:
        module = __import__(f"benchmarks.{name}", fromlist=["parse_args"])
        module.parse_args(words.replace("fp16", "fp32").split())  # a CPU has no fp16
    for path in (word for word in (*gpu.TESTS, *gpu.COMPILED_TESTS) if word.startswith("tests/")):
        assert "mark.gpu" in "".join(
            file.read_text() for file in [ROOT / path, *(ROOT / path).rglob("*.py")] if file.is_file()
        )


def test_the_tests_of_a_gpu_are_found():
    argv = [sys.executable, *gpu.COMPILED_TESTS, "--collect-only"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_part_that_has_time_is_done_and_the_others_are_named(tmp_path, monkeypatch, capsys):
    """On a GPU: parts that end well, that fail, that die, and one for which no time is left."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(measure, "device", lambda: torch.device("cpu"))
    monkeypatch.setattr(
        measure, "machine", lambda: {"processor": "P", "cores": 1, "GPU": "G", "torch": "T", "threads": 1}
    )
    monkeypatch.setattr(gpu, "TESTS", ("-c", "raise SystemExit(3)"))
    monkeypatch.setattr(gpu, "COMPILED_TESTS", ("-c", "pass"))
    monkeypatch.setattr(cocoop, "main", lambda words: os._exit(6))
    small_equality = ("--classes", "3", "--prec", "fp32")
    parts = [gpu.Part("dies", "cocoop", (), 0), gpu.Part("equality", "equality", small_equality, 0.1)]
    parts += [gpu.Part("absent", "no_such_module", (), 0)]
    monkeypatch.setattr(gpu, "PARTS", (*parts, gpu.Part("long", "equality", small_equality, 99)))
    for module in (text_encoder, cocoop, equality):
        monkeypatch.setattr(module, "device", measure.device)
    seen, publish = [], gpu.publish
    monkeypatch.setattr(gpu, "publish", lambda *args: (publish(*args), seen.append(len(args[-1]))))
    assert gpu.main(["--out", str(tmp_path / "out"), "--minutes", "30"]) == 1
    assert seen == [1, 2, 2, 3, 4, 4]  # written after each part, with what went wrong so far
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["equality.json", "tables.md"]
    page = (tmp_path / "out/tables.md").read_text(encoding="utf-8")
    assert page.startswith("## `equality`\n\nclasses 3, prec ['fp32']; G, P, T, ")
    assert page.count("| yes |") == len(equality.CASES)
    tests, dies, absent, long = page.partition("## Not done, or wrong\n\n")[2].splitlines()
    assert tests == "- tests: pytest ended with 3" and dies == "- dies: its process ended with 6"
    assert absent.startswith("- absent: ModuleNotFoundError: ")
    assert re.fullmatch(r"- long: left out: \d+\.\d minutes were left", long)
    assert "Written to" in capsys.readouterr().out


def test_a_part_that_hangs_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(short_run, "main", lambda words: time.sleep(600))
    said = gpu.run_part(gpu.Part("hangs", "short_run", (), 0), tmp_path, 0.01)
    assert said == "it took over 0.0 minutes"


def test_tables_have_the_columns_of_the_page(tmp_path):
    args = measure.argparse.Namespace(json=str(tmp_path / "some.json"), prec="fp16", classes=100)
    report = measure.Report("some", args, "Some title")
    report.compare("a case", [8.0, 9.0, 40.0], [1.0, 3.0, 4.0], flops=6e9, rates=[1e10] * 3, positions=(7700, 363))
    report.compare("ours alone", (), [0.5], difference=1e-6)
    report.memory("naive", 4.971, 21.9)
    report.write()
    page = gpu.tables(tmp_path)
    assert "| a case | 9.0000 | 3.0000 | 8.0 | 3.0 - 10.0 | 7,700 -> 363 | 20% | - |" in page
    assert "| ours alone | - | 0.5000 | - | - | - | - | 1.0e-06 |" in page
    assert "| naive | 4.97 | 21.90 |" in page
