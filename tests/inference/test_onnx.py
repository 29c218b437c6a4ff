"""A classifier as ONNX: onnxruntime gives the same answers from pixels, in a process without this project and torch."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

import export
import inference.onnx
from engine import TRAINER_REGISTRY
from inference.classifier import Classifier
from tests.support.tiny_clip import golden_images
from tests.support.tiny_run import CLASSES, run_train, tiny_cfg
from tests.support.tolerance import assert_near
from trainers.coop import CoOp

N_IMAGES, N_AT_ONCE = 50, 7
LIMIT = 1e-4  # between the logits in float32
TIE = 0.02  # between the two largest probabilities in float32: such classes may change places in float16
# The card's own lines on each image, then the same file on batches of the pixels that they made.
ALONE = """
import contextlib, functools, io, json, sys
import numpy as np
import onnxruntime

onnxruntime.InferenceSession = functools.cache(onnxruntime.InferenceSession)  # made once for all images

lines = open("README.md", encoding="utf-8").read().split("```python\\n")[1].split("```")[0]
single, pixels, said = [], [], io.StringIO()
for path in json.load(open(sys.argv[1])):
    space = {}
    with contextlib.redirect_stdout(said):
        exec(lines.replace("photo.jpg", path), space)
    single.append(space["logits"])
    pixels.append(space["x"].transpose(2, 0, 1))
at_once, run = int(sys.argv[2]), space["session"].run
batches = [np.stack(pixels[i : i + at_once]) for i in range(0, len(pixels), at_once)]
batched = np.concatenate([run(None, {"images": batch})[0] for batch in batches])
assert not {"torch", "torchvision", "engine", "clip", "inference"} & set(sys.modules)
np.savez(sys.argv[3], single=np.concatenate(single), batched=batched, said=said.getvalue().splitlines())
"""


@pytest.fixture(scope="module")
def odd_images(tmp_path_factory):
    """Files of odd sizes and modes: wide, tall, of one pixel, grey, with a palette, with transparency."""
    folder, rng = tmp_path_factory.mktemp("odd"), np.random.default_rng(0)
    sizes = [
        (1, 1),
        (33, 32),
        (32, 33),
        (31, 65),
        (90, 7),
        (5, 70),
        *rng.integers(9, 120, (N_IMAGES - 6, 2)).tolist(),
    ]
    for i, (width, height) in enumerate(sizes):
        pixels = rng.integers(0, 60, (height, width, 3), dtype=np.uint8)
        pixels[..., i % 3] += 150
        image = Image.fromarray(pixels).convert(("RGB", "RGB", "RGB", "L", "P", "RGBA")[i % 6])
        image.save(folder / f"{i:02}.png")
    return [str(path) for path in sorted(folder.iterdir())]


@pytest.fixture
def exported(tiny_files, tmp_path):
    """exported(kind, PRECISION, KEY, VALUE, ...): a run's classifier, and the folder that its ONNX file is in."""

    def exported(kind, precision, *pairs):
        cfg = tiny_cfg(tiny_files[0], tiny_files[1][kind], tmp_path / "run", "FEATURES.DIR", "", *pairs, kind=kind)
        run_train(cfg)
        assert call(tmp_path, "--precision", precision) == 0
        return Classifier.from_run(cfg.OUTPUT_DIR, device="cpu"), tmp_path / "out"

    return exported


def call(tmp_path, *words):
    return export.main([str(tmp_path / "run"), "--out", str(tmp_path / "out"), "--format", "onnx", *words])


def answers(folder, tmp_path, paths):
    """The logits of the folder, image by image and in batches, and the names that its page's lines print."""
    (tmp_path / "paths.json").write_text(json.dumps(paths))
    words = [str(tmp_path / "paths.json"), str(N_AT_ONCE), str(tmp_path / "said.npz")]
    done = subprocess.run([sys.executable, "-I", "-c", ALONE, *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = np.load(tmp_path / "said.npz")
    return (
        said["single"],
        said["batched"],
        [name for line in said["said"] for name in json.loads(line.replace("'", '"'))],
    )


METHODS = {
    "CoOp": ("vit", "TRAINER.NAME", "CoOp", "INPUT.INTERPOLATION", "bicubic"),
    "RN": ("rn", "TRAINER.NAME", "CoOp", "TRAINER.COOP.CSC", True, "INPUT.NO_TRANSFORM", True),
    "LinearProbe": ("vit", "TRAINER.NAME", "LinearProbe"),
    "CoCoOp": (
        "vit",
        "TRAINER.NAME",
        "CoCoOp",
        "TRAINER.COCOOP.N_CTX",
        2,
        "TRAINER.COCOOP.CHUNK_ROWS",
        40,
    ),  # a batch of 7 is several chunks
    "CLIPAdapter": ("vit", "TRAINER.NAME", "CLIPAdapter"),
    "TipAdapterF": ("vit", "TRAINER.NAME", "TipAdapterF", "INPUT.VIEWS", 2),
    "LPPlusPlus": ("vit", "TRAINER.NAME", "LPPlusPlus"),
    "MaPLe": ("vit", "TRAINER.NAME", "MaPLe", "TRAINER.MAPLE.PREC", "fp32", "TRAINER.MAPLE.PROMPT_DEPTH", 2),
    "CLIPLoRA": ("vit", "TRAINER.NAME", "CLIPLoRA", "TRAINER.CLIPLORA.PREC", "fp32", "OPTIM.LR", 1.0),
    "TwoStage": ("vit", "TRAINER.NAME", "TwoStage", "TRAINER.TWO_STAGE.PREC", "fp32"),
    "VPT": ("vit", "TRAINER.NAME", "VPT", "TRAINER.VPT.PREC", "fp32", "TRAINER.VPT.PROMPT_DEPTH_VISION", 2),
}


@pytest.mark.parametrize("method", METHODS)
def test_onnxruntime_alone_gives_the_same_logits(exported, tmp_path, odd_images, method):
    kind, *pairs = METHODS[method]
    classifier, folder = exported(kind, "fp32", *pairs)
    single, batched, names = answers(folder, tmp_path, odd_images)

    expected = classifier.logits(odd_images).numpy()
    assert expected.shape == (N_IMAGES, len(CLASSES)) and np.ptp(expected, axis=0).min() > 100 * LIMIT
    assert np.abs(single - expected).max() <= LIMIT
    assert np.abs(batched - expected).max() <= LIMIT
    assert names == classifier(odd_images).names


@pytest.mark.parametrize("method", ["RN", "CoCoOp"])
def test_float16_gives_the_same_classes_but_for_ties(exported, tmp_path, odd_images, method):
    kind, *pairs = METHODS[method]
    classifier, folder = exported(kind, "fp16", *pairs)
    _, batched, _ = answers(folder, tmp_path, odd_images)

    logits = classifier.logits(odd_images)
    second, first = logits.softmax(dim=1).sort().values[:, -2:].unbind(dim=1)
    is_clear = (first - second > TIE).numpy()
    assert is_clear.mean() > 0.5
    assert torch.cosine_similarity(torch.from_numpy(batched), logits, dim=1).min() > 0.999
    assert (batched.argmax(axis=1) == logits.numpy().argmax(axis=1))[is_clear].all()
    types = {
        value.data_type for value in onnx.load(folder / "classifier.onnx").graph.initializer if len(value.dims) > 1
    }
    assert onnx.TensorProto.FLOAT16 in types and batched.dtype == np.float32


def test_the_file_says_what_it_is_and_nothing_of_this_machine(exported, tmp_path):
    _, folder = exported("vit", "fp32")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "classifier.onnx", "config.json"]
    facts = json.loads((folder / "config.json").read_text())
    session = onnxruntime.InferenceSession(folder / "classifier.onnx")
    said = session.get_modelmeta().custom_metadata_map
    assert {key: json.loads(value) for key, value in said.items()} == facts
    assert facts["classnames"] == list(CLASSES) and facts["preprocessing"]["SIZE"] == [32, 32]
    [opset] = onnx.load(folder / "classifier.onnx").opset_import
    assert facts["opset"] == opset.version and f"opset {opset.version}" in (folder / "README.md").read_text()
    ends = [*session.get_inputs(), *session.get_outputs()]
    assert [(end.name, end.type, end.shape) for end in ends] == [
        ("images", "tensor(float)", ["N", 3, 32, 32]),
        ("logits", "tensor(float)", ["N", 3]),
    ]
    for path in folder.iterdir():
        content = path.read_bytes()
        assert not [word for word in (Path(__file__).parents[2], tmp_path) if str(word).encode() in content], path.name


def test_weights_beyond_what_one_file_holds_lie_beside_it(exported, monkeypatch):
    monkeypatch.setattr(inference.onnx, "MAX_BYTES", 10_000)
    classifier, folder = exported("vit", "fp32")
    assert sum(path.stat().st_size for path in folder.glob("*.onnx")) < (folder / "classifier.onnx.data").stat().st_size
    assert "`classifier.onnx.data` | its weights, which must lie beside it" in (folder / "README.md").read_text()
    images = golden_images("vit")
    [logits] = onnxruntime.InferenceSession(folder / "classifier.onnx").run(None, {"images": images.numpy()})
    with torch.no_grad():
        assert_near(logits, classifier.trainer.model_inference(images))


def test_what_cannot_be_exported_is_refused_by_name(tiny_files, tmp_path, register, capsys, monkeypatch):
    class Branching(CoOp):
        def classify_features(self, features):
            return super().classify_features(features) * (2 if features.mean() > 0 else 1)

    register(TRAINER_REGISTRY, Branching)
    pairs = ("TRAINER.NAME", "Branching", "FEATURES.DIR", "")
    run_train(tiny_cfg(tiny_files[0], tiny_files[1]["vit"], tmp_path / "run", *pairs))
    assert call(tmp_path) == 1
    said = capsys.readouterr().err
    assert said.startswith("Error: Branching could not be exported to ONNX (") and "Use predict.py" in said
    assert not (tmp_path / "out").exists()

    (tmp_path / "out").mkdir()
    (tmp_path / "out/classifier.safetensors").write_text("x")
    assert call(tmp_path) == 1
    assert "holds other files. Name a new folder" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert call(tmp_path) == 1
    assert 'not installed: onnxscript. Install them: pip install -e ".[export]"' in capsys.readouterr().err


def test_a_file_that_answers_otherwise_is_refused(tiny_files, tmp_path, monkeypatch, capsys):
    run_train(tiny_cfg(tiny_files[0], tiny_files[1]["vit"], tmp_path / "run", "FEATURES.DIR", ""))
    monkeypatch.setattr(inference.onnx, "in_float16", negated)
    assert call(tmp_path, "--precision", "fp16") == 1
    assert "its logits differ by 2.0e+00 of the largest" in capsys.readouterr().err


def negated(path):
    model = onnx.load(path)
    output = model.graph.output[0].name
    node = next(node for node in model.graph.node if output in node.output)
    node.output[0] = "before"
    model.graph.node.append(onnx.helper.make_node("Neg", ["before"], [output]))
    return model


def test_an_onnx_folder_is_not_read_back(tmp_path):
    (tmp_path / "classifier.onnx").write_text("x")
    with pytest.raises(ValueError, match=r"holds an ONNX file.*--format classifier"):
        Classifier.from_export(tmp_path)
