"""Tiny models of a library that does not exist, of random weights: what a method sees of any CLIP-like model."""

import re
import zlib
from pathlib import Path

import torch
from torch import nn

from clip.tokens import OtherTokenizer
from clip.two_towers import ClosedTowers, ForeignTower, Preprocessing, TwoTowers

LENGTH, END, N_WORDS, JOINT = 24, 1, 3000, 16  # tokens of a text, id of the end token, vocabulary, joint width
PREPROCESSING = {
    "causal": Preprocessing(32, "bicubic", "hf_crop", (0.4, 0.5, 0.6), (0.3, 0.2, 0.1)),  # CLIP's tokens
    "not-causal": Preprocessing(24, "bilinear", "squash", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),  # words as tokens
    "closed": Preprocessing(24, "bilinear", "squash", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
FACTS = {"library": "made-up", "version": "1.0", "revision": "abc"}


class MadeUp:
    """A Backbone, see clip/backbones."""

    warning = ""

    def __init__(self, kind: str, folder: Path):
        self.kind, self.path = kind, folder / f"{kind}.weights"

    def load(self):
        torch.manual_seed(5)
        own = self.preprocessing()
        visual = ForeignTower(ImageTower(own.size), JOINT, own.size)
        if self.kind == "closed":
            text = ForeignTower(nn.EmbeddingBag(N_WORDS, JOINT), JOINT)
            return frozen(ClosedTowers(visual, text, words_tokenizer(), own, "reads a text in its own way"))
        sizes = {"embed_dim": JOINT, "width": 32, "heads": 2, "layers": 2, "preprocessing": own}
        if self.kind == "causal":
            return drawn(TwoTowers(visual, context_length=77, vocab_size=49408, activation="gelu", **sizes))
        other = {"causal": False, "pooling": "last", "projection_bias": True, "activation": "gelu_tanh", "eps": 1e-6}
        sizes |= {"context_length": LENGTH, "vocab_size": N_WORDS, "tokenizer": words_tokenizer()}
        return drawn(TwoTowers(visual, **sizes, **other))

    def preprocessing(self):
        return PREPROCESSING[self.kind]

    def weights_file(self, *, download: bool):
        if not self.path.is_file():
            self.path.write_text(self.kind)
        return self.path

    def config_file(self):
        return None

    def facts(self):
        return FACTS


class ImageTower(nn.Sequential):
    """Patches of 8 pixels, a batch norm, an average over the patches: images (B, 3, R, R) -> (B, E)."""

    def __init__(self, resolution: int):
        n_patches = (resolution // 8) ** 2
        norm = nn.BatchNorm2d(8)
        super().__init__(nn.Conv2d(3, 8, 8, 8), norm, nn.GELU(), nn.Flatten(), nn.Linear(8 * n_patches, JOINT))


def words_tokenizer() -> OtherTokenizer:
    """Words and marks to ids; a text ends with END, zeros stand behind it."""

    def encode(text: str) -> list[int]:
        return [2 + zlib.crc32(word.encode()) % (N_WORDS - 2) for word in re.findall(r"\w+|[^\w\s]", text.lower())]

    def rows(texts: list[str]) -> torch.Tensor:
        ids = [[*encode(text), END] for text in texts]
        return torch.tensor([[*row, *[0] * (LENGTH - len(row))] for row in ids])

    return OtherTokenizer(rows, encode, LENGTH, special={0, END}, n_special=1, end=END)


def drawn(model: TwoTowers) -> TwoTowers:
    """Draws all of its text tower: what is not initialised, and what starts at 0 or 1."""
    for name, parameter in model.named_parameters():
        if not name.startswith(("visual.", "logit_scale")):
            parameter.data = torch.randn_like(parameter) * 0.2 + float(re.search(r"ln_\w+\.weight", name) is not None)
    return frozen(model)


def frozen(model: nn.Module) -> nn.Module:
    return model.eval().requires_grad_(False)


def find_made_up(folder: Path):
    """Returns what stands for clip.backbones.find_backbone; weights lie in the folder.

    It knows hf:made-up/KIND, and hf:PATH/KIND where that is a folder.
    """

    def find(name):
        library, _, rest = str(name).partition(":")
        owner, _, kind = rest.rpartition("/")
        if library != "hf":
            return None
        if kind not in PREPROCESSING or not (owner == "made-up" or Path(rest).is_dir()):
            raise ValueError(f"There is no {name}.")
        return MadeUp(kind, folder)

    return find
