"""A run's folder: what it holds, whether the run is done, and that no run is written over by another.

config.yaml is written when a run starts, results.json when it has ended: a run is done if results.json is there and was
made with the same configuration. Reading costs no torch.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from yacs.config import CfgNode as CN

from ..config.identity import config_digest, differing_keys
from ..config.load import ConfigError, dump_yaml, flatten, full_default, merge, read_yaml
from ..files import write_atomically
from .names import CONFIG, RESULTS

BEFORE = "results-before.json"


def read_config(folder: str | Path) -> CN | None:
    """Returns the config of the run in `folder`, None where there is none."""
    path = Path(folder) / CONFIG
    if not path.is_file():
        return None
    cfg, values = full_default(), read_yaml(path)
    known = flatten(cfg)
    merge(cfg, {key: value for key, value in values.items() if key in known}, str(path))
    return cfg


def found_from(folder: Path, output_dir: str, path: str) -> str:
    """Returns a path that the config of the run in `folder` names, absolute; or what it names, if that is no path.

    The run was perhaps started in another folder. Its OUTPUT_DIR tells which one: both are relative to it.
    """
    output_dir, there = Path(output_dir), folder.resolve()
    n_parts = len(output_dir.parts)
    is_known = not output_dir.is_absolute() and there.parts[-n_parts:] == output_dir.parts
    starts = [Path(*there.parts[:-n_parts])] if is_known else []
    named = (start / path for start in (*starts, Path.cwd()) if path)
    return next((str(found) for found in named if found.exists()), path)


def call_words(folder: Path, output_dir: Path, plugins: Iterable[str], *flags: str) -> list[str]:
    """Returns the words of a command that takes its config from the run in `folder` and writes to `output_dir`."""
    words = ["python", "train.py", "--config-file", str(folder / CONFIG), "--output-dir", str(output_dir), *flags]
    return words + [word for plugin in plugins for word in ("--plugin", plugin)]


def write_config(cfg: CN) -> None:
    """Writes the config to its OUTPUT_DIR."""
    write_file(cfg.OUTPUT_DIR, CONFIG, dump_yaml(cfg))


def write_file(folder: str | Path, name: str, text: str) -> None:
    """Writes a file of a run's folder, whole or not at all; of several ranks the first does."""
    from ..distributed import is_first_rank  # imports torch

    if is_first_rank():
        write_atomically(Path(folder) / name, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_results(folder: str | Path) -> dict[str, Any] | None:
    """Returns the results of the run in `folder`, None where it has not ended."""
    path = Path(folder) / RESULTS
    if not path.is_file():
        return None
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(results, dict):
            raise ValueError("no entries by name")
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON as a run writes it ({error}). Delete it to test again.") from error
    return results


def write_results(cfg: CN, results: dict[str, Any]) -> None:
    """Writes results.json, the mark of a run that has ended, with the digest of its config."""
    text = json.dumps({**results, "config_digest": config_digest(cfg)}, indent=2)
    write_file(cfg.OUTPUT_DIR, RESULTS, text + "\n")


def retire_results(folder: str | Path) -> bool:
    """Renames results that are no longer those of the run in `folder`, so that nothing counts them; says if it did."""
    path = Path(folder) / RESULTS
    if not path.is_file():
        return False
    path.replace(path.with_name(BEFORE))
    return True


def resolve_seed(cfg: CN) -> None:
    """Replaces a negative SEED, on all ranks: by that of the unfinished run in OUTPUT_DIR, or by a fresh one."""
    from ..distributed import on_first_rank  # imports torch

    if cfg.SEED < 0:
        stored = on_first_rank(lambda: read_config(cfg.OUTPUT_DIR))
        cfg.SEED = stored.SEED if stored is not None else on_first_rank(lambda: secrets.randbelow(2**31))


def is_done(cfg: CN) -> bool:
    """Says whether OUTPUT_DIR holds this very run, ended; engine/run/inputs.py, whether its inputs are still the same.

    Raises:
        ConfigError: If it, or RESUME, holds a run of another configuration; the message names the keys that differ.
    """
    stored = {folder: read_config(folder) for folder in (cfg.OUTPUT_DIR, *filter(None, [cfg.RESUME]))}
    for folder, other in stored.items():
        if other is not None and has_begun(folder):
            _refuse_another(cfg, other, folder)
    results = read_results(cfg.OUTPUT_DIR)
    same = results is not None and results.get("config_digest") == config_digest(cfg)
    if stored[cfg.OUTPUT_DIR] is None and results is not None and not same:
        raise ConfigError(
            f"The folder {cfg.OUTPUT_DIR} holds {RESULTS} of another configuration. Choose another "
            "--output-dir (OUTPUT for the scripts), or move the old results away."
        )
    return same


def has_begun(folder: str | Path) -> bool:
    """Says whether a run has left something in its folder that another one would spoil: a model, a state, results."""
    return any(path for pattern in (RESULTS, "*.pth.tar", "*/*.pth.tar*") for path in Path(folder).glob(pattern))


def _refuse_another(cfg: CN, stored: CN, folder: str) -> None:
    lines = [
        f"  - {key} is {there!r} there, {asked!r} was asked for"
        for key, (there, asked) in differing_keys(stored, cfg).items()
    ]
    if lines:
        raise ConfigError(
            f"The folder {folder} holds a run of another configuration. Choose another --output-dir (OUTPUT for the "
            "scripts), or move the old run away. What differs:\n" + "\n".join(lines)
        )
