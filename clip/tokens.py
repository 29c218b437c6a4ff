"""Texts to rows of token ids: CLIP's byte pairs, or the tokenizer that another model was trained with."""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from .simple_tokenizer import END, START, SimpleTokenizer

PLACEHOLDERS = ("X", "x", "a", "the", "it", "1")  # a word that is one token: it stands for a context vector


def tokenize(texts: str | list[str], context_length: int = 77, truncate: bool = False) -> Tensor:
    """Token ids as the text tower takes them: start, the text's, end, then zeros.

    Args:
        texts: C texts, or one.
        context_length: L, number of columns.
        truncate: cut a text that is too long (its last id becomes end), where otherwise it is an error.

    Returns:
        (C, L) int32.

    Raises:
        ValueError: a text has more than `context_length` tokens, start and end included.
    """
    texts = [texts] if isinstance(texts, str) else texts
    bpe = tokenizer()
    start, end = bpe.encoder[START], bpe.encoder[END]
    result = torch.zeros(len(texts), context_length, dtype=torch.int)
    for row, text in zip(result, texts, strict=True):
        ids = [start, *bpe.encode(text), end]
        if len(ids) > context_length:
            if not truncate:
                # Differs from OpenAI: ValueError, not RuntimeError, as for every wrong argument here.
                raise ValueError(
                    f"The text {beginning(text)} is {len(ids)} tokens long with start and end; at most "
                    f"{context_length} are allowed. Shorten it; callers of `tokenize` may pass truncate=True to cut it."
                )
            ids = [*ids[: context_length - 1], end]
        row[: len(ids)] = torch.tensor(ids)
    return result


def beginning(text: str) -> str:
    """What an error says of a text, which may be long, of several lines, or not printable."""
    return repr(text if len(text) <= 100 else f"{text[:100]}...")


@lru_cache
def tokenizer() -> SimpleTokenizer:
    """The tokenizer with CLIP's vocabulary, read once."""
    return SimpleTokenizer()


class Tokenizer:
    """What turns texts into the rows that a text tower takes.

    Attributes:
        context_length: L.
        placeholder: a word that is one token wherever it stands; context vectors take its positions.
        n_start: special tokens in front of a text.
        n_special: special tokens around a text, padding aside.
        marks: what an error calls the special tokens.
    """

    context_length: int
    placeholder: str
    n_start: int
    n_special: int
    marks = "special tokens"

    @property
    def special(self) -> set[int]:
        """Ids of special tokens, which no class name may hold."""
        raise NotImplementedError

    def encode(self, text: str) -> list[int]:
        """Returns a text's own tokens, without special ones."""
        raise NotImplementedError

    def rows(self, texts: list[str]) -> Tensor:
        """Returns (C, L) token ids with special tokens and padding, of texts that are short enough."""
        raise NotImplementedError

    def end_of(self, rows: Tensor) -> Tensor:
        """Returns (C,) int64, the position of the end token in rows (C, L)."""
        raise NotImplementedError

    def __call__(self, texts: list[str]) -> Tensor:
        """Returns the rows (C, L) int64 of C texts.

        Raises:
            ValueError: a text has more than L tokens, special ones included.
        """
        for text in texts:
            n_tokens = len(self.encode(text)) + self.n_special
            if n_tokens > self.context_length:
                raise ValueError(
                    f"The text {beginning(text)} is {n_tokens} tokens long; at most {self.context_length} are allowed. "
                    "Shorten it."
                )
        return self.rows(texts).long()


class ClipTokenizer(Tokenizer):
    """CLIP's own: [SOS], the text's byte pairs, [EOT], whose id is the largest, then zeros."""

    placeholder, n_start, n_special = "X", 1, 2
    marks = f"{START} or {END}"

    def __init__(self, context_length: int = 77):
        self.context_length = context_length

    @property
    def special(self) -> set[int]:
        return {tokenizer().encoder[symbol] for symbol in (START, END)}

    def encode(self, text: str) -> list[int]:
        return tokenizer().encode(text)

    def rows(self, texts: list[str]) -> Tensor:
        return tokenize(texts, context_length=self.context_length)

    def end_of(self, rows: Tensor) -> Tensor:
        return rows.argmax(dim=-1)


class OtherTokenizer(Tokenizer):
    """One of another library.

    Args:
        rows: From texts to (C, L) token ids, with all special tokens and padding.
        encode: From a text to its own token ids, without special ones.
        context_length: L.
        special: ids of special tokens.
        n_special: special tokens around a text, padding aside.
        end: id of the token at which a causal tower is read; None: the tower is not read there.

    Raises:
        ValueError: no word is a single token, so context vectors have no positions.
    """

    def __init__(
        self,
        rows: Callable[[list[str]], Tensor],
        encode: Callable[[str], list[int]],
        context_length: int,
        *,
        special: set[int],
        n_special: int,
        end: int | None = None,
    ):
        self._rows, self._encode, self._special, self.end = rows, encode, special, end
        self.context_length, self.n_special = context_length, n_special
        # The first word of a text may have another id than the same word behind a space.
        single = (word for word in PLACEHOLDERS if all(len(encode(" ".join([word] * n))) == n for n in (1, 2, 3)))
        self.placeholder = next(single, "")
        if not self.placeholder:
            raise ValueError(
                f"The tokenizer makes several tokens of each of {', '.join(PLACEHOLDERS)}; one of them must be one "
                "token, to stand for a context vector. Bring the tokenizer that the model was trained with."
            )
        self.n_start = rows([self.placeholder])[0].tolist().index(encode(self.placeholder)[0])

    @property
    def special(self) -> set[int]:
        return self._special

    def encode(self, text: str) -> list[int]:
        return self._encode(text)

    def rows(self, texts: list[str]) -> Tensor:
        return self._rows(texts)

    def end_of(self, rows: Tensor) -> Tensor:
        assert self.end is not None, "a tower is read at the end of a text, but its tokenizer has no end token"
        return (rows == self.end).int().argmax(dim=-1)
