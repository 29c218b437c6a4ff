"""The plain computation that the fast encoder is compared with: every position of every prompt, by the formula."""

import copy

import torch
import torch.nn.functional as F

from clip.clip import tokenize, tokenizer


def naive_prompts(clip_model, ctx, classnames, position, words="{}."):
    """Context (M, D) or (C, M, D) -> embedded prompts (C, 77, D) and their tokens (C, 77), class by class.

    `words` stand behind the context; other words than "{}." need the position "end".
    """
    n_ctx, prompts, tokens = ctx.shape[-2], [], []
    encode = tokenizer().encode
    for c, classname in enumerate(classnames):
        text = classname.replace("_", " ")
        row = tokenize(" ".join(["X"] * n_ctx) + " " + words.replace("{}", text))[0].long()
        embedding = clip_model.token_embedding(row).to(clip_model.dtype)
        vectors = ctx[c] if ctx.dim() == 3 else ctx
        n_name = len(encode(text))
        start, name = embedding[:1], embedding[1 + n_ctx : 1 + n_ctx + n_name]
        rest = embedding[1 + n_ctx + n_name :]
        half = n_ctx // 2
        parts = {
            "end": [start, vectors, name, rest],
            "middle": [start, vectors[:half], name, vectors[half:], rest],
            "front": [start, name, vectors, rest],
        }[position]
        prompts.append(torch.cat(parts))
        tokens.append(row)
    return torch.stack(prompts), torch.stack(tokens)


def naive_features(clip_model, ctx, classnames, position, deep=(), words="{}."):
    """Context (M, D) or (C, M, D) -> text features (C, E) by all 77 positions of every prompt.

    `deep` holds (K, D), or (C, K, D) for each class, or None: they replace positions 1 to K before block 1, 2, ...
    """
    prompts, tokens = naive_prompts(clip_model, ctx, classnames, position, words)
    x = prompts + clip_model.positional_embedding.to(clip_model.dtype)
    x = x.permute(1, 0, 2)  # (C, L, D) -> (L, C, D)
    for i, block in enumerate(clip_model.transformer.resblocks):
        if 1 <= i <= len(deep) and deep[i - 1] is not None:
            vectors = deep[i - 1].expand(x.shape[1], -1, -1).permute(1, 0, 2)  # (K, C, D)
            x = torch.cat([x[:1], vectors, x[1 + len(vectors) :]])
        x = block(x)
    x = x.permute(1, 0, 2)  # (L, C, D) -> (C, L, D)
    x = clip_model.ln_final(x).to(clip_model.dtype)
    return x[torch.arange(len(x)), tokens.argmax(dim=-1)] @ clip_model.text_projection


def naive_image_features(clip_model, images, prompts=()):
    """Images (B, 3, R, R) -> features (B, E) of a ViT, image by image and head by head.

    `prompts` holds (K, W) each: the first stands behind the patches, the others replace it before block 1, 2, ...
    """
    tower, features = clip_model.visual, []
    for image in images:
        patches = tower.conv1(image[None])[0].flatten(1).t()  # (H * H, W)
        x = torch.cat([tower.class_embedding[None], patches]) + tower.positional_embedding
        n_own = len(x)
        x = tower.ln_pre(torch.cat([x, *prompts[:1]]))
        for i, block in enumerate(tower.transformer.resblocks):
            if 1 <= i < len(prompts):
                x = torch.cat([x[:n_own], prompts[i]])
            x = x + naive_attention(block.attn, block.ln_1(x))
            x = x + block.mlp(block.ln_2(x))
        features.append(tower.ln_post(x[0]) @ tower.proj)
    return torch.stack(features)


def naive_attention(attn, x):
    """(L, W) -> (L, W), every position sees all."""
    q, k, v = (x @ attn.in_proj_weight.t() + attn.in_proj_bias).chunk(3, dim=-1)
    size = x.shape[-1] // attn.num_heads
    heads = []
    for h in range(attn.num_heads):
        own = slice(h * size, (h + 1) * size)
        heads.append((q[:, own] @ k[:, own].t() / size**0.5).softmax(dim=-1) @ v[:, own])
    return torch.cat(heads, dim=-1) @ attn.out_proj.weight.t() + attn.out_proj.bias


def naive_guided(trainer, images, template, dtype):
    """Returns a trainer's ctx as a leaf, and what follows from it: logits, zero-shot logits, text features, anchors."""
    names = trainer.dm.dataset.classnames
    clip_model = copy.deepcopy(trainer.clip_model).to(dtype)
    ctx = trainer.model.prompt_learner.ctx.detach().to(dtype).requires_grad_()
    texts = [template.replace("{}", name.replace("_", " ")) for name in names]
    anchors = F.normalize(clip_model.encode_text(tokenize(texts)), dim=-1)
    learned = F.normalize(naive_features(clip_model, ctx, names, "end"), dim=-1)
    features = F.normalize(clip_model.encode_image(images.to(dtype)), dim=-1)
    scale = clip_model.logit_scale.exp()
    return ctx, scale * features @ learned.t(), scale * features @ anchors.t(), learned, anchors
