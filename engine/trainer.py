"""What a method is made of: its options, a data set, a model, and the loop that trains and tests it."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from torch.utils.data import DataLoader
from yacs.config import CfgNode as CN

from .data.datum import data_digests
from .data.manager import DataManager
from .distributed import n_ranks
from .evaluator import build_evaluator
from .loop import Loop


class TrainerX(Loop):
    """A method on a data set: builds both, trains, validates and tests.

    A method is a subclass. It must define `build_model`, which calls `register_model` for what is trained;
    `forward_backward(batch)`, one optimisation step, which returns its losses by name; and
    `model_inference(images)`, from (B, 3, H, W) to logits (B, C). The loop steps the schedules.

    Class attributes:
        not_in_identity: The method's keys that change how it computes, not what: another value is still the same run.
    """

    not_in_identity: tuple[str, ...] = ()

    @staticmethod
    def add_config(cfg: CN) -> None:
        """Declares the method's own keys in the default config."""

    @classmethod
    def config_errors(cls, cfg: CN) -> list[str]:
        """Returns what is wrong with the method's own keys, one message each."""
        return []

    def __init__(self, cfg: CN):
        super().__init__(cfg)
        self.check_cfg(cfg)
        self.build_data_loader()
        self.check_splits()
        self.build_model()
        self.load_init_weights()
        self.features = self.build_features()
        self.evaluator = build_evaluator(cfg, lab2cname=self.lab2cname)
        self.results: dict[str, Any] = {}  # of the last test

    def check_cfg(self, cfg: CN) -> None:
        """Raises what is wrong with `cfg` and cannot be seen before the trainer is built."""

    def build_data_loader(self) -> None:
        """Builds the data set and its loaders."""
        self.dm = DataManager(self.cfg)
        self.train_loader_x, self.val_loader = self.dm.train_loader_x, self.dm.val_loader
        self.test_loader = self.dm.test_loader
        self.num_classes, self.lab2cname = self.dm.num_classes, self.dm.lab2cname

    def check_splits(self) -> None:
        """Raises what the config asks for and the data set does not have, before any work is done."""
        splits = {"val": self.val_loader, "test": self.test_loader}
        name, wanted = self.cfg.DATASET.NAME, self.cfg.TEST.SPLIT
        if not self.cfg.TEST.NO_TEST and splits[wanted] is None:
            raise ValueError(f"TEST.SPLIT is {wanted}, expected a split that {name} has. Set TEST.SPLIT.")
        if not self.cfg.TEST.NO_TEST:
            self.check_ranks(splits[wanted], wanted)
        if self.cfg.RUN.EVAL_ONLY:
            return
        if self.train_loader_x is None:
            raise ValueError(
                f"The data set {name} has no training items, expected some. It is for testing: give --eval-only with "
                "--model-dir."
            )
        if self.cfg.TEST.FINAL_MODEL == "best_val" and self.val_loader is None:
            raise ValueError(
                f"TEST.FINAL_MODEL is best_val, expected last_step: the data set {name} has no validation items."
            )
        self.check_ranks(self.train_loader_x, "training")

    def check_ranks(self, loader: DataLoader, split: str) -> None:
        """Raises if there are more ranks than items."""
        if n_ranks() > 1 and n_ranks() > len(loader.dataset):
            raise ValueError(
                f"The number of ranks is {n_ranks()}, expected at most {len(loader.dataset)}, the {split} items of "
                f"{self.cfg.DATASET.NAME}. Lower torchrun's --nproc_per_node or --nnodes."
            )

    def build_model(self) -> None:
        """Builds the model and registers its trained part."""
        raise NotImplementedError

    def half_at_once(self) -> dict[str, int]:
        """Returns the keys that decide how much is computed at once, with half of what is, best first."""
        loader = self.cfg.DATALOADER
        sizes = {"DATALOADER.TEST.BATCH_SIZE": loader.TEST.BATCH_SIZE}
        if not self.cfg.RUN.EVAL_ONLY:
            sizes["DATALOADER.TRAIN_X.BATCH_SIZE"] = loader.TRAIN_X.BATCH_SIZE
        return {key: size // 2 for key, size in sizes.items() if size > 1}

    @cached_property
    def data_sha256(self) -> dict[str, str]:
        """The digests of the items that the run learns and chooses from."""
        chooses = self.cfg.TEST.FINAL_MODEL == "best_val"
        return data_digests(self.dm.dataset, ["train", "val"] if chooses else ["train"])

    def result_fields(self) -> dict[str, Any]:
        """Returns the method's own entries of results.json."""
        return {}

    def checkpoint_fields(self) -> dict[str, Any]:
        return {
            "trainer": self.cfg.TRAINER.NAME,
            "classnames": list(self.dm.dataset.classnames),
            "data_sha256": self.data_sha256,
            **self.backbone_fields(),
        }
