"""Activation checkpointing of the image tower: the same bits, one block again at a time, and little that is kept."""

import pytest
import torch
from torch import nn

from clip.model import VisionTransformer

N_BLOCKS, N_IMAGES, WIDTH, N_PROMPTS = 5, 2, 16, 3
N_POSITIONS = 16 + 1  # patches and the class token


@pytest.fixture
def tower():
    """A tower that trains: with dropout, whose masks have to be the same when a block is computed again."""
    torch.manual_seed(0)
    tower = VisionTransformer(32, 8, WIDTH, N_BLOCKS, 2, 8)
    for block in tower.transformer.resblocks:
        block.mlp.append(nn.Dropout(0.5))
    return tower.train()


def step(tower, n_deep):
    """Features of images, and the gradients of all that can learn; `n_deep` blocks have prompts."""
    images = torch.randn(N_IMAGES, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    prompts = [torch.full((N_PROMPTS, WIDTH), 0.1 * (i + 1), requires_grad=True) for i in range(n_deep)]
    learned = [*prompts, *tower.parameters()]
    torch.manual_seed(2)
    features = tower(images, prompts)
    after = torch.rand(())  # the forward pass has drawn as many numbers
    gradients = torch.autograd.grad((features**2).sum(), learned)
    return [features.detach(), after, *gradients]


@pytest.mark.parametrize("n_deep", [0, 1, N_BLOCKS])
def test_features_and_gradients_are_the_same_bits(tower, n_deep):
    expected = step(tower, n_deep)
    found = step(tower.checkpointed(), n_deep)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert all(gradient.abs().max() > 0 for gradient in found[2:])


@pytest.mark.parametrize("n_deep", [0, 2])
def test_one_block_is_computed_again_at_a_time(tower, n_deep):
    """Its activations are used, and freed, before those of the block in front of it are computed."""
    events = []
    for i, block in enumerate(tower.transformer.resblocks):

        def record(module, args, output, i=i):
            events.append(f"compute {i}")
            if output.requires_grad:
                output.register_hook(lambda gradient: events.append(f"gradient {i}"))

        block.mlp.c_fc.register_forward_hook(record)  # in the middle of a block
    step(tower.checkpointed(), n_deep)
    n = N_BLOCKS - (n_deep > 0)  # with prompts, of the last block one position is computed: it is kept
    last = [f"gradient {n}"] * (n_deep > 0)
    again = [f"{what} {i}" for i in reversed(range(n)) for what in ("compute", "gradient")]
    assert events == [*(f"compute {i}" for i in range(N_BLOCKS)), *last, *again]


@pytest.mark.parametrize("n_deep", [0, N_BLOCKS])
def test_what_waits_for_the_backward_pass_is_small(tower, n_deep):
    """Bytes of tensors that are saved; checkpointing keeps an input of each block besides, which no hook sees."""
    tower.requires_grad_(False)
    prompts = [torch.zeros(N_PROMPTS, WIDTH, requires_grad=True) for _ in range(max(n_deep, 1))][:n_deep]
    images = torch.randn(N_IMAGES, 3, 32, 32, requires_grad=True)

    def kept(tower):
        sizes = {}

        def keep(tensor):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            features = tower(images, prompts)
        assert features.requires_grad
        weights = {parameter.untyped_storage().data_ptr() for parameter in tower.parameters()}
        return sum(size for pointer, size in sizes.items() if pointer not in weights)

    inputs = N_BLOCKS * N_IMAGES * (N_POSITIONS + N_PROMPTS * (n_deep > 0)) * WIDTH * 4
    assert kept(tower.checkpointed()) + inputs < kept(tower) / 3


def test_without_gradients_nothing_is_computed_again(tower):
    calls = []
    tower.eval().transformer.resblocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        features = tower.checkpointed()(torch.ones(1, 3, 32, 32))
        assert torch.equal(features, tower(torch.ones(1, 3, 32, 32)))
    assert len(calls) == 2


def test_the_tower_itself_stays_as_it_is(tower):
    checkpointed = tower.checkpointed()
    calls = []
    tower.transformer.resblocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    step(tower, 0)
    assert len(calls) == 1
    assert {id(parameter) for parameter in checkpointed.parameters()} == {id(own) for own in tower.parameters()}
    assert repr(checkpointed) == repr(tower)  # the cache of features knows a tower by it
