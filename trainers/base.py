"""What every method needs: a prompted CLIP, and a trainer that trains its `prompt_learner` alone."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from yacs.config import CfgNode as CN

from clip.prepared import prepare
from clip.two_towers import ClosedTowers, TwoTowers, read_out
from engine import TrainerX, build_lr_scheduler, build_optimizer, compute_accuracy, set_random_seed
from engine.config.load import option_errors
from engine.process_cache import common_tensors
from engine.text import printable, shorten

from .backbone import PRECISIONS, facts_of_backbone, load_clip, prepare_as_trained, require_open, usable_precision
from .compiled_prompts import CompiledEncoder
from .published_layout import own_entries
from .same_prompts import at_first_features, features_warning

logger = logging.getLogger(__name__)


class TextEncoder(nn.Module):
    """Embedded prompts to text features by the plain computation: all L positions of every prompt.

    For methods whose prompts share nothing. What CoOp's and CoCoOp's share is computed once, exactly, by clip.prompts.
    """

    def __init__(self, clip_model: TwoTowers):
        super().__init__()
        require_open(clip_model)
        self.transformer, self.ln_final = clip_model.transformer, clip_model.ln_final
        self.positional_embedding, self.text_projection = clip_model.positional_embedding, clip_model.text_projection
        self.text_projection_bias = getattr(clip_model, "text_projection_bias", None)
        self.read_at = clip_model.read_at

    def forward(self, prompts: Tensor, tokenized_prompts: Tensor) -> Tensor:
        """Encodes prompts.

        Args:
            prompts: (C, L, D), embeddings without positions.
            tokenized_prompts: (C, L) token ids, which say where a feature is read.

        Returns:
            (C, E) features, not normalised, in the text tower's dtype.
        """
        dtype = self.text_projection.dtype
        x = prompts.type(dtype) + self.positional_embedding.type(dtype)
        x = self.transformer(x.permute(1, 0, 2)).permute(1, 0, 2)  # (C, L, D) -> (L, C, D) -> (C, L, D)
        x = x[torch.arange(x.shape[0]), self.read_at(tokenized_prompts)]
        return read_out(x, self.ln_final, self.text_projection, self.text_projection_bias)


class PromptedCLIP(nn.Module):
    """CLIP whose frozen image tower stays as it is: a method defines `classify`, from an image's feature to logits.

    So each image is encoded once and its feature kept. What reads the pixels in another way defines `forward`.

    Args:
        clip_model: The frozen CLIP.
        prompt_learner: What is trained.
    """

    def __init__(self, clip_model: TwoTowers, prompt_learner: nn.Module):
        super().__init__()
        self.image_encoder, self.logit_scale = clip_model.visual, clip_model.logit_scale
        self.prompt_learner = prompt_learner

    def forward(self, images: Tensor) -> Tensor:
        """Classifies images (B, 3, H, W), normalised with CLIP's mean and std: (B, C) logits."""
        return self.classify(self.image_encoder(images).float())

    def classify(self, features: Tensor) -> Tensor:
        """Classifies images by their features (B, E), float32, not normalised: (B, C) logits."""
        raise NotImplementedError


class PromptTrainer(TrainerX):
    """Trains the `prompt_learner` of a prompted CLIP with the cross entropy; all of CLIP is frozen and in eval mode.

    A method defines `prompted_clip` and, in `node`, the name of its options under cfg.TRAINER. One whose gradients pass
    the image tower may declare CHECKPOINT_ACTIVATIONS there.
    """

    complete_config, backbone_fields = staticmethod(prepare_as_trained), staticmethod(facts_of_backbone)
    prepare_tower = staticmethod(prepare)
    node = ""
    learns = True  # False: no step changes `prompt_learner`, and OPTIM is not used
    compile_options = {"mode": "reduce-overhead"}  # of torch.compile: with CUDA graphs
    stays_eager = ""  # why MODEL.COMPILE leaves the method as it is: "it ..."
    ignored_on_load = ("token_prefix", "token_suffix")  # they belong to the class names, not to what was learned
    changes_no_result = ("CHUNK_ROWS", "SHARD_CLASSES", "CHECKPOINT_ACTIVATIONS")  # options of how it computes
    unused_entries: tuple[str, ...] = ()  # of the authors' checkpoints: what takes no part in the method
    clip_model: TwoTowers | ClosedTowers | None = None  # as `load_clip` returns it

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        own = vars(cls)
        if "not_in_identity" not in own and {"node", "changes_no_result"} & own.keys():
            cls.not_in_identity = tuple(f"TRAINER.{cls.node}.{key}" for key in cls.changes_no_result)

    @classmethod
    def config_errors(cls, cfg: CN) -> list[str]:
        if "PREC" not in cfg.TRAINER.get(cls.node, {}):
            key = f"TRAINER.{cls.node or 'NODE'}.PREC"
            return [f"{cls.__name__} declares no key {key}. Define `node`, and the key in `add_config`."]
        group, node = f"TRAINER.{cls.node}", cfg.TRAINER[cls.node]
        errors = option_errors(cfg, {f"{group}.PREC": PRECISIONS})
        if (words := node.get("CTX_INIT", "")) and not str(words).replace("_", " ").strip():
            errors.append(f"{group}.CTX_INIT is {words!r}. Give words, or nothing for a random start.")
        may_differ = "CHUNK_ROWS" in cls.changes_no_result  # from one GPU to another
        if node.get("CHUNK_ROWS", 0) < (-1 if may_differ else 0):
            others = ", or -1 (what the GPU has room for)" if may_differ else ""
            errors.append(f"{group}.CHUNK_ROWS is {node.CHUNK_ROWS}; it must be 0 (all at once) or more{others}.")
        return errors

    def prompted_clip(self, clip_model: TwoTowers, classnames: list[str], **changes) -> nn.Module:
        """Builds a PromptedCLIP, or any model from images (B, 3, H, W) to logits (B, C) that has a `prompt_learner`.

        Args:
            clip_model: The frozen CLIP, on the device, in its final dtype.
            classnames: C names.
            **changes: Options that a checkpoint decides instead of the config, such as n_ctx.
        """
        raise NotImplementedError

    def build_model(self) -> None:
        prec = self.precision = usable_precision(self.cfg.TRAINER[self.node].PREC, self.device)
        self.autocast = torch.autocast(self.device.type, torch.float16, enabled=prec == "amp")
        # Differs from the original for fp16: gradients are scaled there too, since small ones vanish in float16.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=prec in ("amp", "fp16"))
        self.clip_model = load_clip(self.cfg, prec, self.device)
        self.build_learner()

    def build_learner(self, **changes) -> None:
        """Builds the prompted CLIP; what it draws depends on SEED alone."""
        set_random_seed(self.cfg.SEED)
        self.model = self.prompted_clip(self.clip_model, self.dm.dataset.classnames, **changes)
        self.model.requires_grad_(False).to(self.device).eval()
        if self.cfg.MODEL.COMPILE:
            if reason := self.eager_reason():
                logger.info("MODEL.COMPILE changes nothing: %s", reason)
            else:
                self.compile_prompts()
        if isinstance(encoder := getattr(self.model, "encode_prompts", None), nn.Module):
            at_first_features(encoder, self.warn_of_features)
        if self.cfg.TRAINER[self.node].get("CHECKPOINT_ACTIVATIONS", False):
            self.checkpoint_activations()
        learner = self.model.prompt_learner.requires_grad_(self.learns)
        if not self.learns:
            self.register_model("prompt_learner", learner)
            return
        optim = build_optimizer(learner, self.cfg.OPTIM)
        self.register_model("prompt_learner", learner, optim, self.build_schedule(optim))
        logger.info("Parameters to be trained: %s", f"{count_parameters(learner):,}")

    def eager_reason(self) -> str:
        """Returns why the text side of this run is not compiled; "" if it is."""
        trainer, run, encoder = self.cfg.TRAINER.NAME, self.cfg.RUN, getattr(self.model, "encode_prompts", None)
        reasons = {
            "there is no GPU": self.device.type == "cpu",
            "a test alone trains nothing": run.EVAL_ONLY,
            f"{trainer} trains no prompts through PromptEncoder": not (self.learns and hasattr(encoder, "chunk_rows")),
            f"{trainer} stays as it is, since it {self.stays_eager}": self.stays_eager,
            "RUN.DETERMINISTIC is True, and another compilation may round otherwise": run.DETERMINISTIC,
        }
        return next((reason for reason, holds in reasons.items() if holds), "")

    def compile_prompts(self) -> None:
        """Sends the prompts of training through torch.compile, see CompiledEncoder."""
        encoder = self.model.encode_prompts
        compiled = getattr(encoder, "compiled", partial(CompiledEncoder, encoder))  # classes may be shared among ranks
        self.model.encode_prompts = compiled(**self.compile_options)

    def warn_of_features(self, features: Tensor) -> None:
        """Warns of classes whose text features (C, E) are nearly the same."""
        backbone = self.cfg.MODEL.BACKBONE.NAME
        self.warnings.add(features_warning(features, self.dm.dataset, backbone, self.clip_model))

    def build_schedule(self, optim: Optimizer) -> LRScheduler:
        """Returns the schedule of the learning rate; a method may have its own."""
        return build_lr_scheduler(optim, self.cfg.OPTIM)

    def checkpoint_activations(self) -> None:
        """Gives the model an image tower whose activations the backward pass computes again.

        Raises:
            ValueError: If no gradient passes the image tower.
        """
        if self.image_tower() is not None:
            raise ValueError(
                f"TRAINER.{self.node}.CHECKPOINT_ACTIVATIONS is True, but with these options no gradient of "
                f"{self.cfg.TRAINER.NAME} passes the image tower: it keeps no activations. Leave it out."
            )
        self.model.image_encoder = self.model.image_encoder.checkpointed()

    def register_model(self, name: str = "model", model: nn.Module | None = None, optim=None, sched=None) -> None:
        """Registers a model, but nothing of the loaded CLIP.

        Raises:
            ValueError: If a tensor of the model is also CLIP's.
        """
        if None not in (self.clip_model, model) and (names := common_tensors(self.clip_model, model)):
            raise ValueError(
                f"{self.cfg.TRAINER.NAME}'s {name} holds {names[0]} of the loaded CLIP ({len(names)} tensor(s)), which "
                "other runs of the process use too. Clone the tensor, or let prompted_clip start with clip_model = "
                "copy.deepcopy(clip_model)."
            )
        super().register_model(name, model, optim, sched)

    def forward_backward(self, batch: dict) -> dict[str, Tensor]:
        with self.autocast:
            if "features" in batch:
                features, labels = self.parse_features(batch)
                logits = self.classify_features(features)
            else:
                images, labels = self.parse_batch_train(batch)
                if self.image_tower() is None:
                    logits = self.model(images)
                else:
                    logits = self.model.classify(self.encode_images(images))
            loss = self.loss(logits, labels)
        self.model_backward_and_update(loss)
        return {"loss": loss.detach(), "acc": compute_accuracy(logits, labels)[0]}

    def parse_features(self, batch: dict) -> tuple[Tensor, Tensor]:
        """Returns the features (B, E) float32 of a batch's images, not normalised, and its labels (B,)."""
        if "features" in batch:  # INPUT.VIEWS
            return tuple(batch[key].to(self.device, non_blocking=True) for key in ("features", "label"))
        images, labels = self.parse_batch_train(batch)
        return self.encode_images(images), labels

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns the loss, the mean over a batch's logits (B, C) and labels (B,); a method may have its own."""
        return F.cross_entropy(logits, labels)

    def decide_features(self) -> None:
        if self.image_tower() not in (None, getattr(self.model, "image_encoder", None)):
            raise ValueError(
                f"{self.cfg.TRAINER.NAME}'s image_tower is not its model's image_encoder, but training goes through "
                "the model. Set image_encoder in prompted_clip, and leave image_tower as it is."
            )
        super().decide_features()

    def image_tower(self) -> nn.Module | None:
        is_classified_by_feature = getattr(type(self.model), "forward", None) is PromptedCLIP.forward
        return self.model.image_encoder if is_classified_by_feature else None

    def fixed_text(self) -> AbstractContextManager[None]:
        """Until its end, prompts that depend on no image are encoded once."""
        return getattr(self.model, "fixed_text", nullcontext)()

    def predictions(self, split: str) -> Iterator[tuple[Tensor, Tensor]]:
        with self.fixed_text():
            yield from super().predictions(split)

    def model_inference(self, images: Tensor) -> Tensor:
        return self.model(images) if self.image_tower() is None else super().model_inference(images)

    def classify_features(self, features: Tensor) -> Tensor:
        return self.model.classify(features)

    def learned_with(self) -> dict[str, tuple[Any, str]]:
        """Returns what has to be as it was when a checkpoint was learned: by its name there, the value and its key."""
        return {}

    def checkpoint_fields(self) -> dict[str, Any]:
        learned_with = {name: value for name, (value, _) in self.learned_with().items()}
        return {**super().checkpoint_fields(), **({"learned_with": learned_with} if learned_with else {})}

    def require_same(self, checkpoint: dict[str, Any], *, but: Collection[str] = ()) -> None:
        """Raises ValueError if a value of `learned_with` was another when a checkpoint was learned.

        Args:
            checkpoint: As it was read. Older ones have these values beside their other entries.
            but: Names that are not compared.
        """
        found = {**checkpoint, **checkpoint.get("learned_with", {})}
        for name, (value, key) in self.learned_with().items():
            if name not in but and (learned := found.get(name, value)) != value:
                raise ValueError(
                    f"{key} is {shorten(value)}, but it was {shorten(learned)} when the checkpoint was learned. "
                    "Set it so."
                )

    def published_names(self) -> dict[str, str]:
        """Returns how the authors' checkpoints call what is learned, by its own name; {} where they are as ours."""
        return {}

    def before_load(self, name: str, checkpoint: dict[str, Any]) -> None:
        """Takes what was learned from a checkpoint of the authors' code, which may have other names for it.

        Raises:
            ValueError: If it is not what the method learns, in which case the message says which entries could be; or
                was learned with something else that `learned_with` names.
        """
        self.require_same(checkpoint)
        found, ignored, trainer = checkpoint["state_dict"], self.ignored_on_load, checkpoint.get("trainer")
        if trainer not in (None, self.cfg.TRAINER.NAME):
            self.warnings.add(
                f"The checkpoint was learned by {printable(str(trainer))} and is tested as {self.cfg.TRAINER.NAME}. "
                "Unless that is meant, give the --trainer that it was trained with."
            )
        own = {key: value for key, value in self.models[name].state_dict().items() if key not in ignored}
        names = self.published_names() if trainer is None and name == "prompt_learner" else {}
        if names and found.keys() - set(ignored) != own.keys():
            unused, clip = (*self.unused_entries, *ignored), self.clip_model.state_dict()
            learned, warning = own_entries(found, own, names, clip, unused=unused)
            checkpoint["state_dict"] = {**{key: found[key] for key in ignored if key in found}, **learned}
            self.warnings.add(warning)

    def smaller_settings(self) -> dict[str, int | bool]:
        node, encoder = self.cfg.TRAINER[self.node], getattr(self.model, "encode_prompts", None)
        own = {}  # these change no result, but for what CLIP-LoRA drops
        if not node.get("CHECKPOINT_ACTIVATIONS", True) and self.image_tower() is None and not self.cfg.RUN.EVAL_ONLY:
            own["CHECKPOINT_ACTIVATIONS"] = True
        if encoder is not None and "CHUNK_ROWS" in node:
            half = min(encoder.n_rows, encoder.chunk_rows or encoder.n_rows) // 2
            own |= {"CHUNK_ROWS": half} if half else {}  # 0 would be all at once
        return {**{f"TRAINER.{self.node}.{key}": value for key, value in own.items()}, **super().smaller_settings()}

    def result_fields(self) -> dict[str, Any]:
        return {"n_params": sum(map(count_parameters, self.models.values()))}


def untrained_errors(cfg: CN) -> list[str]:
    """Returns what is wrong where a method that trains nothing is asked to train."""
    return [] if cfg.RUN.EVAL_ONLY else [f"TRAINER.NAME is {cfg.TRAINER.NAME}, which trains nothing. Add --eval-only."]


def count_parameters(module: nn.Module) -> int:
    """Returns the number of trained parameters."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
