"""A training step beside a method's formula, on the plain towers: the loss, and the gradients of what is learned."""

import torch

from tests.support.tiny_clip import golden_images
from tests.support.tolerance import assert_as_exact

LABELS = torch.tensor([0, 1, 2, 0, 1, 2])  # of the golden images


def leaves_of(trainer, dtype):
    """What a trainer learns, by name, as leaves of its own."""
    learner = trainer.model.prompt_learner
    return {name: value.detach().to(dtype, copy=True).requires_grad_() for name, value in learner.named_parameters()}


def assert_step_is(trainer, loss_of):
    """Does a step on the golden images, beside the formula `loss_of(leaves, images, dtype)`."""
    images, by_dtype = golden_images("vit"), []
    for dtype in (torch.float32, torch.float64):
        leaves = leaves_of(trainer, dtype)
        loss = loss_of(leaves, images.to(dtype), dtype)
        loss.backward()
        by_dtype.append({"loss": loss.detach(), **gradients(leaves.items())})
    loss = trainer.forward_backward({"img": images, "label": LABELS})["loss"]
    found = {"loss": loss, **gradients(trainer.model.prompt_learner.named_parameters())}
    plain, exact = by_dtype
    assert found.keys() == exact.keys()
    for name, value in found.items():
        assert exact[name].abs().max() > 0
        assert_as_exact(value, plain[name], exact[name])


def gradients(named):
    return {name: value.grad for name, value in named if value.grad is not None}
