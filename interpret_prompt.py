"""Prints the words of the vocabulary nearest to each learned context vector, with their Euclidean distances.

Paper: Learning to Prompt for Vision-Language Models, Zhou, Yang, Loy, Liu, IJCV 2022, https://arxiv.org/abs/2109.01134
(Table 4)

    distance(m, w) = || ctx_m - token_embedding_w ||

Run: python interpret_prompt.py output/imagenet/CoOp/rn50_ep50_16shots/nctx16_cscFalse_ctpend/seed1 3
     python interpret_prompt.py model.pth.tar-50 3 --backbone RN50 --json --output words.json

FPATH is a checkpoint, or a run's folder, whose newest checkpoint is read. A token that only begins a word is shown as
"pho…", bytes that cannot be printed as \\xf0. CoCoOp's context is the one before its Meta-Net's shift.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clip.nearest_words import nearest_words, read_embedding, word_of
from engine.checkpoint import load_checkpoint, newest_checkpoint, saved_epoch
from engine.config.load import read_yaml
from engine.files import missing_path, write_atomically
from engine.registry import near_name
from engine.run.names import CONFIG, LOG
from engine.text import encodable, printable
from reports.paths import check_parent

LOGGED_BACKBONE = re.compile(r"^ *BACKBONE:\n(?:.*\n){0,3}? +NAME: *(\S.*)$|Loading CLIP \(backbone: (.+)\)$", re.M)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints or writes the nearest words and returns the exit code: 0, or 1 after an error, which is printed."""
    args = parse_args(argv)
    try:
        check_parent(args.output, "--output")
        report = interpret(args.fpath, args.topk, backbone=args.backbone, classname=args.classname)
        text = json.dumps(report, indent=2, ensure_ascii=False) if args.json else as_text(report)
        if args.output is None:
            print(encodable(text, sys.stdout.encoding))
        else:
            text = encodable(text, "utf-8")
            write_atomically(args.output, lambda temporary: temporary.write_text(text + "\n", encoding="utf-8"))
    except (ValueError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("fpath", metavar="FPATH", type=Path, help="a checkpoint, or a run's folder")
    parser.add_argument("topk", metavar="TOPK", type=int, help="words for each vector")
    parser.add_argument("--json", action="store_true", help="JSON instead of text")
    parser.add_argument("--output", type=Path, metavar="FILE", help="file to write instead of printing")
    parser.add_argument("--backbone", default="", metavar="NAME", help="CLIP used in training (default: the run's)")
    parser.add_argument("--class", dest="classname", default="", metavar="NAME", help="the context of this class alone")
    return parser.parse_args(argv)


def interpret(fpath: Path, topk: int, *, backbone: str = "", classname: str = "") -> dict[str, Any]:
    """Finds the nearest words of each context vector in a checkpoint.

    Args:
        fpath: A checkpoint, or the folder of a run.
        topk: Number of words for each vector.
        backbone: Name or path of the CLIP; "": what the run's config.yaml or log.txt says.
        classname: The class whose context is looked at, by name or index from 0; "": all contexts.

    Returns:
        "checkpoint", "backbone", "epoch" and "vectors": a list of {"vector": from 1, "words": [{"word", "token",
        "distance"}, ...]}, with "class" for class-specific contexts. With CoCoOp also a "note".

    Raises:
        FileNotFoundError: There is no checkpoint.
        ValueError: The backbone, the class or the number of words does not fit it; or the run's files name a
            TorchScript archive as the backbone.
    """
    path = find_checkpoint(fpath)
    checkpoint = load_checkpoint(path)
    contexts = choose_contexts(path, checkpoint, classname)
    trusted, backbone = bool(backbone), backbone or find_backbone(path)  # the user named it, not a file of the run
    embedding = read_embedding(backbone, trusted=trusted)
    ctx = torch.cat([vectors for _, vectors in contexts])
    if ctx.shape[1] != embedding.shape[1]:
        raise ValueError(
            f"The context vectors of {path} are {ctx.shape[1]} wide, but the token embedding of {backbone} is "
            f"{embedding.shape[1]} wide. Name the CLIP that they were trained with: --backbone NAME."
        )
    distances, tokens = nearest_words(ctx, embedding, topk)
    labels = [(name, m) for name, vectors in contexts for m in range(1, 1 + len(vectors))]
    report = {"checkpoint": str(path), "backbone": backbone, "epoch": saved_epoch(checkpoint, path)}
    if any(key.startswith("meta_net.") for key in checkpoint["state_dict"]):
        report["note"] = "CoCoOp: the context without the shift that its Meta-Net adds for each image"
    report["vectors"] = [
        {**({} if name is None else {"class": name}), "vector": m, "words": _words(*row)}
        for (name, m), row in zip(labels, zip(distances.tolist(), tokens.tolist()), strict=True)
    ]
    return report


def find_checkpoint(fpath: Path) -> Path:
    """Returns the checkpoint itself, or the newest one of a run's folder.

    Raises:
        FileNotFoundError: There is none.
    """
    if fpath.is_file():
        return fpath
    if not fpath.is_dir():
        raise FileNotFoundError(missing_path(fpath, "FPATH", "Name a checkpoint or a run's folder."))
    newest = newest_checkpoint(fpath / "prompt_learner") or newest_checkpoint(fpath)
    if newest is None:
        raise FileNotFoundError(
            f"FPATH is the folder {fpath}, which has no prompt_learner/model.pth.tar-EPOCH. "
            "Name a run of CoOp or CoCoOp that has saved a checkpoint."
        )
    return newest


def choose_contexts(path: Path, checkpoint: dict[str, Any], classname: str) -> list[tuple[str | None, Tensor]]:
    """Returns the learned vectors (M, D) by class; the class is None if all classes share one context.

    Raises:
        ValueError: There are none, or none for this class.
    """
    ctx = checkpoint["state_dict"].get("ctx")
    if ctx is None or ctx.dim() not in (2, 3) or not ctx.numel():
        entries = "the entries " + printable(", ".join(checkpoint["state_dict"]))
        found = entries if ctx is None else f"a `ctx` of shape {tuple(ctx.shape)}"
        raise ValueError(
            f"The checkpoint {path} has {found}; learned vectors are an entry `ctx` of shape (M, D) or (C, M, D). "
            "Name a checkpoint of CoOp or CoCoOp."
        )
    if ctx.dim() == 2:
        if classname:
            raise ValueError(f"--class is {classname!r}, but all classes share one context. Leave --class out.")
        return [(None, ctx)]
    names = checkpoint.get("classnames")
    if not isinstance(names, list) or len(names) != len(ctx) or not all(isinstance(name, str) for name in names):
        names = [str(index) for index in range(len(ctx))]  # the original did not save them
    chosen = [_class_index(names, classname)] if classname else range(len(ctx))
    return [(names[index], ctx[index]) for index in chosen]


def _class_index(names: list[str], classname: str) -> int:
    spoken = [name.replace("_", " ") for name in names]
    if classname.replace("_", " ") in spoken:
        return spoken.index(classname.replace("_", " "))
    if classname.isdecimal() and int(classname) < len(names):
        return int(classname)
    raise ValueError(
        f"--class is {classname!r}; it must be the name of a class that was learned, or an index from 0 to "
        f"{len(names) - 1}.{near_name(classname, names)}"
    )


def find_backbone(path: Path) -> str:
    """Returns the backbone that the config.yaml of a checkpoint's run names, or else its log.txt.

    Raises:
        ValueError: Neither names it.
    """
    folders = (path.absolute().parent, path.absolute().parent.parent)
    for config in filter(Path.is_file, (folder / CONFIG for folder in folders)):
        if name := read_yaml(config).get("MODEL.BACKBONE.NAME"):
            return str(name)
    for log in filter(Path.is_file, (folder / LOG for folder in folders)):
        if found := LOGGED_BACKBONE.findall(log.read_text(encoding="utf-8", errors="replace")):
            return "".join(found[-1]).strip("'\" ")
    raise ValueError(
        f"The backbone of {path} is unknown: neither {CONFIG} nor {LOG} of its run names it. "
        "Name the CLIP that it was trained with: --backbone NAME."
    )


def _words(distances: list[float], tokens: list[int]) -> list[dict[str, Any]]:
    pairs = zip(distances, tokens, strict=True)
    return [{"word": word_of(token), "token": token, "distance": round(distance, 6)} for distance, token in pairs]


def as_text(report: dict[str, Any]) -> str:
    """Returns what `interpret` found as text, a block for each vector."""
    epoch = "" if report["epoch"] is None else f", epoch {report['epoch']}"
    lines = [f"{printable(report['checkpoint'])} ({printable(report['backbone'])}{epoch})"]
    lines += [f"Note: {report['note']}."] if "note" in report else []
    for vector in report["vectors"]:
        of_class = f"{printable(vector['class'])}, " if "class" in vector else ""
        lines += ["", f"{of_class}vector {vector['vector']}"]
        lines += [f"  {word['distance']:.4f}  {word['word']}" for word in vector["words"]]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
