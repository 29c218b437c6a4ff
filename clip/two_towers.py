"""What every method sees of a CLIP-like model: an image tower, a text tower, the tokens and the images they take.

    image_features = visual(image)                                                              (B, E)
    text_features  = read_out(transformer(token_embedding + positional_embedding))              (C, E)
    logits         = exp(logit_scale) * cos(image_features, text_features)                      (B, C)

A model that was trained with a sigmoid adds `logit_bias` to every logit. A softmax over classes does not see it.

B images, C texts, L tokens, W the text tower's width, E the joint width.
"""

import copy
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import LayerNorm, Transformer, check_length
from .tokens import ClipTokenizer, Tokenizer

MEAN = (0.48145466, 0.4578275, 0.40821073)  # OpenAI's, of R, G, B in [0, 1]
STD = (0.26862954, 0.26130258, 0.27577711)


def copy_modules(model: nn.Module, *shared: object) -> nn.Module:
    """Returns a copy of a model's modules with the same tensors, and the same `shared` attributes.

    What is replaced in the copy leaves the model as it is; no tensor of it may be changed.
    """
    same = (*model.parameters(), *model.buffers(), *shared)
    return copy.deepcopy(model, {id(one): one for one in same})  # which takes these for copied already


@dataclass(frozen=True)
class Preprocessing:
    """How the images of an image tower are prepared.

    Attributes:
        size: edge of the square input, in pixels.
        interpolation: "bicubic", "bilinear" or "nearest".
        resize: "crop", "hf_crop" or "squash", see INPUT.RESIZE in engine/config/defaults.py.
        mean, std: of R, G, B in [0, 1].
    """

    size: int
    interpolation: str = "bicubic"
    resize: str = "crop"
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD


class ForeignTower(nn.Module):
    """A tower of another library: it computes in the dtype of its parameters.

    Args:
        module: From images (B, 3, R, R), or tokens (C, L), to features (n, E).
        input_resolution: R, of an image tower.
        output_dim: E.
        config: what it was built from: the number of heads changes no weight, and a module's repr leaves it out.
    """

    def __init__(self, module: nn.Module, output_dim: int, input_resolution: int | None = None, config: str = ""):
        super().__init__()
        self.module, self.output_dim, self.input_resolution = module, output_dim, input_resolution
        self.config = config

    def extra_repr(self) -> str:
        """Returns what the cache of features knows a tower by, besides its modules and weights."""
        return self.config

    @property
    def dtype(self) -> torch.dtype:
        return next(self.module.parameters()).dtype

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x.type(self.dtype) if x.is_floating_point() else x)


class ClosedTowers(nn.Module):
    """Two towers whose text tower cannot be entered: it encodes texts, and takes no context vectors.

    Args:
        visual: The image tower.
        text: From tokens (C, L) to features (C, E).
        tokenizer: Of the text tower.
        preprocessing: Of the image tower.
        closed: Why it cannot be entered, the end of a sentence that begins with "The text tower ...".
    """

    closed: str = ""
    logit_bias: float | None = None

    def __init__(
        self, visual: nn.Module, text: nn.Module, tokenizer: Tokenizer, preprocessing: Preprocessing, closed: str
    ):
        super().__init__()
        self.visual, self.text, self.closed = visual, text, closed
        self.tokenizer, self.preprocessing = tokenizer, preprocessing
        self.logit_scale = nn.Parameter(torch.ones([]) * math.log(1 / 0.07))

    @property
    def dtype(self) -> torch.dtype:
        return self.text.dtype

    def encode_image(self, image: Tensor) -> Tensor:
        """Image features, not normalised: (B, 3, R, R), preprocessed -> (B, E)."""
        return self.visual(image)

    def encode_text(self, text: Tensor) -> Tensor:
        """Text features, not normalised: (C, L) token ids as `tokenizer` gives them -> (C, E)."""
        return self.text(text)

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Scaled cosine similarities: `logits_per_image` (B, C) and its transpose `logits_per_text` (C, B)."""
        return similarities(self, image, text)


class TwoTowers(nn.Module):
    """Two towers whose text tower is a transformer of blocks as OpenAI's: methods put vectors into it.

    Args:
        visual: The image tower, with `input_resolution` and `output_dim`.
        embed_dim: E.
        context_length: L, the largest number of tokens in a text.
        vocab_size: rows of `token_embedding`.
        width, heads, layers: of the text tower.
        causal: whether a position sees only those before it and itself. Only then do prompts share anything.
        pooling: where a feature is read: "end" of the text, or the "last" or "first" of L positions.
        projection_bias: whether the projection into the joint space has a bias.
        tokenizer: Of the text tower; None: CLIP's.
        preprocessing: Of the image tower; None: OpenAI's, at the tower's resolution.
        **block: what differs from OpenAI's blocks: activation, mlp_width, eps.
    """

    closed = ""
    logit_bias: float | None = None

    def __init__(
        self,
        visual: nn.Module,
        *,
        embed_dim: int,
        context_length: int,
        vocab_size: int,
        width: int,
        heads: int,
        layers: int,
        causal: bool = True,
        pooling: str = "end",
        projection_bias: bool = False,
        tokenizer: Tokenizer | None = None,
        preprocessing: Preprocessing | None = None,
        **block,
    ):
        super().__init__()
        self.context_length, self.vocab_size, self.pooling = context_length, vocab_size, pooling
        self.tokenizer = tokenizer or ClipTokenizer(context_length)
        self.preprocessing = preprocessing or Preprocessing(visual.input_resolution)
        self.visual = visual
        self.transformer = Transformer(width, layers, heads, context_length, causal, **block)
        self.token_embedding = nn.Embedding(vocab_size, width)
        self.positional_embedding = nn.Parameter(torch.empty(context_length, width))
        self.ln_final = LayerNorm(width, eps=block.get("eps", 1e-5))
        self.text_projection = nn.Parameter(torch.empty(width, embed_dim))
        if projection_bias:
            self.text_projection_bias = nn.Parameter(torch.empty(embed_dim))
        self.logit_scale = nn.Parameter(torch.ones([]) * math.log(1 / 0.07))

    @property
    def dtype(self) -> torch.dtype:
        return self.text_projection.dtype

    def encode_image(self, image: Tensor) -> Tensor:
        """Image features, not normalised: (B, 3, R, R), preprocessed -> (B, E)."""
        return self.visual(image.type(self.dtype))

    def encode_text(self, text: Tensor) -> Tensor:
        """Text features, not normalised.

        Args:
            text: (C, L) token ids as `tokenizer` gives them; a causal tower takes fewer columns, too.

        Returns:
            (C, E), read where `pooling` says.

        Raises:
            ValueError: there are more than `context_length` columns.
        """
        check_length(text.shape[1], self.context_length)
        read_at = self.read_at(text)
        # The tower is causal: what follows an EOT cannot change it, so columns after the batch's last EOT are skipped.
        # Not in a trace, which would cut all later texts there too.
        if self.transformer.causal and text.shape[0] and not (torch.jit.is_tracing() or torch.compiler.is_compiling()):
            text = text[:, : int(read_at.max()) + 1]
        x = self.token_embedding(text).type(self.dtype)  # (C, L, W)
        return self.run_text(x, read_at)

    def run_text(self, x: Tensor, read_at: Tensor) -> Tensor:
        """Features (C, E), not normalised, of embedded texts (C, L, W) without positions, read at (C,) positions."""
        x = x + self.positional_embedding[: x.shape[1]].type(self.dtype)
        x = x.permute(1, 0, 2)  # (C, L, W) -> (L, C, W)
        x = self.transformer(x)
        x = x.permute(1, 0, 2)  # (L, C, W) -> (C, L, W)
        # The layer norm treats every position alone: taking one first is exact.
        return self.read_out(x[torch.arange(x.shape[0], device=x.device), read_at])

    def read_out(self, x: Tensor) -> Tensor:
        """From states (..., W) of the last block to features (..., E)."""
        return read_out(x, self.ln_final, self.text_projection, getattr(self, "text_projection_bias", None))

    def read_at(self, text: Tensor) -> Tensor:
        """(C,) int64, the position at which the feature of each text (C, L) is read."""
        if self.pooling == "end":
            return self.tokenizer.end_of(text)
        return torch.full((len(text),), 0 if self.pooling == "first" else text.shape[1] - 1, device=text.device)

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Scaled cosine similarities: `logits_per_image` (B, C) and its transpose `logits_per_text` (C, B)."""
        return similarities(self, image, text)


def similarities(model: TwoTowers | ClosedTowers, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
    image_features = F.normalize(model.encode_image(image), dim=-1)
    text_features = F.normalize(model.encode_text(text), dim=-1)
    logits_per_image = model.logit_scale.exp() * image_features @ text_features.t()
    return logits_per_image, logits_per_image.t()


def read_out(x: Tensor, ln_final: nn.Module, projection: Tensor, bias: Tensor | None = None) -> Tensor:
    """From states (..., W) of a text tower's last block to features (..., E)."""
    features = ln_final(x).type(projection.dtype) @ projection
    return features if bias is None else features + bias
