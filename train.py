"""Trains or tests a method on a data set: arguments -> config -> run folder -> trainer -> train() or test()."""

from __future__ import annotations

import logging
import signal
import sys

if __name__ == "__main__":  # Ctrl-C leaves no traceback while the imports below take their seconds
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from engine.config.flags import parse_args, setup_cfg
from engine.run.threads import sleep_while_waiting

if __name__ == "__main__":  # --help, and a flag that does not exist, are answered before torch is imported
    parse_args()
    sleep_while_waiting()

from yacs.config import CfgNode as CN

import datasets  # noqa: F401  registers the data sets
import trainers  # noqa: F401  registers the trainers
from clip.clip import weights_sha256, weights_warning
from engine.config.plugin_errors import WORDED, plain_message, plugin_error
from engine.config.plugins import plugins
from engine.config.reads import require_read
from engine.device import deterministic
from engine.distributed import process_group
from engine.interruption import Interrupted, interruptible
from engine.log import close_logging
from engine.registry import TRAINER_REGISTRY
from engine.run.run import Run
from trainers.base import preprocessing_warning, stated
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
        if cfg.RUN.EVAL_ONLY:
            trainer.test()
        else:
            trainer.train()
        current.finish(trainer)


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 an error, which is printed, 130 or 143 after Ctrl-C or SIGTERM."""
    try:
        args = parse_args(argv)
        with interruptible(), plugins(args.plugin or (), args.plugin_config or ()):
            cfg = setup_cfg(args)
            with deterministic(cfg.RUN.DETERMINISTIC), process_group(use_cuda=cfg.USE_CUDA):
                run(cfg, no_train=args.no_train)
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
    sys.exit(main())
