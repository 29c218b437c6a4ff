"""Finding and reading weights files: every kind of file, every way it can be wrong."""

import inspect
import os
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import clip
from clip.clip import _MODELS, resolve, weights_warning
from clip.two_towers import Preprocessing
from clip.weights import read_state_dict, torch_readable
from tests.support.tiny_clip import golden_state_dict
from tests.support.tolerance import EPS, assert_near

# --- kinds of file ---------------------------------------------------------------------------------------------------


def save_torchscript(path: Path) -> None:
    """An archive of OpenAI's form: a traced module with half-precision weights and three numbers as buffers."""

    class Weights(torch.nn.Module):
        def forward(self, x):
            return x

    def place(root: torch.nn.Module, key: str, value: torch.Tensor) -> None:
        *parents, name = key.split(".")
        for part in parents:
            if part not in root._modules:
                root.add_module(part, Weights())
            root = root._modules[part]
        root.register_buffer(name, value)

    root = Weights()
    for key, value in golden_state_dict("vit").items():
        place(root, key, value.half() if value.is_floating_point() else value)
    for key, value in {"input_resolution": 32, "context_length": 77, "vocab_size": 49408}.items():
        place(root, key, torch.tensor(value))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # tracing is deprecated, the published archives stay
        torch.jit.trace(root, torch.zeros(1)).save(str(path))


def save_npz(path: Path) -> None:
    arrays = {key: value.numpy() for key, value in golden_state_dict("vit").items()}
    with path.open("wb") as file:
        np.savez(file, **{key: value.astype(np.float16) for key, value in arrays.items()})


def prefixed(prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + key: value for key, value in golden_state_dict("vit").items()}


SAVERS = {
    "torchscript": save_torchscript,
    "state_dict": lambda path: torch.save(golden_state_dict("vit"), path),
    "nested": lambda path: torch.save({"state_dict": golden_state_dict("vit"), "epoch": 3}, path),
    "model_state_dict": lambda path: torch.save({"model_state_dict": golden_state_dict("vit")}, path),
    "model": lambda path: torch.save({"model": golden_state_dict("vit"), "epoch": 1}, path),
    "open_clip": lambda path: torch.save({"name": "run", "state_dict": prefixed("module."), "optimizer": {}}, path),
    "lightning": lambda path: torch.save({"state_dict": prefixed("module.clip_model.")}, path),
    "attn_mask": lambda path: torch.save(
        {**golden_state_dict("vit"), "attn_mask": torch.full((77, 77), -torch.inf).triu(1)}, path
    ),
    "before_torch_1.6": lambda path: torch.save(golden_state_dict("vit"), path, _use_new_zipfile_serialization=False),
    "npz": save_npz,
    "safetensors": lambda path: save_file(golden_state_dict("vit"), path),
    "safetensors_prefixed": lambda path: save_file(prefixed("module."), path),
}


@pytest.fixture(scope="module")
def weights_files(tmp_path_factory) -> dict[str, Path]:
    """One file of each kind, all with a name that tells nothing."""
    folder = tmp_path_factory.mktemp("weights")
    for kind, save in SAVERS.items():
        save(folder / f"{kind}.pt")
    return {kind: folder / f"{kind}.pt" for kind in SAVERS}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", SAVERS)
def test_every_kind_of_file_gives_the_same_model(weights_files, kind):
    model, preprocess = clip.load(str(weights_files[kind]), "cpu")
    assert not model.training
    assert model.dtype == torch.float32
    for key, value in model.state_dict().items():
        assert torch.equal(value, golden_state_dict("vit")[key])
    assert preprocess(Image.new("L", (50, 40))).shape == (3, 32, 32)


@pytest.mark.parametrize("kind", SAVERS)
def test_a_truncated_file_is_refused(weights_files, tmp_path, kind):
    path = tmp_path / "truncated.pt"
    path.write_bytes(weights_files[kind].read_bytes()[:100_000])
    with pytest.raises(
        ValueError, match=r"truncated.pt \(100,000 bytes\) cannot be read .*If the file is truncated, fetch"
    ):
        read_state_dict(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"\(0 bytes\) cannot be read"),
        (b"<html>Not found</html>", r"\(22 bytes\) cannot be read"),
        ([1, 2], "its content is of type list, not a state dict"),
        ({"epoch": 3}, "its 'epoch' is of type int, where a state dict has tensors"),
        ({"model": torch.nn.Linear(2, 2)}, "cannot be read"),  # code: weights_only refuses it
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    path = tmp_path / "weights.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(
        ValueError, match=message + ".*It must be a TorchScript archive, a state dict saved by torch.save"
    ):
        read_state_dict(path)


@pytest.mark.parametrize("content", [b"<html>Not found</html>", [1, 2], {"epoch": 3}])
def test_a_whole_file_is_not_called_truncated(tmp_path, content):
    path = tmp_path / "weights.pt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(ValueError, match=r"or an \.npz of arrays\.$"):
        read_state_dict(path)


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        (
            ["vision_model.embeddings.class_embedding", "text_model.embeddings.token_embedding.weight", "logit_scale"],
            "the keys `vision_model.embeddings.class_embedding` and the like, those of Hugging Face's CLIP. Put the "
            "config.json that belongs to it beside it, or name hf:FOLDER or hf:OWNER/NAME.",
        ),
        (["visual.trunk.blocks.0.attn.qkv.weight", "logit_scale"], "`visual.trunk.blocks.0.attn.qkv.weight` and the"),
        (
            ["text.transformer.resblocks.0.ln_1.bias", "visual.proj"],
            "with its text tower under `text.`. Name the architecture, too: open_clip:ARCHITECTURE/PATH.",
        ),
        (["cls_token", "pos_embed", "patch_embed.proj.weight", "head.bias"], "those of timm's ViT, an image tower"),
        (["class_token", "conv_proj.weight", "encoder.layers.0.ln_1.bias"], "those of torchvision's ViT, an image"),
        (["visual.patch_embed.proj.weight", "logit_scale"], "tower that is neither OpenAI's ViT nor ResNet: its first"),
        (["visual.proj", "visual.conv1.weight"], "an image tower alone, no text tower"),
        (
            ["conv1.weight", "layer1.0.conv1.weight"],
            "no image tower, whose keys begin with `visual.`; its first",
        ),
        (["a.visual.proj", "b.ln_final.bias"], "begin with `visual.`; its first key is `a.visual.proj`"),
    ],
)
def test_another_layout_is_called_by_its_name(tmp_path, keys, found):
    path = tmp_path / "weights.pt"
    torch.save({key: torch.zeros(2) for key in keys}, path)
    with pytest.raises(ValueError) as error:
        clip.load(path, "cpu")
    assert str(error.value).startswith(f"{path}: The state dict has ") and found in str(error.value)
    assert "has no visual.layer1" not in str(error.value) and "truncated" not in str(error.value)


def test_a_vit_without_its_projection_misses_that(tmp_path):
    torch.save({key: x for key, x in golden_state_dict("vit").items() if key != "visual.proj"}, tmp_path / "vit.pt")
    with pytest.raises(ValueError, match="The state dict has no visual.proj"):
        clip.load(tmp_path / "vit.pt", "cpu")


def test_weights_are_known_by_their_digest(weights_files, tmp_path):
    embedded = tmp_path / "copy.npz"
    embedded.write_bytes(Path(clip.clip.__file__).with_name("shapes.npz").read_bytes())
    assert [weights_warning(name) for name in ("ViT-B/16", "ViT-T/8-shapes", str(embedded))] == ["", "", ""]
    found = weights_warning(str(weights_files["npz"]))
    assert found.startswith("The weights npz.pt are not OpenAI's: QuickGELU and heads of 64 are assumed.")


def test_a_number_that_is_altered_is_noticed(tmp_path):
    """As by a bad disk; torch itself does not look."""
    path = tmp_path / "weights.pt"
    torch.save({"a": torch.arange(6.0)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(np.float32(5).tobytes())] ^= 1
    path.write_bytes(content)
    assert torch.load(path)["a"][5] != 5
    with pytest.raises(ValueError, match=r"cannot be read \(its record 'weights/data/0' is altered\)"):
        read_state_dict(path)


def test_the_copy_for_torch_in_the_cache_is_never_another_file(weights_files, tmp_path):
    copy = torch_readable(weights_files["npz"], tmp_path / "cache")
    for planted in (weights_files["torchscript"], weights_files["nested"]):
        copy.write_bytes(planted.read_bytes())
        assert torch_readable(weights_files["npz"], tmp_path / "cache") == copy
        assert torch.load(copy, weights_only=True).keys() == golden_state_dict("vit").keys()
    assert os.listdir(copy.parent) == [copy.name]
    assert torch_readable(weights_files["nested"], tmp_path / "cache") == weights_files["nested"]


def test_a_state_dict_of_something_else_is_refused_with_its_path(tmp_path):
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "linear.pt")
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / "linear.pt")) + ": The state dict has no"):
        clip.load(tmp_path / "linear.pt")


# --- names and paths -------------------------------------------------------------------------------------------------


def test_available_models():
    openai = "RN50 RN101 RN50x4 RN50x16 RN50x64 ViT-B/32 ViT-B/16 ViT-L/14 ViT-L/14@336px".split()
    assert clip.available_models() == [*openai, "ViT-T/8-shapes"]
    for url in _MODELS.values():
        assert re.fullmatch(r"https://openaipublic\.azureedge\.net/clip/models/[0-9a-f]{64}/[\w-]+\.pt", url)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("ViT-B-16", "Did you mean ViT-B/16?"),
        ("rn50", "Did you mean RN50?"),
        ("vit-t/8", "Did you mean ViT-T/8-shapes?"),
        ("resnext", ""),
        ("", ""),  # not the current folder
        (" ", ""),
    ],
)
def test_an_unknown_name_names_the_nearest_one(name, hint):
    message = f"^There is no model '{name}'. Name one of RN50, .*, the path .*, hf:OWNER/NAME. ?{re.escape(hint)}$"
    with pytest.raises(ValueError, match=message):
        clip.load(name)


@pytest.mark.parametrize("as_given", [str, Path])
def test_a_missing_path_says_which_part_exists(tmp_path, as_given):
    path = tmp_path / "models" / "clip" / "RN50.pt"
    message = f"The weights file {path} is missing. {tmp_path} exists, models/clip/RN50.pt in it does not: "
    with pytest.raises(FileNotFoundError, match=re.escape(message)):
        resolve(as_given(path))
    with pytest.raises(FileNotFoundError, match=re.escape(message)):
        read_state_dict(path)


def test_a_relative_path_and_a_folder_are_named_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=re.escape(f"{tmp_path / 'RN50.pt'} is missing")):
        resolve("./RN50.pt")
    message = f"{tmp_path} is a folder. Give the path of the weights file in it."
    with pytest.raises(FileNotFoundError, match=re.escape(message)):
        resolve(str(tmp_path))
    (tmp_path / "config.json").touch()
    with pytest.raises(FileNotFoundError, match=f"in it. Or name hf:{tmp_path}.$"):
        resolve(str(tmp_path))


def test_arguments_are_openais_in_openais_order(weights_files, tmp_path):
    positional = inspect.signature(clip.load).parameters.values()
    names = [parameter.name for parameter in positional if parameter.kind is not parameter.KEYWORD_ONLY]
    assert names == ["name", "device", "jit", "download_root"]
    model, _ = clip.load(str(weights_files["npz"]), "cpu", False, str(tmp_path))
    assert model.positional_embedding.device.type == "cpu"
    with pytest.raises(ValueError, match="jit is True; it must be False"):
        clip.load("RN50", jit=True)


@pytest.mark.parametrize(("has_gpu", "device"), [(True, "cuda"), (False, "cpu")])
def test_the_default_device_is_the_gpu_if_there_is_one(weights_files, monkeypatch, has_gpu, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.setattr(clip.model.CLIP, "to", lambda self, device: device)
    assert clip.load(weights_files["npz"])[0] == device


def test_preprocess_resizes_the_smaller_edge_crops_the_centre_and_normalises():
    image = Image.fromarray(np.repeat(np.array([[0, 255, 0]], dtype=np.uint8), 8, axis=0).repeat(8, axis=1))  # 24 x 8
    result = clip.clip._transform(Preprocessing(8))(image)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])
    assert_near(result, ((1 - mean) / std)[:, None, None].expand(3, 8, 8), 10 * EPS)
