"""A text tower of another library, for both sides of a benchmark: as ours, and as the library computes it itself."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from clip.backbones import find_backbone
from clip.clip import load
from clip.two_towers import TwoTowers
from trainers.context import require_open


def write_random(architecture: str, folder: Path) -> str:
    """Writes weights that open_clip has drawn for one of its architectures; returns the name of the backbone."""
    import open_clip

    torch.manual_seed(0)
    torch.save(open_clip.create_model(architecture).state_dict(), folder / "random.pt")
    return f"open_clip:{architecture}/{folder / 'random.pt'}"


def build_towers(name: str) -> tuple[TwoTowers, nn.Module]:
    """Returns a backbone by its name, and its text tower as its own library computes it, in float32.

    Raises:
        ValueError: If the text tower takes no context vectors.
    """
    clip_model = load(name, "cpu")[0].requires_grad_(False)
    require_open(clip_model)
    backbone = find_backbone(name)
    if not name.startswith("open_clip:"):
        return clip_model, AllPositions(clip_model)
    text = backbone.build(backbone.weights_file(download=True)).text
    return clip_model, OpenClipTower(text.requires_grad_(False).float().eval())


class OpenClipTower(nn.Module):
    """open_clip's text tower, which gets prompts in place of the embeddings of tokens.

    Args:
        text: Its module.
    """

    def __init__(self, text: nn.Module):
        super().__init__()
        self.text = text

    def forward(self, prompts: Tensor, tokens: Tensor) -> Tensor:
        """Encodes prompts (C, L, D), embedded without positions; tokens (C, L) -> (C, E)."""
        handle = self.text.token_embedding.register_forward_hook(lambda *_: prompts)
        try:
            return self.text(tokens)
        finally:
            handle.remove()


class AllPositions(nn.Module):
    """Any tower of ours by the plain computation: all L positions of every prompt."""

    def __init__(self, clip_model: TwoTowers):
        super().__init__()
        self.clip_model = clip_model

    def forward(self, prompts: Tensor, tokens: Tensor) -> Tensor:
        """The same."""
        return self.clip_model.run_text(prompts, self.clip_model.read_at(tokens))
