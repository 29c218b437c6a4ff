"""The vocabulary's words nearest to vectors in the space of CLIP's token embedding."""

import unicodedata

import torch
from torch import Tensor

from .backbones import find_backbone
from .clip import available_models, resolve, tokenizer, weights_sha256
from .download import sha256
from .simple_tokenizer import END, END_OF_WORD, START, VOCAB_SIZE
from .tokens import ClipTokenizer
from .weights import is_torchscript, read_state_dict

CHUNK = 256  # vectors at once: their distances to all tokens are 100 MB


def read_embedding(backbone: str, *, trusted: bool = True) -> Tensor:
    """Reads the token embedding (49,408, D) of a CLIP, float32.

    Args:
        backbone: The model's name, or the path of its weights.
        trusted: Whether the user has given it. A file that another file names may be no program, unless OpenAI's.

    Raises:
        ValueError: The name is unknown, or the file holds no CLIP, or is not trusted; or the model has a tokenizer of
            its own, whose words are not known here.
    """
    path = resolve(backbone)
    if not trusted and is_torchscript(path) and sha256(path) not in map(weights_sha256, available_models()):
        raise ValueError(
            f"{path}, which the run's files name, is a TorchScript archive, and an archive is a program. Only a state "
            f"dict is read unasked. If you trust it, name it yourself: --backbone {path}"
        )
    if other := find_backbone(backbone):
        model = other.load()
        if model.closed or not isinstance(model.tokenizer, ClipTokenizer) or model.vocab_size != VOCAB_SIZE:
            raise ValueError(
                f"{backbone} has other tokens than OpenAI's CLIP, and their words are not known here. Only contexts of "
                "models with CLIP's vocabulary can be shown as words."
            )
        return model.token_embedding.weight.detach().float()
    embedding = read_state_dict(path).get("token_embedding.weight")
    if embedding is None or len(embedding) != VOCAB_SIZE:
        found = "no token_embedding.weight" if embedding is None else f"{len(embedding):,} tokens"
        raise ValueError(f"{path} has {found}; CLIP has {VOCAB_SIZE:,} tokens. Name a CLIP: --backbone NAME.")
    return embedding.float()


def nearest_words(ctx: Tensor, embedding: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Finds the rows of the token embedding nearest to each context vector; rows of zeros do not take part.

    Args:
        ctx: (M, D) context vectors.
        embedding: (V, D), a row for each token.
        k: Number of rows to find.

    Returns:
        (M, k) Euclidean distances, float32 and ascending, and (M, k) tokens, which index the rows.

    Raises:
        ValueError: k is out of range.
    """
    trained = embedding.any(dim=1).nonzero().squeeze(1)  # (V',)
    if not 1 <= k <= len(trained):
        raise ValueError(f"TOPK is {k}; it must be from 1 to {len(trained)}, the number of trained tokens. Change it.")
    # By way of a matrix product, which is fast, but in float32 would lose the digits of small distances.
    rows, by_product = embedding[trained].double(), {"compute_mode": "use_mm_for_euclid_dist"}
    nearest = [torch.cdist(part.double(), rows, **by_product).topk(k, largest=False) for part in ctx.split(CHUNK)]
    distances, indices = (torch.cat(parts) for parts in zip(*nearest))  # (M, k)
    return distances.float(), trained[indices]


def word_of(token: int) -> str:
    """A token as a readable word: with "…" if it only begins one, with escapes for what cannot be printed."""
    bpe = tokenizer()
    symbol = bpe.decoder[token]
    if symbol in (START, END):
        return symbol
    raw = bytes(bpe.byte_decoder[character] for character in symbol.removesuffix(END_OF_WORD))
    text = raw.decode("utf-8", errors="backslashreplace")
    is_lone_mark = unicodedata.category(text[0]).startswith("M")  # nothing before it to stand on
    shown = (_escape(text[0]) if is_lone_mark else text[0]) + text[1:]
    shown = "".join(c if c.isprintable() and c != " " else _escape(c) for c in shown)
    return shown + ("" if symbol.endswith(END_OF_WORD) else "…")


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
