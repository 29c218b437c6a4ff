"""Which run results are of: whether of the one that their place promises, and of one configuration with the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from .runs import Run, printable, seed_of

MOST_NAMED = 5  # keys
DEFAULT = "its default"


def checked(run: Run, promised: Mapping[str, Any]) -> Run:
    """Returns the run, without its value where its results say that it is another than its place promises."""
    problem = contradiction(run, promised)
    return replace(run, value=None, problem=problem) if run.value is not None and problem else run


def contradiction(run: Run, promised: Mapping[str, Any]) -> str:
    """Returns in what a run is another than its place promises, as far as its results say it; "" for the same.

    Args:
        run: In a folder seedN N is its seed.
        promised: Entry of results.json -> value; None: any.
    """
    expected = {**promised, "seed": seed_of(run.folder)}
    if promised.get("trainer") != "CoOp" or not run.settings or any("CTX_INIT" in key for key in run.settings):
        expected.pop("n_ctx", None)  # the folder's name says what was asked for; words to start from decide it
    found = [
        f"{key} is {_shorten(repr(run.identity[key]))}, expected {value!r}"
        for key, value in expected.items()
        if value is not None and key in run.identity and run.identity[key] != value
    ]
    return printable(f"{run.path.name} is of another run: {'; '.join(found)}") if found else ""


def differences(runs: Sequence[Run]) -> str:
    """Returns a sentence on what runs computed otherwise than one another but for the seed; "" where they say nothing.

    Where all have them, settings are compared, else what all results of this project say; a log says neither.
    """
    runs = [run for run in runs if run.identity or run.settings]
    by_settings = all(run.settings for run in runs)
    said = {run.folder.name: run.settings if by_settings else _but_for_the_seed(run) for run in runs}
    found = []
    for key in dict.fromkeys(key for entries in said.values() for key in entries):
        values: dict[str, list[str]] = {}
        for name, entries in said.items():
            if by_settings or key in entries:
                values.setdefault(entries.get(key, DEFAULT), []).append(name)
        if len(values) > 1:
            places = (f"{_shorten(value)} in {', '.join(names)}" for value, names in values.items())
            found.append(f"{_shorten(key)} is {printable(', '.join(places))}")
    if not found:
        return ""
    more = f"; and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    return (
        f"{'; '.join(found[:MOST_NAMED])}{more}, expected the same in all runs that are averaged. "
        "Make them again with one configuration, or average those of each apart."
    )


def _but_for_the_seed(run: Run) -> dict[str, str]:
    return {key: str(value) for key, value in run.identity.items() if key != "seed"}


def _shorten(text: str) -> str:
    return printable(text if len(text) <= 100 else f"{text[:100]}...")
