"""CONTRIBUTING.md does what it says: its files are put into a copy of the project, and its commands work there."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from clip.clip import tokenize
from engine.config.plugins import plugins
from tests.support.tiny_run import build_trainer, tiny_cfg, write_clip, write_images
from tests.support.tolerance import assert_near

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
RULES = ("tests/interface/test_configs.py", "tests/interface/test_imports.py")  # the tests that look at every file
# Tests that look at what the project documents, and tests over everything that is registered
SUITE = [f"tests/interface/test_{name}.py" for name in ("configs", "contributing", "datasets_page", "protocols")]
CONFORMANCE = "tests/trainers/test_conformance.py -k TaskRes"  # ... of which those of the added trainer
SMALL = "INPUT.SIZE '(32, 32)' OPTIM.MAX_EPOCH 1 DATALOADER.NUM_WORKERS 0 DATALOADER.TRAIN_X.BATCH_SIZE 4"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project with the page's files in it."""
    copy = tmp_path_factory.mktemp("project")
    folders = ("clip", "configs", "dassl", "datasets", "engine", "inference", "reports", "scripts", "tests", "trainers")
    for name in folders:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (*(path.name for path in ROOT.glob("*.py")), "pyproject.toml", "CONTRIBUTING.md", "DATASETS.md"):
        shutil.copy(ROOT / name, copy / name)
    files = re.findall(r"^`([\w/.]+)`:\n\n```\w+\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert [Path(name).name for name, _ in files] == ["taskres.py", "rn50.yaml", "my_birds.py", "my_birds.yaml"]
    for name, text in files:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text(text, encoding="utf-8")
    return copy


def commands_after(title):
    """The last shell block of a section, its lines joined at backslashes."""
    section = PAGE.split(f"## {title}\n")[1].split("\n## ")[0]
    return re.findall(r"```bash\n(.*?)```", section, re.DOTALL)[-1].replace("\\\n", " ").strip().splitlines()


def call(command, project, **environment):
    command = command.replace("python ", f"{sys.executable} ", 1)
    return subprocess.run(
        ["bash", "-c", command],
        cwd=project,
        env={**os.environ, "PYTHONPATH": "", "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_the_added_files_follow_the_rules(project):
    done = call(f"python -m pytest -vv -p no:xdist -k 'taskres or my_birds or TaskRes' {' '.join(RULES)}", project)
    assert done.returncode == 0, done.stdout
    for name in ("TaskRes/rn50", "trainers/taskres.py", "datasets/my_birds.py"):
        assert f"[{name}] PASSED" in done.stdout


@pytest.mark.slow
def test_with_the_added_files_the_suite_passes(project):
    quick = "not slow and not real_data and not robust"
    for tests in (f"{' '.join(SUITE)} -m '{quick}'", f"{SUITE[1]} -k added_files_follow", CONFORMANCE):
        done = call(f"python -m pytest -q -p no:xdist {tests}", project)
        assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_add_a_trainer(project, tmp_path):
    [command] = commands_after("Add a trainer")
    data, backbone = write_images(tmp_path / "data"), write_clip(tmp_path / "clip.pt")
    command = command.replace("caltech101.yaml", "folder.yaml").replace("NUM_SHOTS 16", "NUM_SHOTS 2")
    command = f"{command} MODEL.BACKBONE.NAME {backbone} INPUT.VIEWS 2 FEATURES.DIR {tmp_path}/features {SMALL}"
    done = call(command, project, DATA=str(data))
    assert done.returncode == 0, done.stderr
    results = json.loads((project / "output/taskres/results.json").read_text())
    assert results["trainer"] == "TaskRes"
    assert results["total"] == 9
    assert (project / "output/taskres/prompt_learner/model.pth.tar-1").is_file()
    assert n_features(tmp_path / "features") == 6 + 9 + 6  # views to train on, test images, selection images


def n_features(folder):
    """How many a cache holds."""
    return sum(len(np.load(path)["keys"]) for path in folder.rglob("*.npz"))


def test_the_trainer_computes_its_formula_from_features_as_from_images(tiny_files, tmp_path):
    [text] = re.findall(r"^`trainers/taskres.py`:\n\n```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    path = tmp_path / "taskres.py"
    path.write_text(text.replace("from .", "from trainers."), encoding="utf-8")
    data, clips = tiny_files
    with plugins([str(path)]):
        pairs = ("TRAINER.NAME", "TaskRes", "TRAINER.TASKRES.PREC", "fp32", "FEATURES.DIR", str(tmp_path / "features"))
        trainer = build_trainer(tiny_cfg(data, clips["vit"], tmp_path / "run", *pairs))
    images = torch.cat([batch["img"] for batch in trainer.test_loader])
    with torch.no_grad():
        residual = trainer.model.prompt_learner.residual.normal_()
        prompts = tokenize([f"a photo of a {name}." for name in ("face", "leopard", "wine bottle")])
        texts, features = (
            trainer.clip_model.encode_text(prompts) + 0.5 * residual,
            trainer.clip_model.encode_image(images),
        )
        cosines = F.cosine_similarity(features[:, None], texts[None], dim=-1)
        expected = trainer.clip_model.logit_scale.exp() * cosines
        found = torch.cat([logits for logits, _ in trainer.predictions("test")])
        assert_near(found, expected)
        assert_near(trainer.model_inference(images), expected)
    assert len(trainer.features.caches) == 1


def write_birds(images):
    """Writes the eight images of my_birds; returns the content of their split file."""
    images.mkdir(parents=True)
    split = {"train": [], "val": [], "test": []}
    for name, n_items in (("train", 4), ("val", 2), ("test", 2)):
        for i in range(n_items):
            Image.new("RGB", (40, 40), (50 * i, 200 * (i % 2), 0)).save(images / f"{name}{i}.png")
            split[name].append([f"{name}{i}.png", i % 2, ("robin", "blue_tit")[i % 2]])
    return split


@pytest.mark.slow
def test_add_a_data_set(project, tmp_path):
    """As the page says how it is fetched, checked and trained on."""
    [facts] = re.findall(r"^```python\n(    \w+ = .*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    module = project / "datasets" / "my_birds.py"
    text = module.read_text(encoding="utf-8").replace("FewShotDataset\n", "FewShotDataset, RemoteFile\n")
    module.write_text(text + facts, encoding="utf-8")
    given, packed, data = tmp_path / "given", tmp_path / "packed", tmp_path / "data"
    given.mkdir()
    (given / "split_my_birds.json").write_text(json.dumps(write_birds(packed / "birds" / "photos")))
    shutil.make_archive(given / "my_birds", "zip", packed)
    [prepare] = re.findall(r"`(python -m datasets.prepare my_birds)`", PAGE)
    check, main = commands_after("Add a data set")
    main = f"{main.replace('16 1 False', '2 1 False')} MODEL.BACKBONE.NAME {write_clip(tmp_path / 'clip.pt')} {SMALL}"
    for command in (f"{prepare} --from {given}", check, main):
        done = call(command, project, DATA=str(data), SEEDS="1")
        assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((data / "my_birds" / "images").iterdir())) == 8
    [results] = project.glob("output/my_birds/CoOp/*/*/seed1/results.json")
    assert json.loads(results.read_text())["total"] == 2
