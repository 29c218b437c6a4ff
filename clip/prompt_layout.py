"""Where the tokens of a learned prompt stand: context vectors, class name, full stop, start and end.

A prompt is made from the placeholder text "X X X X name." of L = 77 tokens; a class-token position permutes it:

    end     [SOS] v_1 ... v_M [name] . [EOT]
    middle  [SOS] v_1 ... v_M/2 [name] v_M/2+1 ... v_M . [EOT]
    front   [SOS] [name] v_1 ... v_M . [EOT]

The name is the first len(encode(name)) tokens after the context; what follows it stays behind the context, whatever
token the full stop has become part of: in "chairs (folding)." the end ")." is one token.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .clip import beginning, tokenize, tokenizer
from .simple_tokenizer import END, START

POSITIONS = ("end", "middle", "front")


@dataclass(frozen=True)
class PromptLayout:
    """The prompts of C classes with M context vectors.

    Attributes:
        tokens: (C, L) int64, the placeholder texts; columns 1 to M stand for the context vectors.
        order: (C, L) int64, the column of `tokens` that stands at each position of the prompt.
        n_ctx: M.
        n_prefix: number of leading positions that hold the same in every class's prompt, with one context for all.
    """

    tokens: Tensor
    order: Tensor
    n_ctx: int
    n_prefix: int

    @property
    def eot(self) -> Tensor:
        """(C,) int64, the position of the end token, whose id is the largest."""
        return self.tokens.argmax(dim=-1)

    def is_learned(self) -> Tensor:
        """(C, L) bool, the positions of context vectors."""
        return (self.order >= 1) & (self.order <= self.n_ctx)

    def of_classes(self, rows: slice) -> PromptLayout:
        """Returns the prompts of some of the classes."""
        return replace(self, tokens=self.tokens[rows], order=self.order[rows])


def lay_out(classnames: list[str], n_ctx: int, position: str = "end", *, context_length: int = 77) -> PromptLayout:
    """Lays out the prompts of `classnames`; underscores in a name are read as spaces.

    Args:
        classnames: C names.
        n_ctx: M, the number of context vectors, at least 1.
        position: Where the name stands among them: "end", "middle" or "front".
        context_length: L, the tokens that the text tower takes.

    Raises:
        ValueError: If the position is unknown, M < 1, a prompt has more than L tokens, or a name would end its own.
    """
    if position not in POSITIONS:
        raise ValueError(f"The class-token position is {position!r}; it must be one of: {', '.join(POSITIONS)}.")
    if n_ctx < 1:
        raise ValueError(f"The number of context vectors is {n_ctx}; it must be at least 1.")
    names = [name.replace("_", " ") for name in classnames]
    encode, special = tokenizer().encode, {tokenizer().encoder[symbol] for symbol in (START, END)}
    placeholder = "X " * n_ctx
    for name in names:
        ids = encode(f"{placeholder}{name}.")
        if len(ids) + 2 > context_length:
            raise ValueError(
                f"The prompt of class {beginning(name)} has {len(ids) + 2} tokens with {n_ctx} context vectors; "
                f"at most {context_length} are allowed. Shorten the class name or lower N_CTX."
            )
        if special & set(ids):
            raise ValueError(
                f"The class name {beginning(name)} holds {START} or {END}, which begin and end a prompt. "
                "Change the class name to plain words."
            )
    tokens = tokenize([f"{placeholder}{name}." for name in names], context_length=context_length).long()
    before = {"end": n_ctx, "middle": n_ctx // 2, "front": 0}[position]  # context vectors in front of the name
    order = [_order(before, n_ctx, len(encode(name)), context_length) for name in names]
    return PromptLayout(tokens, torch.tensor(order), n_ctx, 1 + before)


def _order(before: int, n_ctx: int, n_name: int, context_length: int) -> list[int]:
    columns = list(range(context_length))
    context, name = columns[1 : 1 + n_ctx], columns[1 + n_ctx : 1 + n_ctx + n_name]
    return [0, *context[:before], *name, *context[before:], *columns[1 + n_ctx + n_name :]]
