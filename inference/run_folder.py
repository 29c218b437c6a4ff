"""From a run's folder to its trainer, without the data set: the folder says config, classes and plug-ins."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from yacs.config import CfgNode as CN

import trainers  # noqa: F401  registers the trainers
from clip.clip import weights_sha256
from engine import DATASET_REGISTRY, TRAINER_REGISTRY, DatasetBase, Datum, TrainerX
from engine.checkpoint import epoch_of, load_checkpoint
from engine.config.load import ConfigError, join_backbone, split_backbone
from engine.config.plugins import plugins
from engine.features.head import LinearHead
from engine.files import missing_path
from engine.run.classes import Classes, read_classes
from engine.run.folder import read_config, read_results
from engine.run.inputs import provenance_of, tested_model
from engine.run.names import CONFIG

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
        """Returns the same for other classes."""
        return self._replace(classes=self.classes._replace(classnames=classnames))


def find_run(path: str | Path) -> tuple[Path, int | None]:
    """Returns the folder of a run, and the epoch where `path` is one of its checkpoints.

    Raises:
        FileNotFoundError: If nothing is there.
        ValueError: If it is neither a run's folder nor a checkpoint in one.
    """
    path = Path(path).expanduser()
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
        raise ValueError(
            f"{folder} is no run's folder: it has no {CONFIG}. Name the folder that holds log.txt and {CONFIG}.{hint}"
        )
    return folder, epoch


@contextmanager
def plugins_of(folder: Path) -> Iterator[None]:
    """Registers the plug-ins that a run was called with, with its options, until the `with` block ends."""
    names = [found_from(folder, name) for name in read_config(folder).RUN.PLUGINS]
    for path in (name for name in names if name.endswith(".py") and not Path(name).exists()):
        remedy = "Bring it back, or call this in the folder in which the run was started."
        raise ConfigError(missing_path(path, "The run's plug-in", remedy))
    with plugins(names, [folder / CONFIG] if names else []):
        yield


def found_from(folder: Path, path: str) -> str:
    """Returns a path that the config of the run in `folder` names; the run was perhaps started in another folder.

    OUTPUT_DIR tells which one: both are relative to it.
    """
    output_dir, there = Path(read_config(folder).OUTPUT_DIR), folder.resolve()
    n_parts = len(output_dir.parts)
    if output_dir.is_absolute() or there.parts[-n_parts:] != output_dir.parts:
        return path
    start = Path(*there.parts[:-n_parts])
    return str(start / path) if path and start != Path.cwd() and (start / path).exists() else path


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
    cfg.OUTPUT_DIR = str(folder)
    before, path = split_backbone(cfg.MODEL.BACKBONE.NAME)
    cfg.MODEL.BACKBONE.NAME = join_backbone(before, found_from(folder, path))
    cfg.RUN.MODEL_DIR = found_from(folder, cfg.RUN.MODEL_DIR)
    if results is None and epoch is None:
        raise ConfigError(
            f"The run in {folder} is not finished. Finish it with the command that started it, or name an epoch that "
            "is saved."
        )
    model_dir = cfg.RUN.MODEL_DIR if cfg.RUN.EVAL_ONLY else str(folder)
    if epoch is not None and epoch < 1:
        raise ConfigError(f"The epoch is {epoch}; it must be at least 1.")
    _require_same(cfg, results or {}, folder, is_tested=results is not None and epoch in (None, results.get("epoch")))
    if epoch is None:
        epoch = _tested_epoch(cfg, model_dir)
    classes = read_classes(folder) or _classes_of_checkpoint(folder, model_dir)
    return Source(cfg, TRAINER_REGISTRY.get(cfg.TRAINER.NAME), classes, model_dir, epoch)


def _tested_epoch(cfg: CN, model_dir: str) -> int | None:
    """Returns the epoch of the checkpoint that a run tested; None: the best one."""
    if cfg.RUN.EVAL_ONLY:
        return cfg.RUN.LOAD_EPOCH if cfg.RUN.LOAD_EPOCH >= 0 else None
    if cfg.TEST.FINAL_MODEL == "best_val":
        return None
    return max((epoch_of(path) or 0 for path in Path(model_dir).glob("*/model.pth.tar-*")), default=None)


def _require_same(cfg: CN, results: dict, folder: Path, *, is_tested: bool) -> None:
    name, provenance = cfg.MODEL.BACKBONE.NAME, provenance_of(results)
    then, now = provenance.get("weights_sha256"), weights_sha256(name)
    if None not in (then, now) and then != now:
        raise ConfigError(
            f"The run in {folder} was made with other weights of {name}: their sha256 was {then[:12]}... and is "
            f"{now[:12]}... now. Bring the old file back, or run it again."
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
    """Builds the trainer of a run on its class names alone, and loads what was learned.

    Raises:
        ValueError: If what was learned does not fit the classes asked for.
    """
    cfg = source.cfg.clone()
    cfg.defrost()
    cfg.USE_CUDA, cfg.RUN.EVAL_ONLY, cfg.RUN.MODEL_DIR = use_cuda, True, source.model_dir
    cfg.INPUT.VIEWS, cfg.TEST.SPLIT, cfg.MODEL.INIT_WEIGHTS, cfg.TEST.COMPUTE_CMAT = 0, "test", "", False
    cfg.TEST.ON_BAD_IMAGE = "error"  # nothing is read of the items below, so none is left out
    cfg.freeze()
    with DATASET_REGISTRY.overlay():
        DATASET_REGISTRY.register(class_names_alone(source.classes), name=cfg.DATASET.NAME)
        with silenced("trainers.base"):  # the run has said in which precision a CPU computes
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
def head_of(trainer: TrainerX) -> LinearHead | None:
    """Returns a trainer's `linear_head` if that is all that its `classify_features` does; a subclass may do more.

    One with a `classify_features` of its own has a head only if it says so. Of the others, a model may do more.
    """
    says = next(cls for cls in type(trainer).__mro__ if {"linear_head", "classify_features"} & {*vars(cls)})
    head = trainer.linear_head() if trainer.uses_features and "linear_head" in vars(says) else None
    if head is None:
        return None
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(N_PROBES, head.weight.shape[1], generator=generator).to(head.weight)
    found, expected = head.logits(features), trainer.classify_features(features).to(head.weight)
    return head if found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-3, atol=1e-3) else None
