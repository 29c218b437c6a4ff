"""The plain computation that the fast encoder is compared with: every place of every prompt, after the formula."""

import torch

from clip.clip import tokenize, tokenizer


def naive_prompts(clip_model, ctx, classnames, position):
    """Context (M, D) or (C, M, D) -> embedded prompts (C, 77, D) and their tokens (C, 77), class by class."""
    n_ctx, prompts, tokens = ctx.shape[-2], [], []
    encode = tokenizer().encode
    for c, classname in enumerate(classnames):
        name = classname.replace("_", " ")
        row = tokenize(" ".join(["X"] * n_ctx) + f" {name}.")[0].long()
        embedding = clip_model.token_embedding(row).to(clip_model.dtype)
        vectors = ctx[c] if ctx.dim() == 3 else ctx
        n_name = len(encode(name))
        start, words = embedding[:1], embedding[1 + n_ctx : 1 + n_ctx + n_name]
        rest = embedding[1 + n_ctx + n_name :]
        half = n_ctx // 2
        parts = {
            "end": [start, vectors, words, rest],
            "middle": [start, vectors[:half], words, vectors[half:], rest],
            "front": [start, words, vectors, rest],
        }[position]
        prompts.append(torch.cat(parts))
        tokens.append(row)
    return torch.stack(prompts), torch.stack(tokens)


def naive_features(clip_model, ctx, classnames, position):
    """Context (M, D) or (C, M, D) -> text features (C, E) by all 77 places of every prompt."""
    prompts, tokens = naive_prompts(clip_model, ctx, classnames, position)
    x = prompts + clip_model.positional_embedding.to(clip_model.dtype)
    x = clip_model.transformer(x.permute(1, 0, 2)).permute(1, 0, 2)  # (C, L, D) -> (L, C, D) and back
    x = clip_model.ln_final(x).to(clip_model.dtype)
    return x[torch.arange(len(x)), tokens.argmax(dim=-1)] @ clip_model.text_projection
