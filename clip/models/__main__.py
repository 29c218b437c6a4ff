"""Lists the models that can be had by name.

Run: python -m clip.models
     python -m clip.models laion2b ViT-B      the names that hold every word
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from . import open_clip_rows, own_rows

LEGEND = """
text tower  shared: what prompts have in common is computed once; plain: every position of every prompt is computed;
            closed: it takes no context vectors, so zero-shot CLIP and the linear probe are what it can be used for
by name     open_clip:ARCHITECTURE/TAG as above, or /FILE for /TAG; open_clip:FOLDER; open_clip:hf-hub:OWNER/NAME
            hf:OWNER/NAME, hf:OWNER/NAME@REVISION or hf:FOLDER of transformers, such as its CLIPModel and SiglipModel
by path     a file of weights in OpenAI's layout
docs/BACKBONES.md says more."""


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the models whose names hold all words."""
    args = parse_args(argv)
    words = [word.lower() for word in args.word]
    rows = [row for row in (*own_rows(), *open_clip_rows()) if all(word in row.name.lower() for word in words)]
    if not rows:
        print(f"Error: No model's name holds {' and '.join(args.word)}. Without words all are listed.", file=sys.stderr)
        return 1
    print(f"{'name':62}{'MB':>6}{'pixels':>8}{'joint':>7}{'text':>6}  text tower")
    for row in rows:
        print(f"{row.name:62}{row.megabytes:>6}{row.pixels:>8}{row.joint:>7}{row.text:>6}  {row.tower}")
    print(LEGEND)
    for module, extra in (("open_clip", "open_clip"), ("transformers", "hf")):
        if find_spec(module) is None:
            print(f'{module} is not installed: pip install -e ".[{extra}]" adds its models.')
    return 0


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="python -m clip.models", description="The models that can be had by name.")
    parser.add_argument("word", metavar="WORD", nargs="*", help="lists the names that hold every word")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
