"""The numbers that the two papers print, read from paper.yaml."""

from pathlib import Path

import yaml

PAPER = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
