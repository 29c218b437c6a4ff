"""Tiny models that open_clip and transformers have written, through the whole of a run; tests/clip/backbones compares
what they compute, tests/trainers/test_other_backbones.py all methods."""

import re
import subprocess
import sys

import pytest
import torch
from PIL import Image

import export
import train
from engine.run.folder import read_results
from inference.classifier import Classifier
from tests.support.backbones import tiny_hf, tiny_open_clip
from tests.support.script_calls import ROOT
from tests.support.tiny_run import train_flags
from tests.support.tolerance import assert_near

PAIRS = ("USE_CUDA", "False", "OPTIM.MAX_EPOCH", "2", "DATALOADER.NUM_WORKERS", "0")
HF = {"clip": tiny_hf.save_clip, "siglip": tiny_hf.save_siglip, "chinese": tiny_hf.save_chinese_clip}
KINDS = [("open_clip", kind) for kind in ("vit", "siglip", "coca")] + [("hf", kind) for kind in HF]
CLOSED = {("open_clip", "coca"), ("hf", "chinese")}
IN_ANOTHER_PROCESS = {("open_clip", "siglip"), ("hf", "siglip")}  # of modules of timm, of transformers
LIBRARY = {"open_clip": "open_clip", "hf": "transformers"}


@pytest.fixture(params=KINDS, ids="-".join)
def model(request, tmp_path):
    """Library, kind, and the name that MODEL.BACKBONE.NAME has for a tiny model in a folder."""
    library, kind = request.param
    folder = tmp_path / "model"
    HF[kind](folder) if library == "hf" else tiny_open_clip.write_model(folder, kind)
    return library, kind, f"{library}:{folder}"


def assert_found_in_the_cache(words, folder):
    """Asserts that another process knows the image tower and encodes nothing again."""
    kept = files_in(folder / "features")
    again = [word.replace(str(folder / "run"), str(folder / "again")) for word in words]
    subprocess.run([sys.executable, "train.py", *again], cwd=ROOT, check=True, capture_output=True)
    assert kept and files_in(folder / "features") == kept
    assert read_results(folder / "again")["accuracy"] == read_results(folder / "run")["accuracy"]


def files_in(folder):
    return {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def run_page(folder):
    """Runs the lines of an exported page, which need nothing of ours, on photo.jpg; returns its logits."""
    lines = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[1]
    values = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(lines, values)
    return torch.from_numpy(values["logits"])


def test_it_trains_predicts_and_is_used_by_its_own_library(model, tiny_files, tmp_path):
    library, kind, name = model
    flags, paths = train_flags(tmp_path, tiny_files[0], name), sorted((tiny_files[0] / "test").glob("*/*.png"))
    pairs = [*PAIRS, "FEATURES.DIR", str(tmp_path / "features")]
    if (library, kind) in CLOSED:
        flags += ["--trainer=ZeroshotCLIP2", "--eval-only"]
        pairs += ["TRAINER.ZSCLIP.PREC", "fp32"]
    words = [*flags, f"--output-dir={tmp_path / 'run'}", *pairs]
    assert train.main(words) == 0
    results = read_results(tmp_path / "run")
    assert results["provenance"]["backbone"]["library"] == LIBRARY[library]
    if (library, kind) in IN_ANOTHER_PROCESS:
        assert_found_in_the_cache(words, tmp_path)
    classifier = Classifier.from_run(tmp_path / "run")
    logits = classifier.logits(paths)
    found = sum(classifier.classnames[i] == path.parent.name for i, path in zip(logits.argmax(dim=1), paths))
    assert found == results["correct"]
    for form in ("classifier", "onnx"):
        out = tmp_path / form
        assert export.main([str(tmp_path / "run"), "--out", str(out), "--format", form]) == 0
        (out / "model").symlink_to(tmp_path / "model")  # the page names no folder of the machine that wrote it
        Image.open(paths[0]).save(out / "photo.jpg", format="PNG")
        assert_near(run_page(out), logits[:1], 1e-4)
