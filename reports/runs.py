"""Reads one run: its result and what it says of itself, from results.json, or from a log (ours or the original's)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.run.names import LOG, RESULTS
from engine.text import printable

from .logged_config import logged_identity, logged_settings

END_OF_TRAINING = "Finish training"
END_OF_TEST = "=> result"
SIGNS_OF_WORK = ("Loading CLIP", "Resume after epoch", "epoch [")  # results that stand before one are old
NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"  # read in one way, so in linear time
TOTAL = re.compile(r"\* total: (\d[\d,]{0,14})")
# Keyword in log.txt -> key in results.json, where they differ.
RESULT_KEYS = {"error": "error_rate", "average": "perclass_accuracy"}
COSTS = ("training_s", "testing_s", "peak_memory_gb", "peak_gpu_memory_gb")  # keys of "cost" in results.json
IDENTITY = (  # keys of results.json that say which run it is
    *("trainer", "cfg", "backbone", "n_ctx", "csc", "class_token_position"),
    *("source", "shots", "seed", "dataset", "subsample", "split"),
)
MODEL_OF = "the model's "  # before a key of the training of a tested model
NOT_KNOWN = "not known"  # what has chosen an epoch, where results.json has null
FAILURE = "The run ended with an error: "  # as train.py logs it
MOST = 10**12  # more than anybody has measured, or images that anybody has tested on


@dataclass(frozen=True)
class Run:
    """What is known of a run.

    Args:
        folder: The run's.
        path: The file that was read; None if there is none.
        value: In percent; None if it has none.
        problem: The reason why it has none.
        total: Number of images behind the value; None if the file does not say.
        warnings: Sentences that the run left with its result.
        identity: Those entries of IDENTITY that results.json has.
        settings: Config key -> value in JSON, for the run and the training of its model: the keys that decide what is
            computed and are not at their default. Seeds are not among them. Empty in older runs.
        logged: All keys of the config that a log has, in the same form.
        tested: Digest of the test items; "" if the file does not say, or if others were tested on.
        epoch: So many epochs the tested model has seen; None if the file does not say.
        absent: Those entries of IDENTITY that results.json has as null: the method has no such thing.
        selection: "epoch" and "hyperparameters" -> the images by which they were chosen, such as "few-shot validation",
            or NOT_KNOWN; empty in older runs.
        setting: How it departs from the common protocol, such as "transductive".
        digests: "templates", "train_transform", "test_transform" -> a digest of each, where there is one.
        device: The GPU's or the processor's name; "" if the file does not say.
        meant: Config key -> value in JSON, of those that are meant to differ from the config that the folder names.
    """

    folder: Path
    path: Path | None = None
    value: float | None = None
    problem: str = ""
    total: int | None = None
    warnings: tuple[str, ...] = ()
    identity: Mapping[str, str | float] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    logged: Mapping[str, str] = field(default_factory=dict)
    tested: str = ""
    epoch: int | None = None
    absent: tuple[str, ...] = ()
    selection: Mapping[str, str] = field(default_factory=dict)
    setting: tuple[str, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)
    device: str = ""
    meant: Mapping[str, str] = field(default_factory=dict)


def parse_run(folder: Path, *, keyword: str = "accuracy", end_signal: str = END_OF_TRAINING) -> Run:
    """Reads one run: with its value in percent, or with the reason why it has none.

    Args:
        folder: The run's folder.
        keyword: The result to read, as it stands in log.txt; or one of COSTS, which results.json alone has.
        end_signal: The line of log.txt after which a result counts.
    """
    path = record(folder)
    if path is None:
        return Run(folder, problem=f"it has neither {LOG} nor {RESULTS}")
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        found = _read_results(text, keyword) if path.suffix == ".json" else _read_log(text, keyword, end_signal)
        if not abs(found["value"]) < MOST:  # nor is it NaN
            raise ValueError(f'"{keyword}" is {found["value"]}, which no run measures')
    except (OSError, ValueError, OverflowError, RecursionError) as error:  # the last: of lists in lists without end
        hint = _hint_of_other_log(folder, keyword, end_signal) if path.name == LOG else ""
        return Run(folder, path, problem=printable(f"{path.name}: {error}{hint}"))
    return Run(folder, path, **found)


def record(folder: Path) -> Path | None:
    """Returns the file that says how a run ended; None where there is none."""
    return next((path for path in (folder / RESULTS, folder / LOG) if path.is_file()), None)


def seed_of(folder: Path) -> int | None:
    """Returns the N of a folder seedN; None for any other folder."""
    found = re.fullmatch(r"seed(\d+)", folder.name)
    return int(found[1]) if found else None


def seed_folders(folder: Path) -> list[Path]:
    """Returns the folders seedN in a folder, seed2 before seed10."""
    return sorted((path for path in folder.glob("seed*") if seed_of(path) is not None and path.is_dir()), key=seed_of)


def _hint_of_other_log(folder: Path, keyword: str, end_signal: str) -> str:
    """Says which other log of the folder has a result: the original begins another one if there is one."""
    for path in sorted(folder.glob(f"{LOG}-*"), reverse=True):
        try:
            value = _read_log(path.read_text(encoding="utf-8", errors="replace"), keyword, end_signal)["value"]
        except (OSError, ValueError):
            continue
        return f"; {path.name} beside it ended with {value:.2f}%: rename it to {LOG} if it counts"
    return ""


def _read_log(text: str, keyword: str, end_signal: str) -> dict[str, Any]:
    original, lines = text.splitlines(), [line.strip() for line in text.splitlines()]
    # A run that is started again appends to its log.
    start = 1 + max((i for i, line in enumerate(lines) if line.startswith(SIGNS_OF_WORK)), default=-1)
    failures = [line for line in lines[start:] if line.startswith(FAILURE)]
    if failures and end_signal not in lines[start:]:
        raise ValueError(failures[-1].rstrip("."))
    if end_signal in lines[:start] and end_signal not in lines[start:]:
        raise ValueError(f'it goes on after "{end_signal}" with "{lines[start - 1]:.40}", so the run is not finished')
    if end_signal not in lines:
        hint = "; for logs of testing only add --test-log" if END_OF_TEST in lines[start:] else ""
        raise ValueError(f'no line "{end_signal}", so the run is not finished{hint}')
    end = lines.index(end_signal, start)
    found = re.findall(rf"^\* (\w+): ({NUMBER})%", "\n".join(lines[end:]), re.MULTILINE)
    results = {name: float(number) for name, number in found}
    if keyword not in results:
        others = f"; there are {', '.join(results)}" if results else ""
        raise ValueError(f'no line "* {keyword}: NUMBER%" after "{end_signal}"{others}')
    totals = [found[1] for line in lines[end:] if (found := TOTAL.fullmatch(line))]
    settings = logged_settings(original[:end])
    identity = logged_identity(lines[:end], settings)
    if end_signal == END_OF_TEST:
        identity.pop("shots", None)  # of the test's config
    return {
        "value": results[keyword],
        "total": int(totals[-1].replace(",", "")) if totals else None,
        "identity": identity,
        "logged": settings,
    }


def _read_results(text: str, keyword: str) -> dict[str, Any]:
    tree = json.loads(text)
    results = tree if isinstance(tree, dict) else {}
    key = RESULT_KEYS.get(keyword, keyword)
    value = (_entries(results, "cost") if key in COSTS else results).get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        measures = [name for name, number in results.items() if isinstance(number, float)]
        if value is None and key in results and not measures:
            raise ValueError("nothing was tested")
        raise ValueError(
            f'no number under the key "{key}"' + (f"; there are {', '.join(measures)}" if measures else "")
        )
    total = results.get("total")
    return {
        "value": float(value),
        "total": total if isinstance(total, int) and 0 < total < MOST else None,
        "warnings": _sentences(results, "warnings"),
        "identity": _identity(results),
        "settings": _settings(results),
        "tested": _tested(results),
        "epoch": results["epoch"] if isinstance(results.get("epoch"), int) else None,
        "absent": tuple(key for key in IDENTITY if key in results and results[key] is None),
        "selection": _words({key: rule or NOT_KNOWN for key, rule in _entries(results, "selection").items()}),
        "setting": _sentences(results, "setting"),
        "digests": _words(_entries(results, "digests")),
        "device": _words(_entries(results, "provenance")).get("device", ""),
    }


def _entries(results: dict[str, Any], key: str) -> dict[str, Any]:
    found = results.get(key)
    return found if isinstance(found, dict) else {}


def _sentences(results: dict[str, Any], key: str) -> tuple[str, ...]:
    found = results.get(key)
    return tuple(printable(str(text)) for text in found) if isinstance(found, list) else ()


def _words(entries: dict[Any, Any]) -> dict[Any, str]:
    return {key: printable(value) for key, value in entries.items() if isinstance(value, str)}


def _identity(results: dict[str, Any]) -> dict[str, str | float]:
    known = {key: results[key] for key in IDENTITY if isinstance(results.get(key), (str, int, float))}
    if "source" in results and "source" not in known:
        known.pop("shots", None)  # of the test's config: the model's are not known, as it has no config.yaml
    return known


def _settings(results: dict[str, Any]) -> dict[str, str]:
    of_training = {f"{MODEL_OF}{key}": value for key, value in _entries(results, "trained_with").items()}
    found = {**_entries(results, "settings"), **of_training}
    return {key: json.dumps(value, ensure_ascii=False, sort_keys=True) for key, value in found.items()}


def _tested(results: dict[str, Any]) -> str:
    digest = _entries(_entries(results, "provenance"), "data_sha256").get("test")
    # Few-shot validation items are drawn for each seed.
    return digest if isinstance(digest, str) and results.get("split", "test") == "test" else ""
