"""One run: its folder is locked, the run is skipped if it is done, recorded, finished with results.json."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from functools import partial
from typing import Any

from yacs.config import CfgNode as CN

from ..data.bad_images import log_skipped
from ..device import keep_freed_memory, memory_advice
from ..distributed import is_first_rank, n_ranks, on_first_rank
from ..interruption import finishing, starting_over
from ..log import environment, say, setup_logging
from ..random_state import set_random_seed
from ..resume import remove_resume_files
from .classes import write_classes
from .folder import is_done, resolve_seed, retire_results, write_config, write_results
from .lock import locked
from .provenance import cost, provenance
from .results import results_of

logger = logging.getLogger(__name__)


class Run:
    """One run in its folder, which no other process may use until the end.

        with Run(cfg) as run:
            if not run.is_done:
                trainer = ...
                run.start(trainer)
                trainer.train()
                run.finish(trainer)

    Args:
        cfg: The config; it is frozen when the run begins.

    Attributes:
        is_done: Whether the folder shows that there is nothing to do.

    Raises:
        ConfigError: If the folder holds a run of another configuration.
        BlockingIOError: If another process has the folder.
    """

    def __init__(self, cfg: CN):
        self.cfg, self.is_done = cfg, False
        self.provenance: dict[str, Any] = {}
        self._held_until_exit, self._held_while_working = ExitStack(), ExitStack()

    def __enter__(self) -> Run:
        resolve_seed(self.cfg)
        with ExitStack() as held:
            self.is_done = self._found_done()
            if not self.is_done:
                held.enter_context(locked(self.cfg.OUTPUT_DIR))
                self.is_done = self._found_done()  # by the process that had the folder until now
            if not self.is_done:
                self._open()
                if self.cfg.RUN.EVAL_ONLY:
                    held.enter_context(starting_over())
            held.push(self._held_while_working)
            self._held_until_exit = held.pop_all()
        return self

    def __exit__(self, *error) -> bool | None:
        return self._held_until_exit.__exit__(*error)

    def start(self, trainer, *, weights_sha256: str | None = None) -> None:
        """Makes the folder this run's: from here on it holds its config.

        Args:
            trainer: Built, and not yet trained; loaded if it is only tested.
            weights_sha256: Of the file of CLIP's weights; None where it is not known.
        """
        if is_first_rank() and retire_results(self.cfg.OUTPUT_DIR):
            logger.info("The results there are of a model or a configuration that has changed: they are made anew")
        write_config(self.cfg)
        write_classes(self.cfg.OUTPUT_DIR, trainer.dm.dataset)
        self.provenance = provenance(trainer, weights_sha256)  # now: files may change in the meantime
        self._held_while_working.enter_context(memory_advice(trainer.smaller_settings))
        if n_ranks() > 1:
            self._held_while_working.enter_context(finishing())  # ranks end at the same step

    def finish(self, trainer) -> None:
        """Writes results.json, the mark of a run that is done; logs what makes the results doubtful."""
        self._held_while_working.close()
        results = {**results_of(trainer), "provenance": self.provenance, "cost": cost(trainer)}
        log_skipped(trainer.dm.skipped)
        for warning in results["warnings"]:
            logger.info("Warning: %s", warning)
        write_results(self.cfg, results)
        remove_resume_files(self.cfg.OUTPUT_DIR)

    def _found_done(self) -> bool:
        """Says, also to the user, whether the folder shows that the run is done."""
        done = on_first_rank(partial(is_done, self.cfg))
        if done and is_first_rank():
            remove_resume_files(self.cfg.OUTPUT_DIR)  # left by one that was killed just after it had ended
            say(f"Done already: {self.cfg.OUTPUT_DIR} holds the results of this run.")
        return done

    def _open(self) -> None:
        """Opens the log, seeds the generators."""
        cfg = self.cfg
        cfg.freeze()
        setup_logging(cfg.OUTPUT_DIR)
        set_random_seed(cfg.SEED)
        keep_freed_memory()
        if cfg.VERBOSE:
            logger.info("%s\n%s", cfg, environment())
        logger.info("Seed: %d", cfg.SEED)
        if cfg.RUN.DETERMINISTIC:
            logger.info("Deterministic: every operation repeats its bits, which costs time and memory on a GPU")
