"""Tiny open_clip models of random weights, as folders that open_clip itself reads."""

import json
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file

VIT = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32}
TIMM = {"timm_pool": "", "timm_proj": "linear", "timm_model_name": "test_vit", "image_size": 160}
TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
SQUASH = {"mean": (0.5, 0.5, 0.5), "std": (0.4, 0.5, 0.6), "interpolation": "bilinear", "resize_mode": "squash"}
LAST = {"vocab_size": 60, "no_causal_mask": True, "pool_type": "last"}
CLIPA = {**LAST, "hf_tokenizer_name": "there", "tokenizer_kwargs": {"strip_sep_token": True}}
CANONICAL = {"tokenizer_kwargs": {"clean": "canonicalize"}}
SIGLIP = {**LAST, **CANONICAL, "hf_tokenizer_name": "there", "proj_bias": True}
SIGLIP = {**SIGLIP, "norm_kwargs": {"eps": 1e-6}, "act_kwargs": {"approximate": "tanh"}}
ROBERTA = {"context_length": 16, "hf_tokenizer_name": "there", "hf_model_name": "ROBERTA", "hf_proj_type": "linear"}
CLIPS = {**LAST, "hf_tokenizer_name": "there", "tokenizer_mode": "clips"}
WORLDWIDE = {"vocab_size": 60, "hf_tokenizer_name": "there", "pool_type": "eos", "eos_id": 2}
DECODER = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}

# Name -> what the config of a model says, and how its images are prepared.
MODELS = {
    "vit": ({}, {}),
    "vit-quickgelu": ({"quick_gelu": True}, {}),
    "wide-heads": ({"vision_cfg": {**VIT, "width": 160, "head_width": 80}, "text_cfg": {**TEXT, "width": 160}}, {}),
    "resnet": (
        {"vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64, "patch_size": None}},
        {"interpolation": "bilinear"},
    ),
    "custom-text": (
        {"custom_text": True, "text_cfg": {**TEXT, **CANONICAL, "mlp_ratio": 2.0, "proj_type": "none"}},
        {},
    ),
    "not-causal": ({"custom_text": True, "text_cfg": {**TEXT, "no_causal_mask": True}}, {}),
    "first": ({"custom_text": True, "text_cfg": {**TEXT, "no_causal_mask": True, "pool_type": "first"}}, {}),
    "clipa": ({"text_cfg": {**TEXT, **CLIPA}}, SQUASH),
    "clips": ({"custom_text": True, "text_cfg": {**TEXT, **CLIPS}}, {}),
    "worldwide": ({"text_cfg": {**TEXT, **WORLDWIDE}}, {}),
    "siglip": (
        {"custom_text": True, "vision_cfg": TIMM, "text_cfg": {**TEXT, **SIGLIP}, "init_logit_bias": -10},
        SQUASH,
    ),
    "eva": (
        {
            "custom_text": True,
            "vision_cfg": {**TIMM, "timm_model_name": "eva02_tiny_patch14_224", "image_size": 224},
        },
        {},
    ),
    "coca": (
        {
            "custom_text": True,
            "vision_cfg": {**VIT, "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
            "text_cfg": {**TEXT, "embed_cls": True, "output_tokens": True},
            "multimodal_cfg": DECODER,
        },
        {},
    ),
    "roberta": ({"text_cfg": ROBERTA}, {}),
    "layer-scale": ({"custom_text": True, "text_cfg": {**TEXT, "ls_init_value": 0.1}}, {}),
}
WORDS = "a photo of dog golden retriever stop sign the x s don t . , ' - un ##known".split()
CLOSED = ("coca", "roberta", "layer-scale")
OPEN = [kind for kind in MODELS if kind not in CLOSED]


def write_model(folder: Path, kind: str) -> Path:
    """Writes a model of MODELS: its config, its tokenizer where it is one of transformers, its weights."""
    changes, images = MODELS[kind]
    config = {"embed_dim": 32, "vision_cfg": VIT, "text_cfg": TEXT, **changes}
    folder.mkdir(parents=True)
    if kind == "roberta":
        config["text_cfg"] = {**ROBERTA, "hf_model_name": str(write_roberta(folder / "text"))}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": images}))
    write_tokenizer(folder, kind)
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{folder}", pretrained_text=False)
    for parameter in model.parameters():  # also of what starts at 0 or 1: biases, norms
        parameter.data += 0.05 * torch.randn_like(parameter)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.05, 0.15)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def write_roberta(folder: Path) -> Path:
    """Writes the config of a text tower of transformers, which a config of open_clip names."""
    from transformers import RobertaConfig

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    RobertaConfig(vocab_size=60, max_position_embeddings=20, pad_token_id=1, **sizes).save_pretrained(folder)
    return folder


def write_tokenizer(folder: Path, kind: str) -> None:
    """Writes a tokenizer of a few words: BERT's kind (clipa, clips), XLM's (worldwide, roberta) or T5's (siglip)."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    kind = {"roberta": "worldwide", "clips": "clipa"}.get(kind, kind)
    if kind not in ("clipa", "worldwide", "siglip"):
        return
    special = {
        "clipa": ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[BOS]", "[EOS]"],
        "worldwide": ["<s>", "<pad>", "</s>", "<unk>"],
        "siglip": ["<unk>", "</s>"],
    }[kind]
    vocabulary = {word: i for i, word in enumerate([*special, *WORDS])}
    unknown = "[UNK]" if kind == "clipa" else "<unk>"
    inner = Tokenizer(models.WordPiece(vocabulary, unk_token=unknown))
    inner.normalizer, inner.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()
    start, end = {"clipa": ("[CLS] ", "[SEP]"), "worldwide": ("<s> ", "</s>"), "siglip": ("", "</s>")}[kind]
    ids = [(token, vocabulary[token]) for token in (start.strip(), end) if token]
    inner.post_processor = processors.TemplateProcessing(single=f"{start}$A {end}", special_tokens=ids)
    names = {
        "clipa": {
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "pad_token": "[PAD]",
            "bos_token": "[BOS]",
            "eos_token": "[EOS]",
        },
        "worldwide": {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"},
        "siglip": {"eos_token": "</s>", "pad_token": "</s>"},
    }[kind]
    PreTrainedTokenizerFast(tokenizer_object=inner, unk_token=unknown, **names).save_pretrained(folder)
