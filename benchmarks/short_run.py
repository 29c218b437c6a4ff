"""One short run: seconds of a training step, read from disk and in memory, its peak memory and matrix-product share.

Run:   python -m benchmarks.short_run [--trainer CoOp] [--steps 40] [--repeats 3] [--prec fp16] [--json FILE]
ViT-B/16 of random weights on the drawn `shapes`, 16 shots, with the batch size of the papers' YAML. A step reads,
encodes and learns a batch as train.py does; "in memory" all steps see one batch, so nothing is read. Then the small
CLIP of `shapes` is trained whole, as its `tiny` YAML says: the accuracy has to be that of a CPU (BENCHMARKS.md,
README.md) to within the seeds' spread. On a GPU times are those of CUDA events.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain, islice, repeat
from pathlib import Path

import torch

import train
from engine import TRAINER_REGISTRY, TrainerX, set_random_seed

from .deep_prompts import build_clip
from .measure import Report, add_arguments, add_precision, alternate, count_flops, device, matmul_rate, timed

CFG = {"CoOp": "vit_b16_ctxv1", "CoCoOp": "vit_b16_c4_ep10_batch1_ctxv1"}


def words_of(args: argparse.Namespace, cfg: str, folder: Path) -> list[str]:
    """Returns train.py's arguments of a run with 16 shots; its output goes to `folder`."""
    yaml = f"configs/trainers/{args.trainer}/{cfg}.yaml"
    words = ["--trainer", args.trainer, "--config-file", yaml]
    words += ["--dataset-config-file", f"configs/datasets/{args.dataset}.yaml"]
    words += ["--root", args.root, "--output-dir", str(folder), "--seed", "1"]
    return [*words, "DATASET.NUM_SHOTS", "16", "FEATURES.DIR", str(folder / "features")]


def build_run(args: argparse.Namespace, folder: Path) -> TrainerX:
    """Returns the trainer of a run with a ViT-B/16 of random weights, ready to train."""
    torch.save(build_clip("fp32").cpu().state_dict(), folder / "vit_b16_random.pt")
    words = [*words_of(args, args.cfg or CFG[args.trainer], folder / "run"), *args.opts]
    pairs = ["MODEL.BACKBONE.NAME", folder / "vit_b16_random.pt", f"TRAINER.{args.trainer.upper()}.PREC", args.prec]
    cfg = train.setup_cfg(train.parse_args([*words, *map(str, pairs)]))
    cfg.freeze()
    set_random_seed(cfg.SEED)
    trainer = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)(cfg)
    trainer.before_train()
    trainer.set_model_mode("train")
    return trainer


def learn(trainer: TrainerX, found: Iterator[dict], n: int) -> None:
    """Does n steps."""
    for batch in islice(found, n):
        trainer.forward_backward(batch)


def measure_steps(report: Report, args: argparse.Namespace, folder: Path) -> None:
    """Reports what a step takes."""
    trainer = build_run(args, folder)
    stream = chain.from_iterable(repeat(trainer.train_loader_x))  # epoch after epoch
    batch = next(stream)
    step = partial(trainer.forward_backward, batch)
    step()
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    flops, n = count_flops(step), args.steps
    whole, in_memory = (partial(timed, partial(learn, trainer, found, n)) for found in (stream, repeat(batch)))
    whole_s, in_memory_s, rates = alternate(args.repeats, whole, in_memory, partial(matmul_rate, args.prec))
    trainer.writer.close()
    median_s = statistics.median(in_memory_s) / n
    row = {
        "case": f"{args.trainer}, ViT-B/16, {args.prec}, batch {len(batch['label'])}",
        "step_s": statistics.median(whole_s) / n,
        "step_in_memory_s": median_s,
        "of_matmul": flops / median_s / statistics.median(rates),
        "peak_memory_gb": torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_initialized() else None,
    }
    report.add(row, f"{row['case']:40}{row['step_s']:10.4f}{median_s:12.4f}{row['of_matmul']:11.0%}")


def measure_accuracy(report: Report, args: argparse.Namespace, folder: Path) -> None:
    """Reports the accuracy and the minutes of a whole run with the small CLIP of `shapes`."""
    config = train.parse_args([*words_of(args, "tiny", folder / "tiny"), *args.opts])
    seconds = timed(partial(train.call, config))
    results = train.read_results(folder / "tiny")
    row = {"case": f"{args.trainer}, {args.dataset}, tiny, seed 1", "accuracy": results["accuracy"], "run_s": seconds}
    report.add(row, f"{row['case']:40}{row['accuracy']:10.2f} %{seconds:10.1f} s")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    add_precision(parser)
    parser.add_argument("--trainer", choices=tuple(CFG), default="CoOp", help="method (default: %(default)s)")
    parser.add_argument("--cfg", help="configs/trainers/TRAINER/CFG.yaml (default: the paper's with ViT-B/16)")
    parser.add_argument("--steps", type=int, default=40, help="steps of a round (default: %(default)s)")
    parser.add_argument("--dataset", default="shapes", help="configs/datasets/DATASET.yaml (default: %(default)s)")
    parser.add_argument("--root", default="data", help="folder of data sets (default: %(default)s)")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config keys and values")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    header = f"{'case':40}{'step (s)':>10}{'in memory':>12}{'of matmul':>11}"
    report = Report("short_run", args, f"{args.trainer} on {args.dataset}, {device().type}", header)
    with tempfile.TemporaryDirectory() as folder:
        measure_steps(report, args, Path(folder))
        measure_accuracy(report, args, Path(folder))
    report.write()


if __name__ == "__main__":
    main()
