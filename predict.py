"""Classifies images with a finished run: files, folders, patterns, or a list on standard input.

    python predict.py output/caltech101/CoOp/rn50_16shots/nctx16_cscFalse_ctpend/seed1 cat.jpg photos/
    python predict.py RUN photos/ --format csv --out answers.csv --topk 3
    find . -name "*.jpg" | python predict.py RUN -

RUN is the folder of a training or of a test, or a checkpoint. The data set is not needed. A folder of class folders
also gives the accuracy. An image that cannot be read is named in the answer and at the end; the others are answered,
and the exit code is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

if __name__ == "__main__":  # Ctrl-C leaves no traceback while the imports below take their seconds
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from engine.run.startup import after_imports, before_imports
from inference.flags import parse_args

if __name__ == "__main__":  # --help, and a flag that does not exist, are answered before torch is imported
    parse_args()
    before_imports()

from tqdm import tqdm

from engine.device import keep_freed_memory
from engine.files import missing_path, naming, writing
from engine.text import printable
from inference.classifier import Classifier
from inference.predictions import File, Prediction, Writer, find_files, predict

CLOSED_PIPE = 128 + 13  # as the shell has it of a program that SIGPIPE has ended


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 an error or an image that cannot be read, 130 Ctrl-C, 141 a closed pipe."""
    args = parse_args(argv)
    try:
        return run(args)
    except BrokenPipeError:  # of `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python writes what is left to it at its end
        return CLOSED_PIPE
    except (ValueError, KeyError, OSError) as error:
        print(f"Error: {error.args[0] if isinstance(error, KeyError) else error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def run(args: argparse.Namespace) -> int:
    """Answers the images and sums up; returns the exit code."""
    keep_freed_memory()
    classnames = read_lines(args.classnames) if args.classnames else None
    classifier = Classifier.from_run(
        args.run, epoch=args.epoch, classnames=classnames, device=args.device, cache=not args.no_cache
    )
    is_list = args.images == ["-"]
    files = find_files(listed_on_stdin() if is_list else args.images, classifier.classnames, must_exist=not is_list)
    with opened(args.out) as stream:
        told = write_answers(args, classifier, files, stream)
    for prediction in told:
        print(f"Error: {prediction.error}", file=sys.stderr)
    return 1 if told else 0


def listed_on_stdin() -> list[str]:
    """Returns the paths on standard input, one a line."""
    sys.stdin.reconfigure(errors="surrogateescape")  # as Python has names of files that are no text
    return [line.rstrip("\n") for line in sys.stdin if line.strip()]


@contextlib.contextmanager
def opened(path: Path | None) -> Iterator[TextIO]:
    """Opens a file, whose folder is made if need be; None: standard output. The name of an image may be no text."""
    if path is None:
        sys.stdout.reconfigure(errors="backslashreplace")
        yield sys.stdout
        return
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = path.open("w", encoding="utf-8", errors="backslashreplace", newline="")
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise ValueError(f"--out is {path}; it must be a file in a folder ({error}).") from error
        with stream:
            yield stream


def write_answers(
    args: argparse.Namespace, classifier: Classifier, files: Sequence[File], stream: TextIO
) -> list[Prediction]:
    """Writes what the classifier says of each file; returns the predictions of those that cannot be read."""
    k = min(args.topk, len(classifier.classnames))
    told: list[Prediction] = []
    n_right: Counter[bool] = Counter()
    n_unknown = 0
    hidden = None if args.out or not sys.stdout.isatty() else True  # None: where there is no terminal
    with Writer(stream, args.format, k=k) as writer, tqdm(total=len(files), unit="image", disable=hidden) as bar:
        try:
            for prediction in predict(classifier, files, k=k, threshold=args.threshold):
                writer.write(prediction)
                bar.update()
                if prediction.error:
                    told.append(prediction)
                elif prediction.file.true is not None:
                    n_right[prediction.best[0][0] == prediction.file.true] += 1
                    n_unknown += prediction.best[0][1] < args.threshold
        except KeyboardInterrupt:
            print(f"Interrupted: {writer.n:,} of {len(files):,} images are answered.", file=sys.stderr)
            raise
    if n_right:
        unknown = f"; {n_unknown:,} of them are unknown, but count by their best class" if n_unknown else ""
        accuracy = 100 * n_right[True] / n_right.total()
        print(f"accuracy: {accuracy:.2f}% of {n_right.total():,} images{unknown}", file=sys.stderr)
    return told


def read_lines(path: Path) -> list[str]:
    """Returns the lines of a file of class names, one a line, that are not empty."""
    if not path.exists():
        raise FileNotFoundError(missing_path(path, "The file of class names", "Correct --classnames."))
    with naming(path):
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    if len(names) < 2:
        raise ValueError(f"{printable(str(path))} has {len(names)} class name(s), one a line; at least 2 are needed.")
    return names


if __name__ == "__main__":
    after_imports()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
