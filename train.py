"""Trains or tests a method on a data set: arguments -> config -> run folder -> trainer -> train() or test()."""

from __future__ import annotations

import gc
import logging
import signal
import sys
from argparse import Namespace
from collections.abc import Mapping
from functools import partial
from typing import Any

if __name__ == "__main__":  # Ctrl-C leaves no traceback while the imports below take their seconds
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from engine.config.flags import args_of, parse_args, setup_cfg
from engine.run.startup import after_imports, before_imports

if __name__ == "__main__":  # --help, and a flag that does not exist, are answered before torch is imported
    parse_args()
    before_imports()

from yacs.config import CfgNode as CN

import datasets  # noqa: F401  registers the data sets
import trainers  # noqa: F401  registers the trainers
from clip.clip import weights_sha256, weights_warning
from engine.config.plugin_errors import WORDED, plain_message, plugin_error
from engine.config.plugins import plugins
from engine.config.reads import require_read
from engine.data.manager import ending_workers
from engine.device import deterministic
from engine.distributed import on_first_rank, process_group
from engine.interruption import Interrupted, interruptible
from engine.log import close_logging
from engine.random_state import same_random_state
from engine.registry import TRAINER_REGISTRY
from engine.run.folder import read_results
from engine.run.run import Run
from trainers.backbone import preprocessing_warning, stated
from trainers.plugin_clip import clip_of
from trainers.same_prompts import same_prompts_warning

logger = logging.getLogger("train")


def run(cfg: CN, *, no_train: bool = False) -> None:
    """Does what the config says, unless its folder shows that it is done."""
    with Run(cfg, weights_sha256=weights_sha256) as current:
        if current.is_done:
            return
        trainer = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)(cfg)
        require_read(cfg)
        warning = weights_warning(cfg.MODEL.BACKBONE.NAME, **stated(cfg))
        trainer.warnings.add(same_prompts_warning(trainer), warning, preprocessing_warning(cfg))
        if clip := clip_of(type(trainer)):
            logger.info("CLIP: %s", clip)
        if no_train:
            return
        if cfg.RUN.EVAL_ONLY:
            trainer.load_model(cfg.RUN.MODEL_DIR, epoch=cfg.RUN.LOAD_EPOCH)
        current.start(trainer)
        with trainer.writer, ending_workers(trainer, trainer.dm):  # files and processes end however the run does
            if cfg.RUN.EVAL_ONLY:
                trainer.test()
            else:
                trainer.train()
        current.finish(trainer)


def call(args: Namespace) -> dict[str, Any] | None:
    """Does what the arguments say; returns the entries of results.json, None where there is none."""
    with interruptible(), plugins(args.plugin or (), args.plugin_config or ()):
        cfg = setup_cfg(args)
        with deterministic(cfg.RUN.DETERMINISTIC), process_group(use_cuda=cfg.USE_CUDA):
            run(cfg, no_train=args.no_train)
            return on_first_rank(partial(read_results, cfg.OUTPUT_DIR))


def train(*, options: Mapping[str, Any] | None = None, **flags: Any) -> dict[str, Any] | None:
    """Does in Python what the command does, also if the run is done already or was interrupted.

    It leaves the process as it was: its random generators go on as if there had been no run.

        results = train(trainer="CoOp", dataset_config_file="configs/datasets/shapes.yaml", seed=1, options={...}, ...)

    Args:
        options: The command's KEY VALUE pairs.
        flags: Its flags, with _ for -: `python train.py --help` says what they mean.

    Returns:
        The entries of results.json; None with no_train.

    Raises:
        TypeError: If there is no such flag.
        ConfigError, or another error: What the command prints as `Error: ...`; log.txt has it, too.
        Interrupted: A KeyboardInterrupt, once the state is saved: the same call goes on from there.
    """
    try:
        with same_random_state():
            return call(args_of(flags, options or {}))
    except Exception as error:
        logger.info("The run ended with an error: %s", plain_message(error), exc_info=True)
        raise
    finally:
        close_logging()
        gc.collect()  # a trainer refers to itself: its memory on a GPU would stay


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 an error, which is printed, 130 or 143 after Ctrl-C or SIGTERM."""
    try:
        call(parse_args(argv))
    except Interrupted as interrupted:
        print(interrupted, file=sys.stderr)
        return interrupted.exit_code
    except Exception as error:
        message = plugin_error(error) or (plain_message(error) if isinstance(error, WORDED) else None)
        if message is None:
            raise
        logger.info("The run ended with an error: %s", message, exc_info=True)
        print(f"Error: {message}", file=sys.stderr)
        return 1
    finally:
        close_logging()
    return 0


if __name__ == "__main__":
    after_imports()
    sys.exit(main())
