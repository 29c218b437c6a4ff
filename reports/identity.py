"""Which run results are of: the one that their folder stands for, and of one configuration with the other seeds'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.text import printable, shorten

from .logged_config import in_json
from .named_config import brief, named_backbone
from .runs import Run, seed_of

MOST_NAMED = 5  # keys
DEFAULT = "its default"


def checked(run: Run, expected: Mapping[str, Any]) -> Run:
    """Returns the run with what is meant of its settings, and without its value if its results are of another run.

    See `mismatch` and `expected_results`.
    """
    run = replace(run, meant={key: in_json(value) for key, value in expected.get("settings", {}).items()})
    problem = mismatch(run, expected)
    if run.value is not None and problem:
        return replace(run, value=None, problem=problem)
    # A log may not say its CFG.
    named = {key: expected[key] for key in ("trainer", "cfg") if expected.get(key) is not None}
    return replace(run, identity={**named, **run.identity}) if run.logged else run


def mismatch(run: Run, expected: Mapping[str, Any]) -> str:
    """Returns in what the results in a folder are of another run, as far as they say it; "" for the same run.

    Args:
        run: In a folder seedN, N is its seed.
        expected: Key of results.json -> the value that belongs in this folder; None: any.
    """
    expected = {**expected, "seed": seed_of(run.folder)}
    if "cfg" in expected and not Path(str(run.identity.get("backbone"))).suffix:  # a path names no backbone
        expected["backbone"] = named_backbone(expected["trainer"], expected["cfg"]) or None
    if expected.get("trainer") != "CoOp" or not run.settings or any("CTX_INIT" in key for key in run.settings):
        expected.pop("n_ctx", None)  # the folder's name says what was asked for; words to start from decide it
    found = [
        f"{key} is {shorten(run.identity[key])}, not {value!r}"
        for key, value in expected.items()
        if value is not None and key in run.identity and run.identity[key] != value
    ]
    return printable(f"{run.path.name} is of another run: {'; '.join(found)}") if found else ""


def differences(runs: Sequence[Run]) -> str:
    """Returns a sentence on the settings in which runs differ, seeds aside; "" where there are none.

    Settings are compared where all runs have them, else the entries that all results and logs have.
    """
    runs = [run for run in runs if run.identity or run.settings]
    by_settings = all(run.settings for run in runs)
    said = {}
    for run in runs:
        without_seed = {key: str(value) for key, value in run.identity.items() if key != "seed"}
        said[run.folder.name] = run.settings if by_settings else without_seed
    found = []
    for key in dict.fromkeys(key for entries in said.values() for key in entries):
        values: dict[str, list[str]] = {}
        for name, entries in said.items():
            if by_settings or key in entries:
                values.setdefault(entries.get(key, DEFAULT), []).append(name)
        if len(values) > 1:
            parts = (f"{brief(value)} in {', '.join(names)}" for value, names in values.items())
            found.append(f"{brief(key)} is {printable(', '.join(parts))}")
    if not found:
        return ""
    more = f"; and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    return (
        f"The runs of this average differ: {'; '.join(found[:MOST_NAMED])}{more}. "
        "Run them again with one configuration, or average those of each configuration."
    )


def other_items(runs: Mapping[str, Run], who: str = "The runs of this average") -> str:
    """Returns a sentence if runs, by their names, were tested on different items, as far as all say it; "" if not."""
    totals, digests = ({name: getattr(run, said) for name, run in runs.items()} for said in ("total", "tested"))
    by_total = all(totals.values()) and len(set(totals.values())) > 1
    if not by_total and not (all(digests.values()) and len(set(digests.values())) > 1):
        return ""
    groups: dict[Any, list[str]] = {}
    for name, of_run in (totals if by_total else digests).items():
        groups.setdefault(of_run, []).append(printable(name))
    if by_total:
        said = ", ".join(f"{total:,} in {', '.join(names)}" for total, names in groups.items())
    else:
        said = f"equally many, but not the same in {' as in '.join(', '.join(names) for names in groups.values())}"
    return f"{who} were tested on other items: {said}. Test them again on one set, or report each set by itself."


def other_selection(runs: Mapping[str, Run]) -> str:
    """Returns a sentence if runs, by their names, say that they were selected by different images; "" if not."""
    rules: dict[str, list[str]] = {}
    for name, run in runs.items():
        if run.selection:
            said = ", ".join(f"{what} by {rule}" for what, rule in sorted(run.selection.items()))
            rules.setdefault(said, []).append(printable(name))
    if len(rules) < 2:
        return ""
    said = "; ".join(f"{rule} in {', '.join(names)}" for rule, names in rules.items())
    return f"The runs of this average were selected differently: {said}. Average those of each rule."
