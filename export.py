"""Takes a trained classifier out of the toolkit: a folder of numbers and facts that needs none of this code.

Run: python export.py output/caltech101/CoOp/rn50_16shots/nctx16_cscFalse_ctpend/seed1 --out my-classifier
     python export.py output/... --out my-classifier --format onnx        from pixels to logits, without torch
     python export.py output/... --out my-clip --format clip              a CLIP, of a method that tunes its towers
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="export.py", description=__doc__.splitlines()[0])
    parser.add_argument("run", metavar="RUN", help="a run's folder, or one of its checkpoints")
    parser.add_argument("--out", metavar="FOLDER", type=Path, required=True, help="a new folder")
    formats = "classifier: the matrix behind CLIP's image tower; onnx: the tower, too; clip: a CLIP with tuned weights"
    formats += " (default: %(default)s)"
    parser.add_argument("--format", choices=("classifier", "onnx", "clip"), default="classifier", help=formats)
    precisions = "of the ONNX file: float32, or float16 at half the size (default: %(default)s)"
    parser.add_argument("--precision", choices=("fp32", "fp16"), default="fp32", help=precisions)
    parser.add_argument("--epoch", type=int, metavar="N", help="the model after N epochs (default: the tested one)")
    args = parser.parse_args(argv)
    if args.format != "onnx" and args.precision != "fp32":
        parser.error("--precision fp16 needs --format onnx: the other formats are float32. Leave it out.")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 an error, which is printed."""
    args = parse_args(argv)

    from engine.run.folder import read_results  # here: --help costs no torch
    from inference.artefact import write_artefact
    from inference.classifier import Classifier
    from inference.merged import write_merged
    from inference.onnx import write_onnx
    from inference.run_folder import find_run

    try:
        folder, epoch = find_run(args.run)
        epoch = epoch if args.epoch is None else args.epoch
        classifier = Classifier.from_run(folder, epoch=epoch, device="cpu")
        results = read_results(folder) or {}
        is_tested = epoch in (None, results.get("epoch"))
        trainer, head = classifier.trainer, classifier.head
        writers = {
            "classifier": partial(write_artefact, trainer, head),
            "onnx": partial(write_onnx, trainer, head, precision=args.precision),
            "clip": partial(write_merged, trainer),
        }
        writers[args.format](args.out, results if is_tested else {})
    except (ValueError, KeyError, OSError, ModuleNotFoundError) as error:
        print(f"Error: {error.args[0] if isinstance(error, KeyError) else error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(f"Wrote {args.out}: {len(classifier.classnames):,} classes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
