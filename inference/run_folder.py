"""From a run's folder to its trainer, without the data set: the folder says config, classes and plug-ins."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

import torch
from yacs.config import CfgNode as CN

import trainers  # noqa: F401  registers the trainers
from clip.clip import available_models, weights_sha256
from engine import DATASET_REGISTRY, TRAINER_REGISTRY, DatasetBase, Datum, TrainerX
from engine.checkpoint import epoch_of, load_checkpoint
from engine.config.load import ConfigError, join_backbone, split_backbone
from engine.config.plugins import plugins
from engine.features.head import Head
from engine.files import missing_path
from engine.random_state import same_random_state
from engine.run.classes import Classes, read_classes
from engine.run.folder import call_words, found_from, read_config, read_results
from engine.run.inputs import provenance_of, tested_checkpoint, tested_model
from engine.run.names import CONFIG

EXPORTED = "config.json"  # the file that tells a folder of export.py
N_PROBES = 8  # random features, on which a head and its method are compared


class Source(NamedTuple):
    """What a classifier is made from.

    Attributes:
        cfg: The config of the run.
        trainer: The class of its method, which may be a plug-in's.
        classes: The names that it tells apart, and the prompt of its data set.
        model_dir: The folder whose checkpoint is loaded; "" where nothing was learned.
        epoch: Of that checkpoint; None: the best one.
    """

    cfg: CN
    trainer: type[TrainerX]
    classes: Classes
    model_dir: str
    epoch: int | None

    def with_classes(self, classnames: list[str]) -> Source:
        """Returns the same for other classes, which are no half of the run's data set."""
        cfg = self.cfg.clone()
        cfg.defrost()
        cfg.DATASET.SUBSAMPLE_CLASSES = "all"
        return self._replace(cfg=cfg, classes=self.classes._replace(classnames=classnames))


def find_run(path: str | Path) -> tuple[Path, int | None]:
    """Returns the folder of a run, absolute, and the epoch where `path` is one of its checkpoints.

    Raises:
        FileNotFoundError: If nothing is there.
        ValueError: If it is neither a run's folder nor a checkpoint in one.
    """
    path = Path(path).expanduser().absolute()
    if not path.exists():
        raise FileNotFoundError(missing_path(path, "The run", "Name the folder of a run, such as output/.../seed1."))
    if path.is_file():
        if not path.name.startswith("model"):
            raise ValueError(f"{path} is no checkpoint. Name the folder of a run, or a file model.pth.tar-EPOCH in it.")
        folder, epoch = path.parent.parent, epoch_of(path)
    else:
        folder, epoch = path, None
    if not (folder / CONFIG).is_file():
        inside = sorted(below.parent for below in folder.glob(f"*/{CONFIG}"))
        hint = f" It holds the runs {', '.join(run.name for run in inside[:3])}: name one." if inside else ""
        if (folder / EXPORTED).is_file():
            hint = " It is an export: demo.py, Classifier.from_export or the lines in its README.md use it."
        raise ValueError(
            f"{folder} is no run's folder: it has no {CONFIG}. Name the folder that holds log.txt and {CONFIG}.{hint}"
        )
    return folder, epoch


@contextmanager
def plugins_of(folder: Path) -> Iterator[None]:
    """Registers the plug-ins that a run was called with, with its options, until the `with` block ends."""
    cfg = read_config(folder)
    names = [found_from(folder, cfg.OUTPUT_DIR, name) for name in cfg.RUN.PLUGINS]
    for path in (name for name in names if name.endswith(".py") and not Path(name).exists()):
        remedy = "Bring it back, or call this in the folder in which the run was started."
        raise ConfigError(missing_path(path, "The run's plug-in", remedy))
    with plugins(names, [folder / CONFIG] if names else []):
        yield


def read_source(folder: Path, *, epoch: int | None = None) -> Source:
    """Reads what a finished run, or one that has a checkpoint of `epoch`, leaves for a classifier.

    Args:
        folder: Of the run: a training, or the test of a trained or a zero-shot model.
        epoch: After how many epochs; None: the model that the run tested.

    Raises:
        ConfigError: If the run is not finished, does not say what is needed, or was made from other weights or of
            another model than there are now.
        KeyError: If its trainer is a plug-in's that is gone.
    """
    cfg, results = read_config(folder), read_results(folder)
    if results is None and epoch is None:
        raise ConfigError(unfinished(folder, cfg))
    if cfg.MODEL.BACKBONE.NAME not in available_models():
        before, path = split_backbone(cfg.MODEL.BACKBONE.NAME)
        cfg.MODEL.BACKBONE.NAME = join_backbone(before, found_from(folder, cfg.OUTPUT_DIR, path))
    cfg.RUN.MODEL_DIR = found_from(folder, cfg.OUTPUT_DIR, cfg.RUN.MODEL_DIR)
    cfg.OUTPUT_DIR = str(folder)
    if epoch is not None and epoch < 1:
        raise ConfigError(f"The epoch is {epoch}; it must be at least 1.")
    _require_same(cfg, results or {}, folder, is_tested=results is not None and epoch in (None, results.get("epoch")))
    model_dir, tested = tested_checkpoint(cfg)
    epoch = tested if epoch is None else epoch
    classes = read_classes(folder) or _classes_of_checkpoint(folder, model_dir)
    return Source(cfg, TRAINER_REGISTRY.get(cfg.TRAINER.NAME), classes, model_dir, epoch)


def unfinished(folder: Path, cfg: CN) -> str:
    """Returns how a run that is not finished is finished, and which of its epochs can be used as they are."""
    words = call_words(folder, folder, cfg.RUN.PLUGINS)
    epochs = sorted({epoch for path in folder.glob("*/model.pth.tar-*") if (epoch := epoch_of(path)) is not None})
    saved = f", or choose an epoch that is saved: {', '.join(map(str, epochs))}" if epochs else ""
    return (
        f"The run in {folder} is not finished. In the folder in which it was started, finish it with: "
        f"{shlex.join(words)}{saved}."
    )


def _require_same(cfg: CN, results: dict, folder: Path, *, is_tested: bool) -> None:
    name, provenance = cfg.MODEL.BACKBONE.NAME, provenance_of(results)
    then, now = provenance.get("weights_sha256"), weights_sha256(name)
    if None not in (then, now) and then != now:
        raise ConfigError(
            f"The run in {folder} was made with other weights of {name}, or with another config beside them: "
            f"their sha256 was {then[:12]}... and is {now[:12]}... now. Bring the old file back, or run it again."
        )
    then, now = provenance.get("model_sha256"), tested_model(cfg) if is_tested else None
    if None not in (then, now) and then != now:
        raise ConfigError(
            f"The model that the run in {folder} tested has changed since. Run it again, or name the folder of the "
            "training."
        )


def _classes_of_checkpoint(folder: Path, model_dir: str) -> Classes:
    """Returns the classes that a checkpoint names, for runs that have left no list of them."""
    for path in sorted(Path(model_dir).glob("*/model*.pth.tar*")) if model_dir else ():
        names = load_checkpoint(path).get("classnames")
        if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
            return Classes(names, DatasetBase.prompt_template)
    raise ConfigError(f"The run in {folder} does not say its classes: an earlier version made it. Run it again.")


def build_trainer(source: Source, *, use_cuda: bool) -> TrainerX:
    """Builds the trainer of a run on its class names alone, and loads what was learned. The caller's seeds stay.

    Raises:
        ValueError: If what was learned does not fit the classes asked for.
    """
    cfg = source.cfg.clone()
    cfg.defrost()
    cfg.USE_CUDA, cfg.RUN.EVAL_ONLY, cfg.RUN.MODEL_DIR = use_cuda, True, source.model_dir
    cfg.INPUT.VIEWS, cfg.TEST.SPLIT, cfg.MODEL.INIT_WEIGHTS, cfg.TEST.COMPUTE_CMAT = 0, "test", "", False
    cfg.TEST.ON_BAD_IMAGE = "error"  # nothing is read of the items below, so none is left out
    cfg.freeze()
    with DATASET_REGISTRY.overlay(), same_random_state():
        DATASET_REGISTRY.register(class_names_alone(source.classes), name=cfg.DATASET.NAME)
        with silenced("trainers.backbone"):  # the run has said in which precision a CPU computes
            trainer = source.trainer(cfg)
    if source.model_dir:
        trainer.load_model(source.model_dir, epoch=source.epoch)
    trainer.set_model_mode("eval")
    return trainer


@contextmanager
def silenced(name: str) -> Iterator[None]:
    """Until its end, the logger of a module says nothing but errors."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def class_names_alone(classes: Classes) -> type[DatasetBase]:
    """Returns a data set that has classes and no images: one item stands for each class, and nobody reads it."""

    class ClassNames(DatasetBase):
        prompt_template = classes.prompt_template

        def __init__(self, cfg):
            super().__init__(test=[Datum(name, i, classname=name) for i, name in enumerate(classes.classnames)])

    return ClassNames


@torch.no_grad()
def head_of(trainer: TrainerX) -> Head | None:
    """Returns a trainer's `feature_head` if that is all that its `classify_features` does; a subclass may do more.

    One with a `classify_features` of its own has a head only if it says so. Of the others, a model may do more.
    """
    says = next(cls for cls in type(trainer).__mro__ if {"feature_head", "classify_features"} & {*vars(cls)})
    if not trainer.uses_features or "feature_head" not in vars(says):
        return None
    with getattr(trainer, "fixed_text", nullcontext)():  # CoOp's: its prompts are encoded once for both
        head = trainer.feature_head()
        if head is None:
            return None
        generator = torch.Generator().manual_seed(0)
        features = torch.randn(N_PROBES, head.weight.shape[1], generator=generator).to(head.weight)
        found, expected = head.logits(features), trainer.classify_features(features).to(head.weight)
    return head if found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-3, atol=1e-3) else None
