"""A prepared image tower gives the plain one's features: exactly in float64, and in float32 as near to those."""

import copy
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from clip.clip import load
from clip.model import ModifiedResNet, VisionTransformer, build_model, convert_weights
from clip.prepared import prepare
from clip.two_towers import ForeignTower
from tests.support.backbones.tiny_hf import save_clip
from tests.support.backbones.tiny_open_clip import write_model
from tests.support.tiny_clip import golden_images, golden_state_dict
from tests.support.tolerance import EXACT, GOLDEN_TOLERANCE, assert_near, distance

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "models.json").read_text())
MUCH = 1.5  # of the plain float32 tower's distance from float64's features
TOWERS = {
    "ViT": lambda: VisionTransformer(64, 16, 128, 3, 2, 32),
    "ViT, GELU, wide heads": lambda: VisionTransformer(64, 16, 192, 2, 2, 32, activation="gelu"),
    "RN": lambda: ModifiedResNet((2, 1, 1, 1), 32, 4, 64, 8),
    "RN, wide": lambda: ModifiedResNet((1, 2, 1, 1), 64, 8, 64, 16),
}


def draw(tower):
    """All that starts at 0 or 1 gets other values, running statistics, too; frozen, in eval mode."""
    generator = torch.Generator().manual_seed(0)
    for name, value in [*tower.named_parameters(), *tower.named_buffers()]:
        if value.is_floating_point() and value.dim() == 1:
            positive = name.endswith(("weight", "running_var"))
            noise = torch.rand(value.shape, generator=generator)
            value.data = (0.5 + noise if positive else noise - 0.5).to(value.dtype)
    return tower.eval().requires_grad_(False)


def build(kind):
    torch.manual_seed(0)
    return draw(TOWERS[kind]())


def images(size=64, dtype=torch.float32):
    return torch.randn(16, 3, size, size, generator=torch.Generator().manual_seed(1)).to(dtype)


def norms(tower):
    return [module for module in tower.modules() if isinstance(module, nn.BatchNorm2d)]


@pytest.mark.parametrize("kind", ["vit", "rn"])
def test_features_are_the_golden_ones(kind):
    visual = build_model(golden_state_dict(kind)).visual
    prepared = prepare(visual)
    assert prepared is not visual
    expected = torch.tensor(GOLDEN[kind]["image_features"]).view(6, 32)
    assert_near(prepared(golden_images(kind)), expected, GOLDEN_TOLERANCE)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("kind", TOWERS)
def test_features_are_as_near_to_the_exact_ones(kind, channels_last):
    tower = build(kind)
    if channels_last:
        tower.to(memory_format=torch.channels_last)
    exact = copy.deepcopy(tower).double()
    expected = exact(images(dtype=torch.float64))
    assert_near(prepare(exact)(images(dtype=torch.float64)), expected, EXACT)
    assert_near(prepare(tower)(images()), expected, MUCH * distance(tower(images()), expected))


@pytest.mark.parametrize("kind", TOWERS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_in_half_precision_no_weight_is_rounded_once_more(kind, dtype):
    tower = build(kind)
    convert_weights(tower, dtype)
    expected = copy.deepcopy(tower).double()(images(dtype=torch.float64))
    prepared = prepare(tower)
    assert {x.data_ptr() for x in prepared.parameters()} == {x.data_ptr() for x in tower.parameters()}
    assert prepared(images()).dtype == dtype
    assert_near(prepared(images()), expected, MUCH * distance(tower(images()), expected))


@pytest.mark.parametrize("kind", TOWERS)
def test_the_tower_stays_as_it_is_and_only_folded_convolutions_take_memory(kind):
    tower = build(kind)
    before, text = {key: value.clone() for key, value in tower.state_dict().items()}, repr(tower)
    prepared = prepare(tower)
    assert repr(tower) == text and repr(prepared) != text  # the cache of features knows a tower by it
    assert all(torch.equal(value, before[key]) for key, value in tower.state_dict().items())
    own = {x.data_ptr() for x in tower.parameters()}
    new = [x for x in prepared.parameters() if x.data_ptr() not in own]
    convolutions = [module for module in prepared.modules() if isinstance(module, nn.Conv2d)]
    folded = {id(x) for conv in convolutions for x in conv.parameters()} if kind.startswith("RN") else set()
    assert {id(x) for x in new} == folded
    assert not any(x.requires_grad for x in prepared.parameters()) and not norms(prepared)


@pytest.mark.parametrize("kind", TOWERS)
def test_the_last_attention_projects_one_query_and_nothing_else(kind):
    """By the operations of one image: a matrix product of L - 1 states less for each projection that others had."""
    tower, counts = build(kind), []
    for module in (tower, prepare(tower)):
        with FlopCounterMode(display=False) as counter:
            module(images()[:1])
        counts.append(counter.get_total_flops())
    if kind.startswith("ViT"):
        n_others, width, n_products = 4 * 4, tower.proj.shape[0], 3 + 1 + 2 * 4  # q, k, v; output; network
    else:
        n_others, width, n_products = 2 * 2, tower.attnpool.q_proj.in_features, 2  # keys, values
    assert counts[0] - counts[1] == pytest.approx(2 * n_products * n_others * width**2, rel=0.1)


# --- other libraries -------------------------------------------------------------------------------------------------


def test_a_resnet_of_open_clip_is_folded(tmp_path):
    visual = load(f"open_clip:{write_model(tmp_path / 'model', 'resnet')}", "cpu")[0].visual.requires_grad_(False)
    prepared = prepare(visual)
    assert len(norms(visual)) == 3 + 4 * 4 and not norms(prepared)
    exact = copy.deepcopy(visual).double()
    expected = exact(images(dtype=torch.float64))
    assert_near(prepare(exact)(images(dtype=torch.float64)), expected, EXACT)
    assert_near(prepared(images()), expected, MUCH * distance(visual(images()), expected))


def test_a_convolution_keeps_its_bias_groups_and_padding():
    conv = nn.Conv2d(6, 4, 3, stride=2, padding=2, groups=2, padding_mode="reflect")
    stem = nn.Sequential(nn.Conv2d(3, 6, 1, bias=False), nn.BatchNorm2d(6, eps=0.1), nn.ReLU(), conv, nn.BatchNorm2d(4))
    tower = ForeignTower(draw(nn.Sequential(stem, nn.Flatten())), 4, 64).double()
    prepared = prepare(tower)
    assert not norms(prepared)
    assert_near(prepared(images(dtype=torch.float64)), tower(images(dtype=torch.float64)), EXACT)


def test_a_vision_transformer_of_another_library_stays_as_it_is(tmp_path):
    of_open_clip = f"open_clip:{write_model(tmp_path / 'open_clip', 'vit')}"
    for name in (of_open_clip, f"hf:{save_clip(tmp_path / 'hf')}"):
        visual = load(name, "cpu")[0].visual
        assert prepare(visual) is visual


# --- what is not certain ---------------------------------------------------------------------------------------------


class Unfoldable(nn.Module):
    """A convolution and a batch norm, used in another way than one behind the other."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)


class ReadTwice(Unfoldable):
    def forward(self, x):
        x = self.conv(x)
        return (x + self.norm(x)).mean(dim=(2, 3))


class CalledTwice(Unfoldable):
    def forward(self, x):
        return self.conv(self.norm(self.conv(x))).mean(dim=(2, 3))


class NormFirst(Unfoldable):
    def forward(self, x):
        return self.conv(self.norm(x)).mean(dim=(2, 3))


class Between(Unfoldable):
    def forward(self, x):
        return self.norm(F.relu(self.conv(x))).mean(dim=(2, 3))


class Branches(Unfoldable):
    def forward(self, x):
        x = self.norm(self.conv(x))
        return (x if x.sum() > 0 else 2 * x).mean(dim=(2, 3))


class Shared(Unfoldable):
    """Its convolution is another module's, too."""

    def __init__(self):
        super().__init__()
        self.other = nn.Sequential(self.conv, nn.BatchNorm2d(3))

    def forward(self, x):
        return (self.norm(self.conv(x)) + self.other(x)).mean(dim=(2, 3))


class Scaled(Unfoldable):
    class Norm(nn.BatchNorm2d):
        def forward(self, x):
            return 2 * super().forward(x)

    def __init__(self):
        super().__init__()
        self.norm, self.plain = self.Norm(3), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(self.conv(self.plain(x))).mean(dim=(2, 3))


@pytest.mark.parametrize("kind", [ReadTwice, CalledTwice, NormFirst, Between, Branches, Shared, Scaled])
def test_a_batch_norm_that_is_used_otherwise_stays(kind):
    tower = ForeignTower(draw(kind()), 3, 64)
    assert prepare(tower) is tower


def test_a_batch_norm_in_training_mode_stays():
    tower = build("RN")
    tower.layer1.train()
    assert len(norms(prepare(tower))) == len(norms(tower.layer1))


def test_a_tower_of_ones_own_stays_as_it_is():
    class AllPositions(VisionTransformer):
        def forward(self, x):
            return self.transformer(self.conv1(x).flatten(start_dim=2).permute(2, 0, 1)).mean(dim=0)

    class Doubled(ModifiedResNet):
        def forward(self, x):
            return 2 * super().forward(x)

    sizes = (1, 1, 1, 1), 32, 4, 64, 8
    for tower in (AllPositions(64, 16, 64, 2, 1, 32), draw(Doubled(*sizes)), nn.Sequential(build("RN"))):
        assert prepare(tower) is tower


def test_a_last_block_of_ones_own_stays_as_it_is():
    class Attention(nn.MultiheadAttention):
        def forward(self, *args, **options):
            output, weights = super().forward(*args, **options)
            return 2 * output, weights

    tower = VisionTransformer(64, 16, 64, 2, 1, 32)
    tower.transformer.resblocks[-1].attn = Attention(64, 1)
    assert prepare(tower) is tower
