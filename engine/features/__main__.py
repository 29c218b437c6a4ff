"""What the cache of image features holds (engine/features/cache.py), and how to empty it.

Run: python -m engine.features info
     python -m engine.features clear
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..config.defaults import get_cfg_default
from .digests import SPACE
from .shards import remove, shards_of

GB = 1e9


def main(argv: Sequence[str] | None = None) -> int:
    """Says what the cache holds, or empties it."""
    parser = argparse.ArgumentParser(prog="python -m engine.features", description="The cache of image features.")
    parser.add_argument("command", choices=("info", "clear"))
    parser.add_argument("--dir", default=get_cfg_default().FEATURES.DIR, help="its folder (default: %(default)s)")
    args = parser.parse_args(argv)
    folder = Path(args.dir).expanduser()
    shards = shards_of(folder)
    n_bytes, spaces = sum(size for _, size, _ in shards), {shard.parent for *_, shard in shards} - {folder / SPACE}
    if args.command == "clear":
        for *_, shard in shards:
            remove(shard)
    verb = "holds" if args.command == "info" else "held, now removed:"
    print(f"{folder} {verb} {len(shards):,} file(s) of {len(spaces):,} tower(s) and data sets, {n_bytes / GB:.2f} GB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
