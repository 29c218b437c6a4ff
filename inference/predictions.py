"""Classifies files, however many, and writes what is said of each as it comes."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from engine.data.image_files import CAMERA_RAW, PICTURE_SUFFIXES, images_below
from engine.data.image_io import FORMATS, BrokenImageError, MissingImageError, read_image
from engine.files import csv_writer
from engine.text import one_form, printable

from .classifier import Classifier

N_BATCHES = 4  # files of so many batches are answered at once: it bounds memory, and what a kill loses
UNKNOWN = "unknown"


@dataclass(frozen=True)
class File:
    """A file to classify, and its class where its folder says it."""

    path: str
    true: str | None = None


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of a file.

    Attributes:
        best: (class, probability) of the most probable classes, the best first; empty if the file does not decode.
        label: The best class, or "unknown" where its probability is too small.
        error: Why the file does not decode.
    """

    file: File
    best: Sequence[tuple[str, float]] = ()
    label: str = ""
    error: str = ""


def find_files(arguments: Iterable[str], classnames: Sequence[str], *, must_exist: bool = True) -> list[File]:
    """Returns the files that arguments name: files, folders with all that is below them, and patterns with * or ?.

    In a folder whose folders are named like the classes, the folders say the true classes.

    Raises:
        ValueError: If there are none, or a folder holds no images.
        FileNotFoundError: If an argument names nothing; without `must_exist` it is a file, which cannot be read.
    """
    found: list[File] = []
    for argument in arguments:
        path = os.path.expanduser(argument)
        if os.path.isdir(path):
            found += _files_in(Path(path), classnames)
        elif os.path.lexists(path):
            found.append(File(path))
        elif matches := sorted(glob.glob(path, recursive=True)):
            found += [file for match in matches for file in find_files([match], classnames)]
        elif not must_exist:
            found.append(File(path))
        else:
            raise FileNotFoundError(f"{printable(argument)} is neither a file nor a folder, and matches none.")
    if not found:
        raise ValueError("The list of images is empty. Name at least one, one a line.")
    return found


def _files_in(folder: Path, classnames: Sequence[str]) -> list[File]:
    paths = list(images_below(folder, also=PICTURE_SUFFIXES))  # these are named if they cannot be read
    if not paths:
        raise ValueError(f"{folder} holds no images ({', '.join(sorted(FORMATS))}), nor do its folders. Name another.")
    names = {plain(name): name for name in classnames}
    above = [path.relative_to(folder).parts[:-1] for path in paths]  # of each image, the folders from the class's on
    classes = [names.get(plain(parts[0])) if parts else None for parts in above]
    if None in classes:  # some other folders, or images beside them: they say nothing
        return [File(str(path)) for path in paths]
    return [File(str(path), true) for path, true in zip(paths, classes)]


def plain(name: str) -> str:
    """Returns a name as folders and class lists share it: in one Unicode form, with spaces."""
    return one_form(name).replace("_", " ")


def predict(
    classifier: Classifier, files: Sequence[File], *, k: int = 1, threshold: float = 0.0
) -> Iterator[Prediction]:
    """Yields what a classifier says of each file, in their order.

    Args:
        classifier: The classifier.
        files: The files; one that does not decode is answered with an error.
        k: How many classes to name.
        threshold: Below this probability the label is "unknown".
    """
    n_at_once = N_BATCHES * classifier.batch_size
    with classifier.loading():
        for start in range(0, len(files), n_at_once):
            part = files[start : start + n_at_once]
            answers, errors = _answers(classifier, part, k)
            for file in part:
                if file.path in errors:
                    yield Prediction(file, error=errors[file.path])
                else:
                    best = answers[file.path]
                    yield Prediction(file, best, best[0][0] if best[0][1] >= threshold else UNKNOWN)


def _answers(classifier: Classifier, files: Sequence[File], k: int) -> tuple[dict[str, list], dict[str, str]]:
    """Returns path -> its best classes, and path -> why it does not decode."""
    paths = list(dict.fromkeys(file.path for file in files))
    errors = {path: _error_of(path) for path in paths if path.lower().endswith(CAMERA_RAW)}
    try:
        return _best(classifier, paths, k, errors), errors
    except (BrokenImageError, MissingImageError):
        errors = {path: error for path in paths if (error := _error_of(path))}
        return _best(classifier, paths, k, errors), errors


def _best(classifier: Classifier, paths: Sequence[str], k: int, errors: Mapping[str, str]) -> dict[str, list]:
    whole = [path for path in paths if path not in errors]
    return dict(zip(whole, classifier.topk(whole, k) if whole else []))


def _error_of(path: str) -> str:
    if path.lower().endswith(CAMERA_RAW) and os.path.exists(path):
        return f"Image {printable(path)} is a camera's raw file: only its thumbnail could be read. Export it as JPEG."
    try:
        read_image(path)
    except (BrokenImageError, MissingImageError) as error:
        return error.fault
    return ""


class Writer:
    """Writes predictions in a format, each as it comes.

    Args:
        stream: Where to.
        kind: "table", "csv" or "json".
        k: How many classes a prediction names.
    """

    def __init__(self, stream: TextIO, kind: str, *, k: int):
        self.stream, self.kind, self.k, self.n = stream, kind, k, 0

    def __enter__(self) -> Writer:
        if self.kind == "csv":
            ranked = [name for i in range(1, self.k + 1) for name in (f"class_{i}", f"probability_{i}")]
            self._rows = csv_writer(self.stream)
            self._rows.writerow(["path", "prediction", "true", "error", *ranked])
        return self

    def write(self, prediction: Prediction) -> None:
        """Writes one prediction."""
        getattr(self, f"_{self.kind}")(prediction)
        self.stream.flush()
        self.n += 1

    def __exit__(self, *error) -> None:
        if self.kind == "json":
            self.stream.write("\n]\n" if self.n else "[]\n")
        self.stream.flush()

    def _table(self, prediction: Prediction) -> None:
        named = [f"{printable(name)} {100 * value:.1f}%" for name, value in prediction.best]
        if prediction.label == UNKNOWN:
            named.insert(0, UNKNOWN)
        said = f"cannot be read: {prediction.error}" if prediction.error else "  ".join(named)
        self.stream.write(f"{printable(prediction.file.path)}  {said}\n")

    def _csv(self, prediction: Prediction) -> None:
        ranked = [value for name, probability in prediction.best for value in (name, f"{probability:.6f}")]
        file = prediction.file
        self._rows.writerow([file.path, prediction.label, file.true or "", prediction.error, *ranked])

    def _json(self, prediction: Prediction) -> None:
        entry = {"path": prediction.file.path, "prediction": prediction.label or None}
        if prediction.file.true is not None:
            entry["true"] = prediction.file.true
        if prediction.error:
            entry["error"] = prediction.error
        entry["classes"] = [{"name": name, "probability": round(value, 6)} for name, value in prediction.best]
        self.stream.write(",\n" if self.n else "[\n")
        json.dump(entry, self.stream, ensure_ascii=False)
