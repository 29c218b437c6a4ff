"""A classifier as one ONNX file, from pixels to logits, which onnxruntime runs without this code and without torch.

classifier.onnx        images (N, 3, H, W) float32, normalised -> logits (N, C) float32, for any N. Its metadata are the
                       entries of config.json, each as JSON
classifier.onnx.data   only for more than 2 GB: the weights, since such a file holds no more
config.json            class names, preprocessing, opset, precision, where it comes from
README.md              what it is, and the lines that use it
"""

from __future__ import annotations

import copy
import json
import tempfile
import warnings
from contextlib import redirect_stderr, redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from engine import TrainerX
from engine.features.head import Head
from engine.text import shorten

from .artefact import ONNX, ONNX_DATA, facts_of, require_own, write_folder
from .card import backbone_name, onnx_card
from .run_folder import silenced

if TYPE_CHECKING:
    from onnx import ModelProto

EXTRA = ("onnx", "onnxruntime", "onnxscript")
OPSET = 18  # the one that torch writes without converting it
MAX_BYTES = 2**31 - 2**20  # of one file, as protobuf has it; some room for the graph
# Stay float32 in a float16 file: as in CLIP's own; sums of squares may leave float16; onnxruntime cannot add float16.
IN_FLOAT32 = ("LayerNormalization", "ReduceL2", "ScatterND")
N_PROBES = 5
TOLERANCE = {"fp32": 1e-4, "fp16": 1e-2}  # of the largest logit; measured: 1e-6 and 1e-3


class PixelsToLogits(nn.Module):
    """All that a trainer does between normalised pixels (N, 3, H, W) and logits (N, C), as one module in float32.

    Where one matrix does what the method does with features, the text tower stays out of it.
    """

    def __init__(self, trainer: TrainerX, head: Head | None):
        super().__init__()
        tower = trainer.image_tower() if trainer.uses_features else None  # as it is: onnxruntime prepares it itself
        if head is not None:
            self.parts = tower = copy.deepcopy(tower).float()
            self.infer = lambda images: head.logits(tower(images))
            return
        # The modules are parameters of this one, so that the file names them.
        self.parts = nn.ModuleList(part for part in vars(trainer).values() if isinstance(part, nn.Module))
        if tower is None:
            self.infer = trainer.model_inference
        else:
            self.infer = lambda images: trainer.classify_features(tower(images).float())

    def forward(self, images: Tensor) -> Tensor:
        return self.infer(images).float()


def write_onnx(
    trainer: TrainerX, head: Head | None, folder: Path, results: dict[str, Any], *, precision: str = "fp32"
) -> None:
    """Writes the folder; one that is there already is replaced if it holds such an export and nothing else.

    Args:
        trainer: With what was learned, on the CPU.
        head: Its `head_of`.
        folder: Where to.
        results: Of the test of this very model, for the page; {} if it was not tested.
        precision: "fp32", or "fp16": weights and arithmetic in float16, at half the size.

    Raises:
        ModuleNotFoundError: If the extra is not installed.
        ValueError: If the method cannot be exported, or gives other logits then; if the folder holds something else.
        OSError: If it cannot be written.
    """
    require_extra()
    require_own(folder, ONNX)
    if trainer.test_transform:
        raise ValueError(
            f"{trainer.cfg.TRAINER.NAME} cannot be exported to ONNX: it needs more of an image than one array of "
            "pixels, such as several views (`test_transform`). Use predict.py or inference.Classifier."
        )
    facts = facts_of(trainer, results)
    facts |= {"backbone": backbone_name(facts), "precision": precision, "opset": OPSET}
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / ONNX
        try:
            export(PixelsToLogits(trainer, head).eval(), path, facts)
        except OSError:
            raise
        except Exception as error:  # torch, onnx and onnxruntime raise their own kinds
            raise ValueError(
                f"{facts['trainer']} could not be exported to ONNX ({shorten(error)}). Use predict.py or "
                "inference.Classifier."
            ) from error
        made = {file.name: file for file in sorted(Path(scratch).iterdir())}
        write_folder(folder, made, facts, card=onnx_card(facts, has_data=ONNX_DATA in made))


def require_extra() -> None:
    """Raises ModuleNotFoundError unless all packages of the extra are there."""
    missing = [name for name in EXTRA if find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(
            f"--format onnx needs packages that are not installed: {', '.join(missing)}. Install them: pip install -e "
            '".[export]"'
        )


@torch.no_grad()
def export(module: PixelsToLogits, path: Path, facts: dict[str, Any]) -> None:
    """Writes the file, and compares it with the module.

    Raises:
        ValueError: If onnxruntime gives other logits.
    """
    import onnx

    images = torch.randn(N_PROBES, 3, *facts["preprocessing"]["SIZE"], generator=torch.Generator().manual_seed(0))
    expected = module(images)  # before the export: some methods check something when they are first used
    # torch warns of its own code, and prints the whole graph of what it cannot export.
    with warnings.catch_warnings(), silenced("torch"), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        warnings.simplefilter("ignore")
        # Two images, not one: that would fix the size of the batch.
        sizes = {"images": {0: torch.export.Dim("N")}}
        program = torch.export.export(module, (images[:2],), dynamic_shapes=sizes, strict=False)
        names = {"input_names": ["images"], "output_names": ["logits"], "dynamic_shapes": sizes}
        torch.onnx.export(program, dynamo=True, opset_version=OPSET, verbose=False, **names).save(path)
    model = onnx.load(path) if facts["precision"] == "fp32" else in_float16(path)
    (path.parent / ONNX_DATA).unlink(missing_ok=True)  # torch sets its own limit
    for node in model.graph.node:
        del node.metadata_props[:]  # torch's notes name folders of this machine
    onnx.helper.set_model_props(model, {key: json.dumps(value, ensure_ascii=False) for key, value in facts.items()})
    is_large = sum(len(weights.raw_data) for weights in model.graph.initializer) > MAX_BYTES
    onnx.save_model(model, path, save_as_external_data=is_large, location=ONNX_DATA)
    onnx.checker.check_model(path, full_check=True)
    require_same(path, images, expected, TOLERANCE[facts["precision"]])


def in_float16(path: Path) -> ModelProto:
    """Returns the model in a file with float16 inside; input and output stay float32."""
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    half = convert_float_to_float16(str(path), keep_io_types=True, op_block_list=[*DEFAULT_OP_BLOCK_LIST, *IN_FLOAT32])
    del half.graph.value_info[:]  # the conversion leaves some types of before, and appends its casts at the end
    OnnxModel(half).topological_sort()
    return half


def require_same(path: Path, images: Tensor, expected: Tensor, tolerance: float) -> None:
    """Raises ValueError unless onnxruntime gives the logits expected, for all images at once and for one."""
    import onnxruntime

    options, expected = onnxruntime.SessionOptions(), expected.numpy()
    options.log_severity_level = 4  # an error is raised, and need not be printed besides
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    for n in (len(images), 1):
        found = session.run(None, {"images": images[:n].numpy()})[0]
        off = np.abs(found - expected[:n]).max() / np.abs(expected).max()
        if not off <= tolerance:  # nor where it is not a number
            raise ValueError(f"its logits differ by {off:.1e} of the largest, {tolerance:.0e} is allowed")
