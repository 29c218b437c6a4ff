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
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from inference.flags import parse_args

if __name__ == "__main__":  # --help, and a flag that does not exist, are answered before torch is imported
    parse_args()

from tqdm import tqdm

from engine.files import writing
from engine.text import printable
from inference.classifier import Classifier
from inference.predictions import Prediction, Writer, find_files, predict


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 an error or an image that cannot be read, 130 after Ctrl-C."""
    args = parse_args(argv)
    try:
        return run(args)
    except (ValueError, KeyError, OSError) as error:
        print(f"Error: {error.args[0] if isinstance(error, KeyError) else error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def run(args: argparse.Namespace) -> int:
    """Answers the images and sums up; returns the exit code."""
    classnames = read_lines(args.classnames) if args.classnames else None
    classifier = Classifier.from_run(
        args.run, epoch=args.epoch, classnames=classnames, device=args.device, cache=not args.no_cache
    )
    listed = [line.rstrip("\n") for line in sys.stdin if line.strip()] if args.images == ["-"] else args.images
    files = find_files(listed, classifier.classnames)
    k = min(args.topk, len(classifier.classnames))
    told: list[Prediction] = []
    n_right: Counter[bool] = Counter()
    with contextlib.ExitStack() as stack:
        stream = sys.stdout
        if args.out:
            stack.enter_context(writing(args.out))
            stream = stack.enter_context(args.out.open("w", encoding="utf-8", newline=""))
        writer = stack.enter_context(Writer(stream, args.format, k=k))
        bar = tqdm(total=len(files), unit="image", disable=None if args.out or not sys.stdout.isatty() else True)
        for prediction in predict(classifier, files, k=k, threshold=args.threshold):
            writer.write(prediction)
            bar.update()
            if prediction.error:
                told.append(prediction)
            elif prediction.file.true is not None:
                n_right[prediction.best[0][0] == prediction.file.true] += 1
        bar.close()
    if n_right:
        print(f"accuracy: {100 * n_right[True] / n_right.total():.2f}% of {n_right.total():,} images", file=sys.stderr)
    for prediction in told:
        print(f"Error: {prediction.error}", file=sys.stderr)
    return 1 if told else 0


def read_lines(path: Path) -> list[str]:
    """Returns the lines of a file of class names, one a line, that are not empty."""
    names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    if len(names) < 2:
        raise ValueError(f"{printable(str(path))} has {len(names)} class name(s), one a line; at least 2 are needed.")
    return names


if __name__ == "__main__":
    sys.exit(main())
