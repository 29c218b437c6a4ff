"""`export.py --format clip`: CLIP with what was learned in its weights, read by this project and by open_clip."""

import json
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

import export
from clip.clip import load, tokenize
from engine import load_checkpoint
from inference.classifier import Classifier
from tests.support.tiny_clip import TEXT, VISION, golden_images, golden_state_dict
from tests.support.tiny_run import CLASSES, run_train, tiny_cfg
from tests.support.tolerance import assert_near

PROMPT = "a photo of a {}."
ARCHITECTURE = {  # of the golden CLIP, as open_clip describes one
    "embed_dim": 32,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": TEXT["vocab_size"], "width": 64, "heads": 1, "layers": 3},
}
OPTIONS = ("TRAINER.NAME", "CLIPLoRA", "FEATURES.DIR", "", "OPTIM.LR", 1.0, "TRAINER.CLIPLORA.DROPOUT_RATE", 0.0)
OPTIONS += ("TRAINER.CLIPLORA.PREC", "fp32")


@pytest.fixture(scope="module", params=["both", "text", "vision"])
def merged(request, tiny_files, tmp_path_factory):
    """The classifier of a run of CLIP-LoRA, and the folder of its CLIP, beside that of the run."""
    folder = tmp_path_factory.mktemp(request.param)
    pairs = ("TRAINER.CLIPLORA.ENCODER", request.param)
    cfg = tiny_cfg(tiny_files[0], tiny_files[1]["vit"], folder / "run", *OPTIONS, *pairs)
    run_train(cfg)
    assert export.main([cfg.OUTPUT_DIR, "--out", str(folder / "clip"), "--format", "clip"]) == 0
    return Classifier.from_run(cfg.OUTPUT_DIR), folder / "clip"


def test_zero_shot_it_gives_the_logits_of_the_run(tiny_files, merged):
    classifier, folder = merged
    expected, merged, plain = (
        made.trainer.model_inference(golden_images("vit")).detach()
        for made in (classifier, *(zero_shot(path) for path in (folder / "clip.safetensors", tiny_files[1]["vit"])))
    )
    assert_near(merged, expected)
    assert not torch.allclose(plain, expected, rtol=1e-2)


def zero_shot(path):
    return Classifier.zero_shot(path, CLASSES, PROMPT)


def test_the_weights_are_the_changes_by_their_formula(merged):
    """W + scaling B A, of queries, keys and values; all other weights are CLIP's own."""
    learned = load_checkpoint(merged[1].parent / "run/prompt_learner/model.pth.tar-2")["state_dict"]
    found, expected = load_file(merged[1] / "clip.safetensors"), golden_state_dict("vit")
    towers = {name.split(".")[0] for name in learned}
    for tower, prefix, n_blocks in (("text", "transformer", 3), ("vision", "visual.transformer", 2)):
        for block in range(n_blocks if tower in towers else 0):
            parts = [(learned[f"{tower}.{block}.{part}.B"], learned[f"{tower}.{block}.{part}.A"]) for part in "qkv"]
            change = torch.cat([b.double() @ a.double() for b, a in parts]) / 2**0.5  # alpha / sqrt(r)
            key = f"{prefix}.resblocks.{block}.attn.in_proj_weight"
            assert change.abs().max() > 1e-3
            expected[key] = expected[key] + change
    assert found.keys() == expected.keys()
    for key, value in found.items():
        assert value.dtype == torch.float32
        assert_near(value, expected[key], 1e-7)


def test_open_clip_gives_the_logits_of_the_run(merged, tmp_path):
    open_clip = pytest.importorskip("open_clip", reason="open_clip_torch is not installed")
    classifier, folder = merged
    (tmp_path / "golden.json").write_text(json.dumps(ARCHITECTURE))
    open_clip.add_model_config(tmp_path / "golden.json")
    other = open_clip.create_model("golden", pretrained=str(folder / "clip.safetensors")).eval()
    images, tokens = golden_images("vit"), tokenize([PROMPT.format(name.replace("_", " ")) for name in CLASSES])
    with torch.no_grad():
        found = other.logit_scale.exp() * cosines(other.encode_image(images), other.encode_text(tokens))
        assert_near(found, classifier.trainer.model(images))


def cosines(features, texts):
    return F.normalize(features, dim=-1) @ F.normalize(texts, dim=-1).t()


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_the_lines_on_the_page_run(tiny_files, tmp_path, activation):
    pytest.importorskip("open_clip", reason="open_clip_torch is not installed")
    run, folder = tmp_path / "run", tmp_path / "clip"
    pairs = ("MODEL.BACKBONE.ACTIVATION", activation, "INPUT.INTERPOLATION", "bicubic")
    pairs += ("INPUT.PIXEL_MEAN", (0.48145466, 0.4578275, 0.40821073))  # CLIP's, which open_clip takes
    pairs += ("INPUT.PIXEL_STD", (0.26862954, 0.26130258, 0.27577711))
    run_train(tiny_cfg(tiny_files[0], tiny_files[1]["vit"], run, *OPTIONS, *pairs))
    assert export.main([str(run), "--out", str(folder), "--format", "clip"]) == 0
    images = sorted((tiny_files[0] / "test").glob("*/*.png"))[::4]
    (tmp_path / "tiny.json").write_text(json.dumps({**ARCHITECTURE, "quick_gelu": activation == "quick_gelu"}))
    lines = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    assert "architecture = 'ViT-B-16'  # open_clip's name of the architecture of vit.pt" in lines
    lines = lines.replace("'ViT-B-16'", "'tiny'").replace('"photo.jpg"', "path")
    lines += "print([float(x) for x in cosines[0]])"
    before = "import open_clip, sys\nopen_clip.add_model_config(sys.argv[1])\nfor path in sys.argv[2:]:\n"
    command = before + "".join(f"    {line}\n" for line in lines.splitlines())
    words = [sys.executable, "-I", "-c", command, *map(str, [tmp_path / "tiny.json", *images])]
    said = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True).stdout.splitlines()
    classifier = Classifier.from_run(run)
    assert said[::2] == [str([name]) for name in classifier(images).names]
    cosines = torch.tensor([json.loads(line) for line in said[1::2]])
    assert_near(golden_state_dict("vit")["logit_scale"].exp() * cosines, classifier.logits(images))


@pytest.mark.parametrize("merged", ["text"], indirect=True)
def test_the_file_is_a_backbone(tiny_files, merged, tmp_path):
    classifier, folder = merged
    run_train(tiny_cfg(tiny_files[0], folder / "clip.safetensors", tmp_path / "coop", "OPTIM.MAX_EPOCH", 1))
    model, _ = load(str(folder / "clip.safetensors"), "cpu")
    assert model.visual.input_resolution == VISION["vit"]["image_resolution"]
    facts = json.loads((folder / "config.json").read_text())
    assert (facts["template"], facts["trainer"], facts["classnames"]) == (PROMPT, "CLIPLoRA", list(CLASSES))
    with pytest.raises(ValueError, match="holds a whole CLIP, not a classifier: name .*clip.safetensors as MODEL"):
        Classifier.from_export(folder)


def test_a_method_that_leaves_clip_as_it_is_is_refused(tiny_files, tmp_path, capsys):
    cfg = tiny_cfg(tiny_files[0], tiny_files[1]["vit"], tmp_path / "run", "FEATURES.DIR", "")
    run_train(cfg)
    assert export.main([cfg.OUTPUT_DIR, "--out", str(tmp_path / "out"), "--format", "clip"]) == 1
    assert "CoOp leaves CLIP's own weights as they are" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
