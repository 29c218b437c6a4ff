"""Methods on frozen features, beside float64 versions of what they compute: the golden CLIP's features by hand."""

import torch
from torch import Tensor

from clip import build_model, tokenize
from engine.trainer import TrainerX
from tests.support.tiny_clip import golden_state_dict
from tests.support.tiny_run import CLASSES

B, E = 5, 32  # images of a batch, width of the golden CLIP's features


def batch_of(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features (B, E) float32 of any length, and labels (B,)."""
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(B, E, generator=generator), torch.randint(len(CLASSES), (B,), generator=generator)


def texts_of(*templates: str) -> list[Tensor]:
    """The text features (C, E) float64 of the tiny run's classes under each template, not normalised."""
    model = build_model(golden_state_dict("vit")).requires_grad_(False)
    names = [name.replace("_", " ") for name in CLASSES]
    texts = [tokenize([template.replace("{}", name) for name in names]) for template in templates]
    return [model.encode_text(tokens).double() for tokens in texts]


def views_of(trainer: TrainerX, n_views: int) -> tuple[Tensor, Tensor]:
    """The features (N, V, E) float64 of the training images, not normalised, and labels (N,), from views drawn here."""
    dataset = trainer.dm.train_loader_x.dataset
    views = []
    for epoch in range(n_views):
        dataset.set_epoch(epoch)
        images = torch.stack([dataset[index]["img"] for index in range(len(dataset))])
        with torch.no_grad():
            views.append(trainer.clip_model.encode_image(images).double())
    return torch.stack(views, dim=1), torch.tensor([item.label for item in dataset.data_source])


def unit(vectors: Tensor) -> Tensor:
    return vectors / vectors.pow(2).sum(dim=-1, keepdim=True).sqrt()


def scale_of(trainer: TrainerX) -> Tensor:
    """What the authors' codes write as 100, float64."""
    return trainer.clip_model.logit_scale.double().exp()


def step(trainer: TrainerX, features: Tensor, labels: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The loss of one step of the trainer, and the gradients of what it learns."""
    loss = trainer.forward_backward({"features": features, "label": labels})["loss"]
    return loss, [parameter.grad for parameter in trainer.model.prompt_learner.parameters()]


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.exp().sum(dim=1).log() - logits[torch.arange(len(labels)), labels]).mean()
