"""The methods with prompts inside the towers by their formulas, on the plain towers, in any precision."""

import copy

import torch
import torch.nn.functional as F

from clip.clip import tokenize
from tests.support.naive import naive_features, naive_image_features

WORDS = "a photo of a"
METHODS = {  # node, and how its options have two vectors in two blocks of each tower
    "IVLP": ("IVLP", ("N_CTX_TEXT", 2, "N_CTX_VISION", 2, "PROMPT_DEPTH_TEXT", 2, "PROMPT_DEPTH_VISION", 2)),
    "DeepLanguage": ("DEEP_LANGUAGE", ("N_CTX_TEXT", 2, "PROMPT_DEPTH_TEXT", 3)),
    "VPT": ("VPT", ("N_CTX_VISION", 2, "PROMPT_DEPTH_VISION", 2)),
    "MaPLe": ("MAPLE", ("N_CTX", 2, "PROMPT_DEPTH", 2)),
    "PromptSRC": ("PROMPTSRC", ("N_CTX_TEXT", 2, "N_CTX_VISION", 2, "PROMPT_DEPTH_TEXT", 2, "PROMPT_DEPTH_VISION", 2)),
}


def pairs_of(name, *own):
    """KEY, VALUE, ... of a small run of a method; `own` are more options of it, without the group."""
    node, options = METHODS[name]
    options = (*options, "PREC", "fp32", *own)
    keys = [f"TRAINER.{node}.{key}" for key in options[::2]]
    return ["TRAINER.NAME", name, *(word for pair in zip(keys, options[1::2], strict=True) for word in pair)]


def plain_clip(trainer, dtype):
    return copy.deepcopy(trainer.clip_model).to(dtype)


def unit(x):
    return x / x.norm(dim=-1, keepdim=True)


def written(clip_model, classnames, template):
    """(C, E) features of written prompts, not normalised."""
    return clip_model.encode_text(tokenize([template.replace("{}", name.replace("_", " ")) for name in classnames]))


def of(leaves, part):
    """The vectors of blocks, in their order."""
    return [value for name, value in sorted(leaves.items()) if name.startswith(f"{part}.")]


def both_features(trainer, leaves, images, dtype):
    """Normalised features of images (B, E) and of classes (C, E), by the trainer's method."""
    clip_model, names, name = plain_clip(trainer, dtype), trainer.dm.dataset.classnames, trainer.cfg.TRAINER.NAME
    images, vision = images.to(dtype), of(leaves, "vision")
    if name == "VPT":
        texts = written(clip_model, names, f"{WORDS} {{}}.")
    else:
        n_learned = len(leaves["ctx"])
        fixed = clip_model.token_embedding(tokenize(WORDS)[0, 1 + n_learned : 5]).to(dtype)
        deep = of(leaves, "compound_prompts_text" if name == "MaPLe" else "text")
        texts = naive_features(clip_model, torch.cat([leaves["ctx"], fixed]), names, "end", deep)
    if name == "MaPLe":
        vision = [leaves["ctx"] @ leaves["proj.weight"].t() + leaves["proj.bias"]]
        for i, vectors in enumerate(deep):
            coupling = f"compound_prompt_projections.{i}"
            vision.append(vectors @ leaves[f"{coupling}.weight"].t() + leaves[f"{coupling}.bias"])
    return unit(naive_image_features(clip_model, images, vision)), unit(texts)


def loss_of(trainer, leaves, images, labels, dtype):
    """The loss of a method on images (B, 3, H, W)."""
    images = images.to(dtype)
    features, texts = both_features(trainer, leaves, images, dtype)
    clip_model = plain_clip(trainer, dtype)
    scale = clip_model.logit_scale.exp()
    logits = scale * features @ texts.t()
    loss = F.cross_entropy(logits, labels)
    if trainer.cfg.TRAINER.NAME != "PromptSRC":
        return loss
    node, names = trainer.cfg.TRAINER.PROMPTSRC, trainer.dm.dataset.classnames
    own_templates = trainer.templates()
    assert len(set(own_templates)) == 60
    anchors = unit(sum(written(clip_model, names, template) for template in own_templates) / 60)
    frozen = unit(naive_image_features(clip_model, images))
    p, p_0 = logits.softmax(dim=-1), (scale * frozen @ anchors.t()).softmax(dim=-1)
    loss = loss + node.TEXT_LOSS_WEIGHT * (texts - anchors).abs().sum() / texts.numel()
    loss = loss + node.IMAGE_LOSS_WEIGHT * (features - frozen).abs().sum() / features.numel()
    return loss + (p_0 * (p_0.log() - p.log())).sum() / (len(images) * len(names))
