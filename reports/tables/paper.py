"""Published numbers: what CoOp's and CoCoOp's papers print (paper.yaml), and what others print (published.yaml)."""

from pathlib import Path

import yaml

PAPER, PUBLISHED = (
    yaml.safe_load(Path(__file__).with_name(name).read_text(encoding="utf-8"))
    for name in ("paper.yaml", "published.yaml")
)
