"""Where the tokens of a learned prompt stand: context vectors, class name, full stop, start and end.

A prompt is made from the placeholder text "X X X X name." of L = 77 tokens; a class-token position permutes it:

    end     [SOS] v_1 ... v_M [name] . [EOT]
    middle  [SOS] v_1 ... v_M/2 [name] v_M/2+1 ... v_M . [EOT]
    front   [SOS] [name] v_1 ... v_M . [EOT]

The name is as many tokens, first after the context, as it adds to a placeholder; what follows it stays behind the
context, whatever token the full stop has become part of: in "chairs (folding)." the end ")." is one token.

A method may have other words than "name.": those in front of the name are the same in all prompts, as the context is.
Where it learns no context, M = 0, the prompts are words alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .tokens import ClipTokenizer, Tokenizer, beginning

POSITIONS = ("end", "middle", "front")


@dataclass(frozen=True)
class PromptLayout:
    """The prompts of C classes with M context vectors.

    Attributes:
        tokens: (C, L) int64, the placeholder texts; M columns behind the start stand for the context vectors.
        order: (C, L) int64, the column of `tokens` that stands at each position of the prompt.
        eot: (C,) int64, the position behind a prompt's own tokens, that of the end token.
        n_ctx: M.
        n_start: special tokens in front: 1, [SOS], or none.
        n_prefix: number of leading positions that hold the same in every class's prompt, with one context for all.
    """

    tokens: Tensor
    order: Tensor
    eot: Tensor
    n_ctx: int
    n_start: int
    n_prefix: int

    def vectors(self) -> Tensor:
        """(C, L) int64, the index of the context vector at each position; -1 for tokens."""
        index = self.order - self.n_start
        return torch.where((index >= 0) & (index < self.n_ctx), index, -1)

    @property
    def longest(self) -> int:
        """The most positions up to an end token, itself included."""
        return int(self.eot.max()) + 1

    def of_classes(self, rows: slice) -> PromptLayout:
        """Returns the prompts of some of the classes."""
        return replace(self, tokens=self.tokens[rows], order=self.order[rows], eot=self.eot[rows])


def lay_out(
    classnames: list[str],
    n_ctx: int,
    position: str = "end",
    *,
    context_length: int = 77,
    tokenizer: Tokenizer | None = None,
    words: str = "{}.",
) -> PromptLayout:
    """Lays out the prompts of `classnames`; underscores in a name are read as spaces.

    Args:
        classnames: C names.
        n_ctx: M, the number of context vectors, at least 1.
        position: Where the name stands among them: "end", "middle" or "front".
        context_length: L, the tokens that the text tower takes.
        tokenizer: Of the text tower; None: CLIP's.
        words: What stands behind the context; `{}` is the name. In front of the name words need the position "end".

    Raises:
        ValueError: If the position is unknown, M < 1, a prompt has more than L tokens, or a name would end its own.
    """
    if position not in POSITIONS:
        raise ValueError(f"The class-token position is {position!r}; it must be one of: {', '.join(POSITIONS)}.")
    if n_ctx < 1:
        raise ValueError(f"The number of context vectors is {n_ctx}; it must be at least 1.")
    return _lay_out(classnames, n_ctx, position, tokenizer or ClipTokenizer(context_length), words)


def lay_out_words(classnames: list[str], template: str, *, tokenizer: Tokenizer | None = None) -> PromptLayout:
    """Lays out prompts without context vectors; underscores in a name are read as spaces.

    Args:
        classnames: C names.
        template: The prompt; `{}` is the name.
        tokenizer: Of the text tower; None: CLIP's.

    Raises:
        ValueError: If a prompt has more tokens than the tower takes, or a name would end its own.
    """
    return _lay_out(classnames, 0, "end", tokenizer or ClipTokenizer(), template)


def _lay_out(classnames: list[str], n_ctx: int, position: str, tokenizer: Tokenizer, words: str) -> PromptLayout:
    encode, n_start, special = tokenizer.encode, tokenizer.n_start, tokenizer.special
    names = [name.replace("_", " ") for name in classnames]
    context, fixed = f"{tokenizer.placeholder} " * n_ctx, words.partition("{}")[0]
    fixed = fixed[: fixed.rfind(" ") + 1]  # what touches the name may become one token with its beginning
    assert not fixed or position == "end", f"{fixed!r} stands in front of the name, which is not at the end"
    texts = [context + words.format(name) for name in names]
    own = [encode(text) for text in texts]
    for name, ids in zip(names, own):
        n_tokens = len(ids) + tokenizer.n_special
        if n_tokens > tokenizer.context_length:
            vectors, remedy = (f" with {n_ctx} context vectors", " or lower N_CTX") if n_ctx else ("", "")
            raise ValueError(
                f"The prompt of class {beginning(name)} has {n_tokens} tokens{vectors}; at most "
                f"{tokenizer.context_length} are allowed. Shorten the class name{remedy}."
            )
        if special & set(ids):
            raise ValueError(
                f"The class name {beginning(name)} holds {tokenizer.marks}, which begin and end a prompt. "
                "Change the class name to plain words."
            )
    tokens = tokenizer(texts)
    before = {"end": n_ctx, "middle": n_ctx // 2, "front": 0}[position]  # context vectors in front of the name
    n_own = [len(encode(f"{tokenizer.placeholder} {name}")) - 1 for name in names]  # a first word may be cut otherwise
    order = [_order(n_start, before, n_ctx, n_name, tokens.shape[1]) for n_name in n_own]
    eot = torch.tensor([n_start + len(ids) for ids in own])
    n_fixed = len(encode(context + fixed)) - n_ctx if fixed else 0
    return PromptLayout(tokens, torch.tensor(order), eot, n_ctx, n_start, n_start + before + n_fixed)


def _order(n_start: int, before: int, n_ctx: int, n_name: int, context_length: int) -> list[int]:
    columns = list(range(context_length))
    start, context, words = columns[:n_start], columns[n_start : n_start + n_ctx], columns[n_start + n_ctx :]
    return [*start, *context[:before], *words[:n_name], *context[before:], *words[n_name:]]
