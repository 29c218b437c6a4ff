"""A repository with a copy of CLIP's package that builds another model, as those of MaPLe and its kin have it.

Its image tower takes vectors for its second block; its text tower is CLIP's. `build_model(state_dict, design_details)`
says how many vectors.
"""

from pathlib import Path

CLIP = """
import torch

from .model import build_model
from .simple_tokenizer import SimpleTokenizer as _Tokenizer

_tokenizer = _Tokenizer()
_MODELS = {"Own": "https://nowhere.invalid/own.pt"}


def _download(url, root="~/.cache/clip"):
    raise OSError(f"fetched {url}")


def load(name, design_details):
    model_path = _download(_MODELS[name])
    return build_model(torch.load(model_path, map_location="cpu"), design_details)


def tokenize(text):
    tokens = [49406, *_tokenizer.encode(text), 49407]
    return torch.tensor([tokens + [0] * (77 - len(tokens))])
"""

MODEL = """
from collections import OrderedDict

import torch
from torch import nn


class QuickGELU(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    def __init__(self, width, mask=None):
        super().__init__()
        self.attn, self.mask = nn.MultiheadAttention(width, width // 64), mask
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        parts = [("c_fc", nn.Linear(width, 4 * width)), ("gelu", QuickGELU()), ("c_proj", nn.Linear(4 * width, width))]
        self.mlp = nn.Sequential(OrderedDict(parts))

    def forward(self, x):
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=self.mask)[0]
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    def __init__(self, width, layers, mask=None):
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, mask) for _ in range(layers))


class Visual(nn.Module):
    def __init__(self, state, n_vectors):
        super().__init__()
        width, _, patch, _ = state["conv1.weight"].shape
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty_like(state["positional_embedding"]))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        layers = len({key.split(".")[2] for key in state if key.startswith("transformer.resblocks")})
        self.transformer = Transformer(width, layers)
        self.proj = nn.Parameter(torch.empty_like(state["proj"]))
        self.deep = nn.Parameter(torch.empty(n_vectors, width)) if n_vectors else None

    def forward(self, x):
        x = self.conv1(x).flatten(2).permute(0, 2, 1)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], dim=1) + self.positional_embedding
        x = self.ln_pre(x).permute(1, 0, 2)
        for i, block in enumerate(self.transformer.resblocks):
            if i == 1 and self.deep is not None:
                x = torch.cat([x, self.deep[:, None].expand(-1, x.shape[1], -1)])
            x = block(x)
        return self.ln_post(x[0]) @ self.proj


class CLIP(nn.Module):
    def __init__(self, state, design_details):
        super().__init__()
        self.design_details = design_details
        visual = {key[len("visual."):]: value for key, value in state.items() if key.startswith("visual.")}
        self.visual = Visual(visual, design_details["n_vectors"])
        width = state["ln_final.weight"].shape[0]
        layers = len({key.split(".")[2] for key in state if key.startswith("transformer.resblocks")})
        self.transformer = Transformer(width, layers, torch.full((77, 77), float("-inf")).triu_(1))
        self.token_embedding = nn.Embedding(*state["token_embedding.weight"].shape)
        self.positional_embedding = nn.Parameter(torch.empty(77, width))
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.empty_like(state["text_projection"]))
        self.logit_scale = nn.Parameter(torch.empty([]))

    @property
    def dtype(self):
        return self.visual.conv1.weight.dtype

    def encode_image(self, image):
        return self.visual(image.type(self.dtype))

    def encode_text(self, text):
        x = (self.token_embedding(text) + self.positional_embedding).type(self.dtype).permute(1, 0, 2)
        for block in self.transformer.resblocks:
            x = block(x)
        x = self.ln_final(x.permute(1, 0, 2))
        return x[torch.arange(len(x)), text.argmax(dim=-1)] @ self.text_projection


def convert_weights(model):
    model.half()


def build_model(state_dict, design_details):
    model = CLIP(state_dict, design_details)
    convert_weights(model)
    missing, unexpected = model.load_state_dict(state_dict, strict=False)
    assert missing in ([], ["visual.deep"]) and not unexpected, (missing, unexpected)
    return model.eval()
"""

TOKENIZER = r'''
import gzip
import os

import regex as re


def default_bpe():
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "bpe_simple_vocab_16e6.txt.gz")


class SimpleTokenizer:
    """Words of one token alone, as those of the test are."""

    def __init__(self, bpe_path: str = default_bpe()):
        merges = gzip.open(bpe_path).read().decode("utf-8").split("\n")[1 : 49152 - 256 - 2 + 1]
        self.encoder = {merge.replace(" ", ""): 512 + i for i, merge in enumerate(merges)}
        self.encoder |= {"a</w>": 320, ".</w>": 269}

    def encode(self, text):
        return [self.encoder[word + "</w>"] for word in re.findall(r"\w+|\.", text)]
'''

LOADING = """
import torch

from clip import clip


def load_clip_to_cpu(cfg, n_vectors):
    url = clip._MODELS[cfg.MODEL.BACKBONE.NAME]
    model_path = clip._download(url)
    try:
        model = torch.jit.load(model_path, map_location="cpu").eval()
        state_dict = None
    except RuntimeError:
        state_dict = torch.load(model_path, map_location="cpu")
    design_details = {"trainer": "DeepVectors", "n_vectors": n_vectors}
    return clip.build_model(state_dict or model.state_dict(), design_details)
"""

METHOD = """
import torch
from torch import nn
from torch.nn import functional as F
from yacs.config import CfgNode as CN

from clip import clip
from clip.simple_tokenizer import SimpleTokenizer as _Tokenizer
from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.optim import build_lr_scheduler, build_optimizer
from prompts.templates import CUSTOM_TEMPLATES

from .imagenet_templates import IMAGENET_TEMPLATES_SELECT
from .loading import load_clip_to_cpu

_tokenizer = _Tokenizer()


def extend_cfg(cfg):
    cfg.TRAINER.DEEP = CN()
    cfg.TRAINER.DEEP.N_VECTORS = 0
    cfg.TRAINER.COOP.CTX_INIT = False


@TRAINER_REGISTRY.register()
class DeepVectors(TrainerX):
    def build_model(self):
        cfg = self.cfg
        self.model = load_clip_to_cpu(cfg, cfg.TRAINER.DEEP.N_VECTORS).requires_grad_(False)
        template = CUSTOM_TEMPLATES[cfg.DATASET.NAME]
        prompts = [template.format(name.replace("_", " ")) for name in self.dm.dataset.classnames]
        with torch.no_grad():
            self.texts = F.normalize(self.model.encode_text(torch.cat([clip.tokenize(p) for p in prompts])), dim=-1)
        if self.model.visual.deep is not None:
            nn.init.normal_(self.model.visual.deep, std=0.02)
            self.model.visual.deep.requires_grad_(True)
            self.optim = build_optimizer([self.model.visual.deep], cfg.OPTIM)
            self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
            self.register_model("deep", self.model, self.optim, self.sched)

    def model_inference(self, image):
        features = F.normalize(self.model.encode_image(image), dim=-1)
        return self.model.logit_scale.exp() * features @ self.texts.t()

    def forward_backward(self, batch):
        image, label, _ = self.parse_batch_train(batch)
        loss = F.cross_entropy(self.model_inference(image), label)
        self.model_backward_and_update(loss)
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return {"loss": loss.item()}
"""


def write_repository(folder: Path) -> Path:
    """Writes the repository; returns its trainer's file, which registers DeepVectors."""
    files = {
        "clip/__init__.py": "from .clip import *\n",
        "clip/clip.py": CLIP,
        "clip/model.py": MODEL,
        "clip/simple_tokenizer.py": TOKENIZER,
        "prompts/__init__.py": "",
        "prompts/templates.py": 'CUSTOM_TEMPLATES = {"Folder": "a photo of a {}."}\n',
        "trainers/__init__.py": "",
        "trainers/loading.py": LOADING,
        "trainers/deep.py": METHOD,
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "trainers/deep.py"
