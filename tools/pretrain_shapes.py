"""Makes clip/shapes.npz: draws a web-like set of images and captions, and pretrains a tiny CLIP on it.

    attributes   loss = cross entropy of linear heads for shape, colour, texture + the same through attribute phrases
    captions     loss = (1 - w) contrastive(images, noisy captions) + w attributes,  w falling to 0

Not purely contrastive: alone and from scratch, the contrastive loss takes too long to find shape (docs/SHAPES.md).

Run: python -m tools.pretrain_shapes [--out clip/shapes.npz] [--cache FOLDER] [--seed 1] [--threads 2]
Cost: drawing half a minute, training about 25 on one of two busy CPU cores.
"""

import argparse
import logging
import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip import tokenize
from clip.clip import MEAN, STD
from clip.model import CLIP
from datasets.drawing.shapes_drawing import SIDE

from .shapes_captions import attribute_phrases
from .shapes_web import GROUPS, N_EASY, N_WEB, load_or_draw

log = logging.getLogger(__name__)

N_TOKENS = 40  # longest caption in tokens; the mean is 13
LOGIT_SCALE = 20.0  # fixed
VOCABULARY = 49_408
PADDING = 0
CONTEXT_LENGTH = 77


@dataclass(frozen=True)
class Stage:
    """One part of the pretraining; the learning rate is a cosine falling over n_cosine, damped for n_warmup steps."""

    name: str
    n_steps: int
    batch_size: int
    n_warmup: int
    n_cosine: int
    highest_lr: float
    lowest_lr: float
    contrastive: bool

    def learning_rate(self, step: int) -> float:
        height = (1.0 + math.cos(math.pi * step / self.n_cosine)) / 2
        return min(1.0, (step + 1) / self.n_warmup) * (self.lowest_lr + (self.highest_lr - self.lowest_lr) * height)


@dataclass(frozen=True)
class Pairs:
    """N images with their captions.

    Args:
        images: (N, 48, 48, 3) uint8.
        attributes: (N, 3) int64, indices of shape, colour and texture.
        captions: (N, 2, N_TOKENS) int16, rows of the used vocabulary.
        token_ids: (V,) int64, the token of each row of the used vocabulary, ascending.
    """

    images: Tensor
    attributes: Tensor
    captions: Tensor
    token_ids: Tensor


STAGES = (
    Stage("attributes", 3000, 64, n_warmup=200, n_cosine=4800, highest_lr=1e-3, lowest_lr=2e-5, contrastive=False),
    Stage("captions", 700, 128, n_warmup=100, n_cosine=700, highest_lr=7e-4, lowest_lr=1e-5, contrastive=True),
)
GROUP_SIZES = tuple(len(group) for group in GROUPS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("clip/shapes.npz"))
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "shapes_pretraining")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(args.threads)
    pairs = to_tensors(**load_or_draw(args.cache, args.seed))
    save(pretrain(pairs, args.seed), pairs.token_ids, args.out)


def to_tensors(images: np.ndarray, attributes: np.ndarray, captions: np.ndarray) -> Pairs:
    """Tokenises the captions, over a vocabulary of the tokens that occur."""
    texts, inverse = np.unique(captions, return_inverse=True)
    tokens = tokenize(texts.tolist(), N_TOKENS)
    rng = np.random.Generator(np.random.PCG64(0))
    phrases = torch.cat([tokenize(attribute_phrases(rng), N_TOKENS) for _ in range(200)])
    token_ids = torch.unique(torch.cat([tokens.flatten(), phrases.flatten()])).long()
    rows = _to_rows(tokens, token_ids).to(torch.int16)[torch.from_numpy(inverse.reshape(captions.shape))]
    return Pairs(torch.from_numpy(images), torch.from_numpy(attributes), rows, token_ids)


def pretrain(pairs: Pairs, seed: int) -> CLIP:
    """Runs both stages on a new model, whose vocabulary is that of the pairs."""
    torch.manual_seed(seed)
    model = CLIP(128, SIDE, 3, 128, 8, CONTEXT_LENGTH, len(pairs.token_ids), 128, 2, 3)
    _start_positions(model)
    for number, stage in enumerate(STAGES):
        head = nn.Linear(128, sum(GROUP_SIZES))  # a stage's own
        run_stage(stage, model, head, pairs, np.random.Generator(np.random.PCG64([seed, 1, number])))
    return model


def run_stage(stage: Stage, model: CLIP, head: nn.Linear, pairs: Pairs, rng: np.random.Generator) -> None:
    """Trains model and head in place."""
    parameters = [p for name, p in model.named_parameters() if name != "logit_scale"] + list(head.parameters())
    optimizer = torch.optim.AdamW(parameters, betas=(0.9, 0.98), weight_decay=0.05)
    start, means = time.time(), {}
    for step in range(stage.n_steps):
        progress = step / stage.n_steps
        for group in optimizer.param_groups:
            group["lr"] = stage.learning_rate(step)
        index = _draw_batch(stage, progress, rng)
        losses = _losses(stage, progress, model, head, pairs, index, rng)
        optimizer.zero_grad(set_to_none=True)
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        means = {k: 0.98 * means.get(k, v.item()) + 0.02 * v.item() for k, v in losses.items()}
        if (step + 1) % 100 == 0:
            text = "  ".join(f"{k} {v:.3f}" for k, v in means.items())
            log.info("%s %4d/%d  %4.0f s  %s", stage.name, step + 1, stage.n_steps, time.time() - start, text)


def save(model: CLIP, token_ids: Tensor, path: Path) -> None:
    """Writes OpenAI's keys in float16; token rows that were never trained are zero."""
    state = {key: value.detach().clone() for key, value in model.state_dict().items()}
    rows = torch.zeros(VOCABULARY, state["token_embedding.weight"].shape[1])
    rows[token_ids] = state["token_embedding.weight"]
    rows[PADDING] = 0.0  # after EOT nothing is read, so this row was not trained either
    state["token_embedding.weight"] = rows
    state["logit_scale"] = torch.tensor(math.log(LOGIT_SCALE))
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **{key: value.numpy().astype(np.float16) for key, value in state.items()})
    log.info("%s: %d bytes, %d token rows", path, path.stat().st_size, len(token_ids))


def _to_rows(tokens: Tensor, token_ids: Tensor) -> Tensor:
    return torch.searchsorted(token_ids, tokens.long())  # ascending: the largest row is EOT's, the smallest padding's


def _start_positions(model: CLIP) -> None:
    """2-D sines and cosines, so that the patches know from the start which ones are neighbours."""
    side = SIDE // 8
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    frequency = 1.0 / 100 ** (torch.arange(32) / 32)
    waves = [f(axis.reshape(-1, 1) * frequency) for axis in (x, y) for f in (torch.sin, torch.cos)]
    with torch.no_grad():
        model.visual.positional_embedding[1:] = 0.5 * torch.cat(waves, dim=1)


def _normalise(images: Tensor) -> Tensor:
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (images.permute(0, 3, 1, 2).float() / 255.0 - mean) / std  # (B, 48, 48, 3) -> (B, 3, 48, 48)


def _draw_batch(stage: Stage, progress: float, rng: np.random.Generator) -> Tensor:
    """Indices (B,): only easy images at first, only web images from the middle of the first stage on."""
    easy_share = 0.0 if stage.contrastive else min(1.0, max(0.0, 1.3 - 2.6 * progress))
    n = stage.batch_size
    easy = rng.random(n) < easy_share
    return torch.from_numpy(np.where(easy, rng.integers(0, N_EASY, n), N_EASY + rng.integers(0, N_WEB, n)))


def _losses(stage: Stage, progress: float, model, head, pairs: Pairs, index: Tensor, rng) -> dict[str, Tensor]:
    """Weighted losses of a batch by name; what is added up is what is minimised."""
    losses = {}
    image_features = model.encode_image(_normalise(pairs.images[index]))
    weight = max(0.0, 0.5 - progress) if stage.contrastive else 1.0  # of the attributes
    if weight > 0.0:
        phrases = _to_rows(tokenize(attribute_phrases(rng), N_TOKENS), pairs.token_ids)
        losses |= _attribute_losses(model, head, image_features, phrases, pairs.attributes[index], weight)
    if stage.contrastive:
        texts = pairs.captions[index, int(rng.integers(0, 2))].long()
        losses["contrastive"] = (1.0 - weight) * _contrastive(image_features, model.encode_text(texts))
    return losses


def _attribute_losses(
    model: CLIP, head: nn.Linear, image_features, phrases, labels, weight: float
) -> dict[str, Tensor]:
    """Cross entropies of shape, colour and texture, from the linear heads plus from the similarity to their phrases."""
    text_features = F.normalize(model.encode_text(phrases), dim=-1)
    similarity = LOGIT_SCALE * F.normalize(image_features, dim=-1) @ text_features.t()  # (B, 27)
    by_head, by_text = head(image_features).split(GROUP_SIZES, 1), similarity.split(GROUP_SIZES, 1)
    names = ("shape", "colour", "texture")
    return {
        name: weight * (F.cross_entropy(by_head[i], labels[:, i]) + F.cross_entropy(by_text[i], labels[:, i]))
        for i, name in enumerate(names)
    }


def _contrastive(image_features: Tensor, text_features: Tensor) -> Tensor:
    logits = LOGIT_SCALE * F.normalize(image_features, dim=-1) @ F.normalize(text_features, dim=-1).t()
    target = torch.arange(len(logits))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.t(), target)) / 2


if __name__ == "__main__":
    main()
