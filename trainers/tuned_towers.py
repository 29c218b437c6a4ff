"""CLIP's towers with learned changes of their own weights, and what the methods that learn them share.

    w_i = norm(g'("a photo of a CLASS_i."))   g' the tuned text tower, the prompt that of the data set
    f   = norm(f'(x))                         f' the tuned image tower
    loss = cross entropy(s f w, y)

ENCODER says which towers are tuned: "both", "text", "vision". What is not tuned is CLIP's own, frozen: with "text" each
image is encoded once, with "vision" the classes are. Only the difference from CLIP is learned, kept in float32 whatever
CLIP's weights are, and saved; `export.py --format clip` writes CLIP with the difference in its weights.

Cost: the text tower computes what differs between the prompts (clip/prompts.py): [SOS] and the words before the name
once for all classes, the rest without padding, all of it anew in every step. The image tower goes forward and backward.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from yacs.config import CfgNode as CN

from clip.prompt_layout import lay_out_words
from clip.two_towers import TwoTowers, copy_modules
from engine import load_checkpoint
from engine.config.load import option_errors
from engine.features.head import LinearHead
from engine.files import naming

from .backbone import require_open, require_vit
from .base import PromptTrainer
from .context import CustomCLIP

logger = logging.getLogger(__name__)

ENCODERS = {"both": ("text", "vision"), "text": ("text",), "vision": ("vision",)}  # option -> towers
BLOCKS = {"text": "transformer.resblocks", "vision": "visual.transformer.resblocks"}


def blocks_of(clip_model: TwoTowers, tower: str) -> nn.Sequential:
    """Returns the blocks of the tower "text" or "vision"."""
    return clip_model.get_submodule(BLOCKS[tower])


def own_norms(clip_model: TwoTowers, tower: str) -> nn.ModuleDict:
    """Gives a tower layer norms of its own, with CLIP's values and in float32, and returns them as a module.

    Its keys are the blocks' numbers, "0" with "ln_1" and "ln_2", and the names of the norms around the blocks.
    """
    blocks = {str(i): _own(block, ("ln_1", "ln_2")) for i, block in enumerate(blocks_of(clip_model, tower))}
    around = (clip_model, ("ln_final",)) if tower == "text" else (clip_model.visual, ("ln_pre", "ln_post"))
    return nn.ModuleDict({**blocks, **_own(*around)})


def _own(module: nn.Module, names: Sequence[str]) -> nn.ModuleDict:
    """Replaces parts of a module by copies, and returns these."""
    for name in names:
        setattr(module, name, copy.deepcopy(getattr(module, name)))
    return nn.ModuleDict({name: getattr(module, name) for name in names})


class TunedLearner(nn.Module):
    """What is learned of the towers. To a prompt encoder it is a ContextLearner whose prompts are words alone.

    Args:
        clip_model: Gives the tokenizer.
        classnames: C names; underscores are read as spaces.
        template: The prompt; `{}` is the name.
        learned: By tower, "text" or "vision", the module that holds what is learned of it.
    """

    class_specific = class_deep = False

    def __init__(self, clip_model: TwoTowers, classnames: list[str], template: str, learned: Mapping[str, nn.Module]):
        super().__init__()
        self.layout = lay_out_words(classnames, template, tokenizer=clip_model.tokenizer)
        for tower, module in learned.items():
            self.add_module(tower, module)
        self.tuned = "text" in learned
        no_context = torch.empty(0, clip_model.transformer.width, device=clip_model.logit_scale.device)
        self.register_buffer("no_context", no_context, persistent=False)

    def context(self) -> Tensor:
        return self.no_context

    def deep(self) -> Sequence[Tensor]:
        return ()


def merge_norms(learner: TunedLearner, clip_model: TwoTowers) -> None:
    """Gives a CLIP the layer norms that were learned."""
    for tower, learned in learner.named_children():
        own_norms(clip_model, tower).load_state_dict(learned.state_dict())


class TunedCLIP(CustomCLIP):
    """CLIP whose towers have what its `prompt_learner` learns; the image tower is this one, the text that of words."""

    kept_features: Tensor | None = None

    def text_features(self) -> Tensor:
        return super().text_features() if self.kept_features is None else self.kept_features

    @torch.no_grad()
    def keep_text(self) -> None:
        """Encodes the classes once and for all: of a text tower that is not tuned."""
        self.kept_features = self.text_features()


class TunedTowersTrainer(PromptTrainer):
    """Trains changes of CLIP's own weights. A method names its `node`, and defines `tune` and `merge_into`.

    Its options are those below and its own.
    """

    learner_class, model_class = TunedLearner, TunedCLIP
    learned_per_class = {"text": False, "vision": False}
    stays_eager = "learns the towers' own weights"
    steps_per_shot = 0  # of the authors' training, for each image of a class
    fixed_by_checkpoint: tuple[str, ...] = ("ENCODER",)  # options with which what was learned has to be used

    @classmethod
    def add_config(cls, cfg: CN) -> None:
        node = cfg.TRAINER[cls.node] = CN()
        node.ENCODER = "both"  # the towers that are tuned: both, text, vision
        node.PREC = "fp16"  # fp32, fp16, amp, bf16
        node.CHUNK_ROWS = -1  # rows of the text tower at once; 0: all; -1: as many as fit the GPU
        node.CHECKPOINT_ACTIVATIONS = False  # compute those of the image tower again in the backward pass: less memory

    @classmethod
    def config_errors(cls, cfg: CN) -> list[str]:
        return super().config_errors(cfg) + option_errors(cfg, {f"TRAINER.{cls.node}.ENCODER": ENCODERS})

    def tune(self, clip_model: TwoTowers, tower: str) -> nn.Module:
        """Puts what is to be learned into a tower, and returns it as a module of its own.

        Args:
            clip_model: A copy of the loaded CLIP's modules, on the device: they may be replaced, no tensor be changed.
            tower: "text" or "vision".
        """
        raise NotImplementedError

    def merge_into(self, clip_model: TwoTowers) -> None:
        """Changes the weights of a CLIP, the backbone's own in float32, so that it computes what the tuned one does."""
        raise NotImplementedError

    def templates(self) -> tuple[str, ...]:
        return (self.dm.dataset.prompt_template,)

    def prompted_clip(self, clip_model: TwoTowers, classnames: list[str], **changes) -> TunedCLIP:
        self.check_towers(clip_model)
        node, tuned = self.cfg.TRAINER[self.node], copy_modules(clip_model, clip_model.tokenizer)
        learned = {tower: self.tune(tuned, tower) for tower in ENCODERS[node.ENCODER]}
        learner = self.learner_class(tuned, classnames, self.templates()[0], learned)
        return self.model_class(tuned, learner, chunk_rows=node.CHUNK_ROWS)

    def build_learner(self, **changes) -> None:
        super().build_learner(**changes)
        if not self.model.prompt_learner.tuned:
            self.model.keep_text()

    def check_towers(self, clip_model: TwoTowers) -> None:
        """Raises ValueError if a tower cannot be tuned."""
        require_open(clip_model)
        key, encoder = f"TRAINER.{self.node}.ENCODER", self.cfg.TRAINER[self.node].ENCODER
        if encoder != "text":
            does = f"tunes the blocks of a ViT in OpenAI's layout with {key} {encoder}"
            require_vit(clip_model.visual, self.cfg, does, f"set {key} text, which leaves it alone")

    def before_train(self) -> None:
        super().before_train()
        n_steps, shots = self.num_batches * self.max_epoch, self.cfg.DATASET.NUM_SHOTS
        theirs = f" (its authors': {self.steps_per_shot * shots:,})" if shots > 0 and self.steps_per_shot else ""
        logger.info("Training steps: %s", f"{n_steps:,}{theirs}")

    def learned_with(self) -> dict[str, tuple[Any, str]]:
        return {
            key: (self.cfg.TRAINER[self.node][key], f"TRAINER.{self.node}.{key}") for key in self.fixed_by_checkpoint
        }

    def load_init_weights(self) -> None:
        if path := self.cfg.MODEL.INIT_WEIGHTS:
            with naming(path):
                self.require_same(load_checkpoint(path), but=("ENCODER",))  # what fits is taken, and logged
        super().load_init_weights()

    def image_tower(self) -> nn.Module | None:
        return super().image_tower() if self.cfg.TRAINER[self.node].ENCODER == "text" else None

    def feature_head(self) -> LinearHead | None:
        return self.model.feature_head() if self.uses_features else None
