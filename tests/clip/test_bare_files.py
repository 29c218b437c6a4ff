"""Files that leave heads and activation open: what is stated of them, what lies beside them, what is refused."""

import re
import sys
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

import clip
from clip.backbones import find_backbone
from clip.clip import tokenize, weights_sha256, weights_warning
from engine.features.reader import weights_digest
from tests.support.tiny_clip import golden_state_dict
from tests.support.tolerance import assert_near

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
VIT = {"image_size": 32, "layers": 2, "width": 320, "head_width": 80, "patch_size": 16}
RESNET = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 4, "head_width": 32}
HEADS = {"vit": (4, 2), "rn": (4, 2)}  # by OpenAI's rule (5, 1) and (2, 1)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Models that open_clip has drawn with GELU and heads of other widths, and their weights' files."""
    open_clip = pytest.importorskip("open_clip", reason="open_clip_torch is not installed")
    folder, found = tmp_path_factory.mktemp("bare"), {}
    for kind, vision in (("vit", VIT), ("rn", RESNET)):
        torch.manual_seed(0)
        model = open_clip.CLIP(embed_dim=32, vision_cfg=vision, text_cfg=TEXT).eval().requires_grad_(False)
        for parameter in model.parameters():  # biases and norms start at 0 and 1
            parameter += 0.05 * torch.randn_like(parameter)
        path = folder / f"{kind}.safetensors"
        save_file({key: value for key, value in model.state_dict().items() if key != "attn_mask"}, path)
        found[kind] = model, path
    return found


def features(model, size):
    images = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(1))
    texts = tokenize(["a photo of a cat.", "x", "two words"])
    return [tower.detach() for tower in (model.encode_image(images), model.encode_text(texts))]


@pytest.mark.parametrize("kind", HEADS)
def test_with_both_stated_features_are_open_clips(files, kind):
    theirs, path = files[kind]
    size = theirs.visual.image_size if kind == "vit" else 64
    size = size[0] if isinstance(size, tuple) else size
    expected = features(theirs, size)
    assert_near(features(clip.load(path, "cpu", heads=HEADS[kind], activation="gelu")[0], size), expected, 1e-5)
    for less in ({"heads": HEADS[kind]}, {"activation": "gelu"}):  # each of them matters, and is warned of
        found = features(clip.load(path, "cpu", **less)[0], size)
        assert max((one - other).norm() / other.norm() for one, other in zip(found, expected, strict=True)) > 1e-3
        assert " assumed" in weights_warning(path, **less)


def test_the_warning_says_what_is_stated_and_what_is_assumed(files):
    path, gelu = files["vit"][1], "Models that were trained with GELU, as most of open_clip's, compute something else."
    start = "The weights vit.safetensors are not OpenAI's: "
    heads, assumed = "heads, 4 and 2, are stated", "heads of 64 are assumed"
    assert weights_warning(path) == f"{start}QuickGELU and {assumed}. {gelu}"
    assert weights_warning(path, (4, 2)) == f"{start}QuickGELU is assumed, and {heads}. {gelu}"
    assert weights_warning(path, (), "gelu") == f"{start}gelu is stated, and {assumed}."
    assert weights_warning(path, (4, 2), "gelu") == f"{start}gelu is stated, and {heads}."


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"heads": (16,)}, r"MODEL.BACKBONE.HEADS is \(16,\); it must be the numbers of attention heads of the image"),
        ({"heads": (0, 1)}, r"MODEL.BACKBONE.HEADS is \(0, 1\)"),
        ({"heads": (3, 1), "activation": "gelu"}, "of a tower that is 64 wide, which 3 heads do not divide"),
        ({"activation": "relu"}, "ACTIVATION is 'relu'; it must be one of: quick_gelu, gelu, gelu_tanh"),
    ],
)
def test_what_no_clip_can_have_is_refused(tmp_path, stated, message):
    torch.save(golden_state_dict("vit"), tmp_path / "vit.pt")
    with pytest.raises(ValueError, match=message):
        clip.load(tmp_path / "vit.pt", "cpu", **stated)


def test_nothing_is_stated_of_weights_that_are_known(tmp_path):
    copy = tmp_path / "copy.npz"
    copy.write_bytes(clip.clip.resolve("ViT-T/8-shapes").read_bytes())
    for name in ("ViT-T/8-shapes", copy):
        with pytest.raises(ValueError, match=re.escape(f"of {name} both are known. Leave them out.")):
            clip.load(name, "cpu", activation="gelu")


@pytest.mark.parametrize("kind", HEADS)
def test_the_cache_of_features_tells_towers_apart_by_heads_and_activation(kind):
    """Their tensors are the same. OpenAI's towers keep the digest that they had before heads could be stated."""
    state_dict = golden_state_dict(kind)
    towers = [clip.build_model(state_dict, **stated).visual for stated in ({}, {"heads": (4, 1)})]
    if kind == "vit":
        towers.append(clip.build_model(state_dict, activation="gelu").visual)
    assert len({weights_digest(tower) for tower in towers}) == len(towers)
    assert "heads=" not in repr(towers[0])


# --- configs beside a file -------------------------------------------------------------------------------------------


class Beside:
    """A library's model in a folder, whose weights are in model.safetensors."""

    warning = ""

    def __init__(self, folder):
        self.folder = folder

    @classmethod
    def named(cls, rest):
        return cls(rest)

    def weights_file(self, *, download):
        return next(clip.clip.Path(self.folder).glob("model.safetensors"), None)

    def config_file(self):
        return None


@pytest.fixture
def libraries(monkeypatch):
    """Both libraries, without their cost."""
    for module, name in (("hf_models", "HuggingFaceModel"), ("open_clip_models", "OpenClipModel")):
        stand_in = SimpleNamespace(**{name: type(name, (Beside,), {})})
        monkeypatch.setitem(sys.modules, f"clip.backbones.{module}", stand_in)


@pytest.mark.parametrize(
    ("keys", "configs", "library"),
    [
        (["vision_model.a", "text_model.a"], ["config.json"], "HuggingFaceModel"),
        (["vision_model.a", "text_model.a"], ["config.json", "open_clip_config.json"], "HuggingFaceModel"),
        (["visual.proj", "positional_embedding"], ["config.json", "open_clip_config.json"], "OpenClipModel"),
        (["visual.trunk.a", "text.a"], ["open_clip_config.json"], "OpenClipModel"),
        (["visual.proj", "positional_embedding"], ["config.json"], ""),  # another model's config
        (["visual.proj", "positional_embedding"], [], ""),
    ],
)
def test_the_config_beside_a_file_and_its_keys_say_which_library_reads_it(libraries, tmp_path, keys, configs, library):
    path = tmp_path / "model.safetensors"
    save_file({key: torch.zeros(2) for key in keys}, path)
    for name in configs:
        (tmp_path / name).write_text("{}")
    backbone = find_backbone(str(path))
    assert (type(backbone).__name__ if backbone else "") == library
    assert weights_sha256(path) == clip.download.sha256(path)
    if library:
        assert backbone.folder == str(tmp_path)
        with pytest.raises(ValueError, match="both are known. Leave them out."):
            clip.load(path, "cpu", activation="gelu")


def test_a_file_that_a_config_does_not_belong_to_is_refused(libraries, tmp_path):
    save_file({"vision_model.a": torch.zeros(2)}, tmp_path / "model.safetensors")
    torch.save({"vision_model.a": torch.ones(2)}, tmp_path / "later.pt")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"later.pt lies beside a config.json, whose weights are model.saf"):
        clip.load(tmp_path / "later.pt", "cpu")
