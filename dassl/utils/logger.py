"""Log lines on the terminal and in a file."""

from __future__ import annotations

from pathlib import Path

from engine import log


def setup_logger(output: str | Path | None = None) -> None:
    """Sends log lines to the terminal and to log.txt in a folder, or in that of the .txt file that is given."""
    if output:
        path = Path(output)
        log.setup_logging(path.parent if path.suffix == ".txt" else path)
