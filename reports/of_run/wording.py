"""What is said of a run, in its page and in its summary."""

from __future__ import annotations

from engine.text import printable

from .finished import FinishedRun


def facts(run: FinishedRun) -> dict[str, str]:
    """Returns what identifies a run, by the name of the fact; what it does not say is left out."""
    total, shots = run.results.get("total"), run.text("shots")
    known = {
        "Run": printable(str(run.folder.absolute())),
        "Backbone": run.text("backbone"),
        "Trained on": run.text("source", "nothing (zero-shot)" if "source" in run.results else ""),
        "Shots": "all images" if shots == "-1" else shots,
        "Epochs": run.text("epoch"),
        "Seed": run.text("seed"),
        "Tested on": f"{total:,} images ({run.text('split', 'test')})" if isinstance(total, int) else "",
    }
    if not run.results.get("source"):
        known |= {"Shots": "", "Epochs": ""}
    return {name: fact for name, fact in known.items() if fact}


MEASURES = {  # key of results.json -> its name and its unit
    "accuracy": ("Accuracy", "%"),
    "top5_accuracy": ("Top-5 accuracy", "%"),
    "balanced_accuracy": ("Balanced accuracy", "%"),
    "perclass_accuracy": ("Mean over classes", "%"),
    "macro_f1": ("Macro F1", "%"),
    "ece": ("Calibration error", "%"),
    "nll": ("Negative log-likelihood", ""),
    "brier": ("Brier score", ""),
    "temperature": ("Temperature", ""),
}


def measure_texts(run: FinishedRun) -> dict[str, str]:
    """Returns each measure with its unit, by its name; those of an evaluator of one's own have their key's name."""
    order = [*MEASURES, *run.measures]
    texts = {}
    for key in sorted(run.measures, key=order.index):
        name, unit = MEASURES.get(key, (printable(key), ""))
        texts[name] = f"{run.measures[key]:.2f}{unit}" if unit else f"{run.measures[key]:.3f}"
    return texts


def not_measured(run: FinishedRun) -> tuple[str, str]:
    """Returns a sentence, and the command that it ends with."""
    return "Nothing was measured. Test the run:", run.how_to_test


def no_predictions(run: FinishedRun) -> tuple[str, str]:
    """Returns a sentence, and the command that it ends with."""
    sentence = "Classes, confusions, calibration and images need predictions.csv, which this run has not left."
    return (f"{sentence} Test it again:", run.how_to_test) if run.how_to_test else (f"{sentence} Test it again.", "")


def no_loss(run: FinishedRun) -> str:
    """Returns why there is no loss curve."""
    if run.results.get("source") is None and "source" in run.results:
        return "Nothing was trained, so there is no loss."
    return "This folder's log.txt has no loss: the run is a test, or it logged no batch. See the training's folder."
