"""Every table and figure, by name: what it shows, and the command lines that make its numbers."""

from __future__ import annotations

import os
from collections.abc import Iterable

from engine.registry import near_name

from .cocoop import cocoop_tables
from .coop import coop_tables
from .methods import methods_tables, shapes_methods_tables
from .shapes import shapes_tables
from .table import Table

GROUPS = {  # of tables -> those of a paper, of methods compared, or of a miniature
    "coop": coop_tables,
    "cocoop": cocoop_tables,
    "methods": methods_tables,
    "shapes": shapes_tables,
    "shapes_methods": shapes_methods_tables,
}
TABLES: dict[str, Table] = {table.name: table for build in GROUPS.values() for table in build()}


def select(names: Iterable[str], others: Iterable[str] = ()) -> list[Table]:
    """Returns the tables of these names and groups, each once; names of `others` are not looked for.

    Raises:
        KeyError: A name is unknown; the message lists the names and the nearest one.
    """
    chosen, others = {}, list(others)
    for name in names:
        if name not in TABLES and name not in GROUPS and name not in others:
            options = [*GROUPS, *TABLES, *others]
            near = near_name(name, options)
            raise KeyError(f"There is no table {name!r}. Tables and groups of them: {', '.join(options)}.{near}")
        chosen |= {table.name: table for table in TABLES.values() if name in (table.name, table.group)}
    return list(chosen.values())


def commands(name: str) -> list[str]:
    """Returns the bash command lines that a table or group needs, training before testing; see `Experiment`.

    Scripts that take one seed are called for each seed of the environment's SEEDS.

    Raises:
        KeyError: The name is unknown.
    """
    seeds = (os.environ.get("SEEDS") or "1 2 3").split()
    experiments = (experiment for table in select([name]) for experiment in table.experiments)
    return list(dict.fromkeys(line for experiment in experiments for line in experiment.command_lines(seeds)))
