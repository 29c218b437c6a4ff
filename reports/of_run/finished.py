"""Reads what a finished run left in its folder, and refuses what does not belong together."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.files import missing_path
from engine.run.classes import read_classes
from engine.run.folder import call_words, found_from, read_config, read_results
from engine.run.names import CONFIG, PREDICTIONS
from engine.text import printable

from ..runs import MOST
from .losses import read_losses
from .predictions import Prediction, read_predictions

NOT_SHOWN = ("error_rate",)  # 100 - accuracy


@dataclass(frozen=True)
class FinishedRun:
    """A finished run.

    Args:
        folder: The run's.
        results: What results.json holds.
        root: Folder of the images.
        classnames: Of the data set, by label; empty where the run has not left them.
        predictions: None where the run has not left them.
        losses: Epoch, from 1 -> mean loss. Empty where nothing was trained.
        how_to_test: The command that leaves predictions.
        notes: Sentences on what a reader of the pictures has to know.
    """

    folder: Path
    results: Mapping[str, Any]
    root: Path
    classnames: list[str] = field(default_factory=list)
    predictions: list[Prediction] | None = None
    losses: Mapping[int, float] = field(default_factory=dict)
    how_to_test: str = ""
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        trainer, dataset = (self.text(key, "a run") for key in ("trainer", "dataset"))
        return f"{trainer} on {dataset}"

    @property
    def measures(self) -> dict[str, float]:
        """What was measured, by key of results.json: its numbers with a fraction; names and counts have none."""
        found = {key: value for key, value in self.results.items() if isinstance(value, float) and _is_number(value)}
        return {key: value for key, value in found.items() if key not in NOT_SHOWN}

    @property
    def warnings(self) -> list[str]:
        """The sentences that the run left with its results."""
        said = self.results.get("warnings")
        return [printable(str(warning)) for warning in said] if isinstance(said, list) else []

    def text(self, key: str, absent: str = "") -> str:
        """Returns an entry of results.json to show."""
        value = self.results.get(key)
        return absent if value is None else printable(str(value))


def read_run(folder: Path) -> FinishedRun:
    """Reads the folder of a finished run: a training, or a test of a trained or a zero-shot model.

    Raises:
        FileNotFoundError: The folder does not exist.
        ValueError: It is no run's, the run is not finished, or a file in it is not what a run writes.
    """
    results = _results(folder)
    cfg, classes, predictions = read_config(folder), read_classes(folder), read_predictions(folder)
    names = classes.classnames if classes else []
    if predictions is not None:
        _require_same(folder, results, predictions, names)
    return FinishedRun(
        folder,
        results,
        Path(found_from(folder, cfg.OUTPUT_DIR, cfg.DATASET.ROOT)) if cfg else Path(),
        names,
        predictions,
        read_losses(folder),
        _how_to_test(folder, cfg, results) if cfg else "",
        tuple(_notes(names, predictions)),
    )


def _results(folder: Path) -> dict[str, Any]:
    if not folder.exists():
        raise FileNotFoundError(missing_path(folder, "The run", "Name the folder of a run, such as output/.../seed1."))
    if not folder.is_dir():
        raise ValueError(f"--run is the file {folder}. Name the run's folder, which holds {CONFIG}.")
    results = read_results(folder)
    if results is not None:
        return results
    if (folder / CONFIG).is_file():
        raise ValueError(
            f"The run in {folder} is not finished: it has no results.json. Finish it with the command that started "
            "it, which goes on where it stopped."
        )
    inside = sorted(path.parent.name for path in folder.glob(f"*/{CONFIG}"))
    hint = f" It holds the runs {printable(', '.join(inside[:3]))}: name one." if inside else ""
    raise ValueError(f"{folder} is no run's folder: it has no {CONFIG} and no results.json.{hint}")


def _require_same(folder: Path, results: Mapping[str, Any], predictions: list[Prediction], names: list[str]) -> None:
    """Raises ValueError where predictions and results are not of the same test."""
    counts = {"total": len(predictions)}
    if len(set(names)) == len(names):  # else a right name may be the wrong one of two classes
        counts["correct"] = sum(item.is_right for item in predictions)
    for key, n in counts.items():
        said = results.get(key)
        if _is_number(said) and said != n:
            raise ValueError(
                f'{folder / PREDICTIONS} has {n:,} under "{key}", results.json {said:,}: it is cut short, or of '
                "another test. Delete it and test again."
            )
    if not predictions:
        raise ValueError(f"{folder / PREDICTIONS} holds no image. Delete it and test again.")


def _how_to_test(folder: Path, cfg, results: Mapping[str, Any]) -> str:
    """Returns the command that tests the same model again, in a folder of its own below the run's."""
    flags = []
    if not cfg.RUN.EVAL_ONLY:
        flags += ["--eval-only", "--model-dir", str(folder)]
        if cfg.TEST.FINAL_MODEL == "last_step" and _is_number(results.get("epoch")):
            flags += ["--load-epoch", str(results["epoch"])]
    words = call_words(folder, folder / "test", cfg.RUN.PLUGINS, *flags)
    in_the_way = {"RESUME": "", "TEST.NO_TEST": "False", "TEST.SAVE_PREDICTIONS": "True"}
    is_so = (not cfg.RESUME, not cfg.TEST.NO_TEST, cfg.TEST.SAVE_PREDICTIONS)
    words += [word for pair, is_right in zip(in_the_way.items(), is_so) if not is_right for word in pair]
    return printable(shlex.join(words))


def _notes(names: list[str], predictions: list[Prediction] | None) -> list[str]:
    notes = []
    if n_same := len(names) - len(set(names)):
        notes.append(f"Classes of one name are one class below: {n_same} of {len(names):,} have the name of another.")
    if names and predictions and (absent := set(names) - {item.true for item in predictions}):
        notes.append(f"{len(absent):,} of {len(names):,} classes have no image in this test.")
    return notes


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < MOST  # nor is it NaN
