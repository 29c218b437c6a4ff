"""The original's zsclip.py finds its lists of templates, runs on the data sets whose names it knows, and says which."""

import json
from pathlib import Path

import open_clip
import pytest

import train
from engine import DATASET_REGISTRY
from tests.support.tiny_run import write_clip, write_images
from trainers import imagenet_templates
from trainers.templates import IMAGENET_TEMPLATES_SELECT

# In the form of the original's file: the class attribute is the module's own list, and grows.
ZSCLIP = """
import torch

from dassl.engine import TRAINER_REGISTRY, TrainerX

from clip import clip
from clip.model import convert_weights

from .coop import load_clip_to_cpu
from .imagenet_templates import IMAGENET_TEMPLATES, IMAGENET_TEMPLATES_SELECT

CUSTOM_TEMPLATES = {"OxfordPets": "a photo of a {}, a type of pet.", "ImageNet": "a photo of a {}."}


@TRAINER_REGISTRY.register()
class ZeroshotCLIP(TrainerX):
    def build_model(self):
        cfg = self.cfg
        clip_model = load_clip_to_cpu(cfg).to(self.device)
        temp = CUSTOM_TEMPLATES[cfg.DATASET.NAME]
        prompts = [temp.format(c.replace("_", " ")) for c in self.dm.dataset.classnames]
        prompts = torch.cat([clip.tokenize(p) for p in prompts]).to(self.device)
        with torch.no_grad():
            text_features = clip_model.encode_text(prompts)
        self.text_features = text_features / text_features.norm(dim=-1, keepdim=True)
        self.clip_model = clip_model

    def model_inference(self, image):
        image_features = self.clip_model.encode_image(image)
        image_features = image_features / image_features.norm(dim=-1, keepdim=True)
        return self.clip_model.logit_scale.exp() * image_features @ self.text_features.t()


@TRAINER_REGISTRY.register()
class ZeroshotCLIP2(ZeroshotCLIP):
    templates = IMAGENET_TEMPLATES_SELECT

    def build_model(self):
        cfg = self.cfg
        clip_model = load_clip_to_cpu(cfg).to(self.device)
        for params in clip_model.parameters():
            params.requires_grad_(False)
        if cfg.DATASET.NAME != "ImageNet":
            self.templates += [CUSTOM_TEMPLATES[cfg.DATASET.NAME]]
        mean_text_features = 0
        for temp in self.templates:
            prompts = [temp.format(c.replace("_", " ")) for c in self.dm.dataset.classnames]
            prompts = torch.cat([clip.tokenize(p) for p in prompts]).to(self.device)
            text_features = clip_model.encode_text(prompts)
            text_features = text_features / text_features.norm(dim=-1, keepdim=True)
            mean_text_features = mean_text_features + text_features
        mean_text_features = mean_text_features / len(self.templates)
        self.text_features = mean_text_features / mean_text_features.norm(dim=-1, keepdim=True)
        self.clip_model = clip_model
"""


@pytest.fixture
def call(tmp_path, capsys):
    """call(trainer, dataset, output, plugin): what train.py prints as its error, and its results."""
    data, weights = write_images(tmp_path / "data"), write_clip(tmp_path / "clip.pt")
    (tmp_path / "zsclip.py").write_text(ZSCLIP)

    def run(trainer, dataset, output, *, plugin=True):
        (tmp_path / "data.yaml").write_text(f"DATASET: {{NAME: {dataset}}}\n")
        flags = [f"--trainer={trainer}", f"--root={data}", f"--backbone={weights}", "--seed=1", "--eval-only"]
        flags += [f"--dataset-config-file={tmp_path}/data.yaml", f"--output-dir={tmp_path / output}"]
        flags += [f"--plugin={tmp_path}/zsclip.py"] if plugin else []
        keys = "USE_CUDA False INPUT.SIZE (32,32) DATALOADER.NUM_WORKERS 0"
        train.main([*flags, *keys.split(), "FEATURES.DIR", ""])
        results = tmp_path / output / "results.json"
        return capsys.readouterr().err, json.loads(results.read_text()) if results.is_file() else None

    return run


@pytest.fixture
def pets(register):
    """The images as OxfordPets, whose prompt names the pet."""
    pets = DATASET_REGISTRY.get("OxfordPets").prompt_template
    cls = type("OxfordPets", (DATASET_REGISTRY.get("Folder"),), {"prompt_template": pets, "source_name": "OxfordPets"})
    register(DATASET_REGISTRY, cls)


@pytest.mark.parametrize("trainer", ["ZeroshotCLIP", "ZeroshotCLIP2"])
def test_it_measures_what_ours_does(call, pets, trainer):
    """Also the second time in one process: the list that it adds to is its own."""
    for output in ("first", "second"):
        _, found = call(trainer, "OxfordPets", output)
    _, ours = call(trainer, "OxfordPets", "ours", plugin=False)
    assert (found["accuracy"], found["macro_f1"]) == (ours["accuracy"], ours["macro_f1"])
    assert len(IMAGENET_TEMPLATES_SELECT) == 7


def test_a_data_set_that_its_table_lacks(call, tmp_path):
    line = 1 + ZSCLIP.splitlines().index("        temp = CUSTOM_TEMPLATES[cfg.DATASET.NAME]")
    err, results = call("ZeroshotCLIP", "Folder", "run")
    assert results is None
    [message] = [line for line in err.splitlines() if line.startswith("Error: ")]
    assert message == (
        f"Error: {tmp_path}/zsclip.py, line {line}: KeyError: Folder. The data set Folder has no entry in the table "
        'CUSTOM_TEMPLATES: add one, such as "Folder": "a photo of a {}.". The traceback is in log.txt.'
    )
    assert "Traceback" in Path(tmp_path / "run/log.txt").read_text()


def test_the_lists_are_those_of_clips_authors():
    found = [template.format("cat") for template in imagenet_templates.IMAGENET_TEMPLATES]
    assert found == [template("cat") for template in open_clip.OPENAI_IMAGENET_TEMPLATES]
    assert imagenet_templates.IMAGENET_TEMPLATES_SELECT == list(IMAGENET_TEMPLATES_SELECT)
