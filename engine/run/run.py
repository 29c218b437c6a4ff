"""One run: its folder is locked, the run is skipped if it is done, recorded, finished with results.json."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import Any

from yacs.config import CfgNode as CN

from ..config.identity import changed_lines
from ..config.reads import unread_warnings
from ..data.bad_images import log_skipped
from ..device import keep_freed_memory, memory_advice
from ..distributed import is_first_rank, n_ranks, on_first_rank
from ..interruption import finishing, starting_over
from ..log import LOG_ONLY, environment, say, setup_logging
from ..random_state import set_random_seed
from ..resume import remove_resume_files
from .after_test import missing_logits, temperature_of, write_answers
from .classes import write_classes
from .folder import is_done, resolve_seed, retire_results, write_config, write_results
from .inputs import WeightsDigest, compare_inputs, in_words, inputs_tested, refusal
from .lock import locked
from .provenance import cost, forget_peak_memory, provenance
from .results import how_made, results_of

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
        weights_sha256: From the name of a CLIP to the sha256 of its weights' file; None where it is not known.

    Attributes:
        is_done: Whether the folder shows that there is nothing to do.

    Raises:
        ConfigError: If the folder holds a run of another configuration, or what was trained from other data.
        BlockingIOError: If another process has the folder.
    """

    def __init__(self, cfg: CN, *, weights_sha256: WeightsDigest = lambda name: None):
        self.cfg, self.weights_sha256, self.is_done = cfg, weights_sha256, False
        self.changed: list[str] = []  # since the results that are there were made
        self.provenance: dict[str, Any] = {}
        self.made_how: dict[str, Any] = {}
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

    def start(self, trainer) -> None:
        """Makes the folder this run's: from here on it holds its config.

        Args:
            trainer: Built, and not yet trained; loaded if it is only tested.

        Raises:
            ConfigError: If test images choose, or full validation in a few-shot run, and TEST.ALLOW_ORACLE is False.
        """
        self.made_how = how_made(trainer)
        if is_first_rank() and retire_results(self.cfg.OUTPUT_DIR):
            what = in_words(self.changed) or "the configuration"
            logger.info("What the results there were made from has changed, and they are made anew: %s", what)
        write_config(self.cfg)
        write_classes(self.cfg.OUTPUT_DIR, trainer.dm.dataset)
        if self.cfg.VERBOSE and is_first_rank():
            lines = (f"  {line}" for line in changed_lines(self.cfg))
            say("\n".join(["Config, where it differs from the defaults:", *lines, environment()]))
        self.provenance = provenance(trainer, self.weights_sha256(self.cfg.MODEL.BACKBONE.NAME))
        self._held_while_working.enter_context(memory_advice(trainer.smaller_settings))
        forget_peak_memory(trainer.device)
        if n_ranks() > 1:
            self._held_while_working.enter_context(finishing())  # ranks end at the same step

    def finish(self, trainer) -> None:
        """Writes results.json, the mark of a run that is done; logs what makes the results doubtful."""
        write_answers(trainer)
        temperature = temperature_of(trainer)
        self._held_while_working.close()
        trainer.warnings.add(*unread_warnings(self.cfg))  # now: what follows reads for itself
        made_from = {**self.provenance, **inputs_tested(trainer)}
        made = {**self.made_how, "provenance": made_from, "cost": cost(trainer)}
        results = {**results_of(trainer), "temperature": temperature, **made}
        log_skipped(trainer.dm.skipped)
        for warning in results["warnings"]:
            logger.info("Warning: %s", warning)
        write_results(self.cfg, results)
        remove_resume_files(self.cfg.OUTPUT_DIR)

    def _found_done(self) -> bool:
        """Says, also to the user, whether the folder shows that the run is done.

        Raises:
            ConfigError: If it is a training that was done from other data or weights; a test is made anew.
        """
        done, self.changed, doubt = on_first_rank(self._look)
        if self.changed and not self.cfg.RUN.EVAL_ONLY:
            raise refusal(self.cfg, self.changed)
        done = done and not self.changed
        if done and is_first_rank():
            remove_resume_files(self.cfg.OUTPUT_DIR)  # left by one that was killed just after it had ended
            say(f"Done already: {self.cfg.OUTPUT_DIR} holds the results of this run.")
            for sentence in filter(None, (doubt, missing_logits(self.cfg))):
                say(sentence)
        return done

    def _look(self) -> tuple[bool, list[str], str]:
        """Returns whether the folder holds this run, ended; what of its inputs has changed since; a doubt."""
        done = is_done(self.cfg)
        return done, *(compare_inputs(self.cfg, self.weights_sha256) if done else ([], ""))

    def _open(self) -> None:
        """Opens the log, seeds the generators."""
        cfg = self.cfg
        cfg.freeze()
        setup_logging(cfg.OUTPUT_DIR)
        set_random_seed(cfg.SEED)
        keep_freed_memory()
        if cfg.VERBOSE:
            logger.info("%s\n%s", cfg, environment(), extra=LOG_ONLY)
        logger.info("Seed: %d", cfg.SEED)
        if cfg.RUN.DETERMINISTIC:
            logger.info("Deterministic: every operation repeats its bits, which costs time and memory on a GPU")
