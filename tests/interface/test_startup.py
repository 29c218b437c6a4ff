"""What a command imports: of what takes long, only what this call needs. Each test reads a process of its own."""

import json
import os
import subprocess
import sys

import pytest

from tests.support.script_calls import ROOT
from tests.support.tiny_run import train_flags

HEAVY = {"sklearn", "scipy", "matplotlib", "pandas", "tensorboard", "wandb", "onnx", "onnxruntime", "gradio", "ray"}
HEAVY |= {"transformers", "timm", "open_clip", "huggingface_hub", "gdown", "safetensors", "ftfy"}
STEPS = """
import json, sys

def imported(*names):
    return sorted({name.partition(".")[0] for name in sys.modules} & set(names))

heavy, words = json.loads(sys.argv[1])
found = {"before": imported("torch", *heavy)}
import train
found["train"] = imported(*heavy)
for name, more in words.items():
    assert train.main(more) == 0, name
    found[name] = imported(*heavy)
print(json.dumps(found))
"""


def imports_of(*words):
    """The packages that a command imports, from Python's own report."""
    done = subprocess.run([sys.executable, "-X", "importtime", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")]
    assert "argparse" in lines
    return {line.partition(".")[0] for line in lines}


@pytest.mark.parametrize("program", ["train", "sweep", "predict", "reproduce", "export", "demo", "report"])
def test_help_costs_no_torch(program):
    assert not imports_of(f"{program}.py", "--help") & ({"torch", "torchvision"} | HEAVY)


def test_a_run_imports_what_it_uses(tiny_files, tmp_path):
    """`tiny_files` have classes whose names ftfy need not repair."""
    data, clips = tiny_files
    flags = [*train_flags(tmp_path, data, clips["vit"]), f"--output-dir={tmp_path / 'run'}"]
    pairs = ["USE_CUDA", "False", "DATALOADER.NUM_WORKERS", "0", "OPTIM.MAX_EPOCH", "1", "FEATURES.DIR", ""]
    pairs += ["TEST.NO_TEST", "True"]
    words = {
        "built": [*flags, "--no-train", *pairs],
        "trained": [*flags, *pairs, "TRAIN.LOGGERS", "['csv']"],
        "tested": [*flags[:-1], f"--output-dir={tmp_path / 'tested'}", *pairs[:-2], "TRAIN.LOGGERS", "['csv']"],
        "with curves": [*flags[:-1], f"--output-dir={tmp_path / 'curves'}", *pairs, "TRAIN.LOGGERS", "['tensorboard']"],
    }
    argv = [sys.executable, "-c", STEPS, json.dumps([sorted(HEAVY), words])]
    done = subprocess.run(argv, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    nothing = dict.fromkeys(("before", "train", "built", "trained", "tested"), [])
    assert found == {**nothing, "with curves": ["tensorboard"]}
    assert json.loads((tmp_path / "tested" / "results.json").read_text())["temperature"] is not None


@pytest.mark.slow
def test_the_search_for_cycles_goes_on_when_a_run_begins_and_leaves_modules_out(tmp_path):
    """A plug-in is imported when the run begins."""
    plugin = tmp_path / "collector.py"
    plugin.write_text("import gc\nprint('collector', gc.isenabled(), gc.get_freeze_count() > 100_000)\n")
    argv = [sys.executable, "train.py", f"--plugin={plugin}"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert "collector True True" in done.stdout.splitlines(), done.stderr
