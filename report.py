"""Prints what was measured beside the papers' numbers, for every table and figure that has a result.

    output/ -> results.json or log.txt of each run -> mean and spread over seeds -> text, Markdown, CSV, LaTeX or a page

Run: python report.py
     python report.py base_to_new cross_dataset --format markdown
     python report.py shapes --format html --out report.html
     python report.py base_to_new --ci --baseline CoOp    intervals over seeds, comparisons over data sets
     python report.py --run output/.../seed1 --format html --out page.html    one run: its mistakes, its pictures
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from engine.files import write_atomically
from engine.text import encodable
from reports.of_run import page, summary
from reports.of_run.finished import read_run
from reports.paths import check_folder, check_parent
from reports.render.page import to_html
from reports.render.text import to_csv, to_latex, to_markdown, to_text
from reports.tables.catalogue import GROUPS, TABLES, select
from reports.tables.comparisons import compared_with
from reports.tables.own import OWN, find_runs, own_tables, with_own
from reports.tables.table import FilledTable, Table, fill

FORMATS = {"text": to_text, "markdown": to_markdown, "csv": to_csv, "latex": to_latex, "html": to_html}
FORMATS_OF_RUN = {"text": summary.to_text, "html": page.to_html}


def main(argv: Sequence[str] | None = None) -> int:
    """Prints or writes the report and returns the exit code: 0, or 1 if there is nothing to report."""
    args = parse_args(argv)
    try:
        check_parent(args.out, "--out")
        text, content = report_tables(args) if args.run is None else report_run(args)
        if args.out is None:
            print(encodable(text, sys.stdout.encoding), end="")
        else:
            write_atomically(args.out, lambda temporary: temporary.write_text(text, encoding="utf-8"))
            print(f"Written: {args.out} ({content})")
    except (KeyError, ValueError, OSError) as error:
        print(f"Error: {error.args[0] if isinstance(error, KeyError) else error}", file=sys.stderr)
        return 1
    return 0


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    names = f"groups: {', '.join((*GROUPS, OWN[0]))}; tables: {', '.join((*TABLES, *OWN[1:]))}"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=names)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help="a table or a group (default: all)")
    parser.add_argument("--output-dir", type=Path, help="folder of all runs (default: output)")
    parser.add_argument("--ci", action="store_true", help="95 %% intervals by Student's t over seeds beside the std")
    parser.add_argument("--baseline", metavar="METHOD", help="compare every method with this one, over data sets")
    parser.add_argument("--run", type=Path, metavar="FOLDER", help="one run instead of tables, as text or html")
    parser.add_argument("--format", choices=FORMATS, default="text", help="default: text")
    parser.add_argument("--out", type=Path, metavar="FILE", help="file to write instead of printing")
    return parser.parse_args(argv)


def report_tables(args: argparse.Namespace) -> tuple[str, str]:
    """Returns the tables in the format asked for, and how many they are; see `collect` and `compared_with`."""
    output = args.output_dir or Path("output")
    filled, empty = collect(args.tables or (*GROUPS, *OWN), output)
    if not args.tables:
        filled = [table for table in filled if not table.only_repeats]
    filled = [replace(table, with_interval=args.ci) for table in filled]
    if args.baseline is not None:
        filled = compared_with(args.baseline, filled)
    return FORMATS[args.format](filled, empty, output), f"tables: {len(filled)}"


def report_run(args: argparse.Namespace) -> tuple[str, str]:
    """Returns one run as a text or a page, and how many images it says something of.

    Raises:
        FileNotFoundError, ValueError: The folder holds no finished run, or the arguments go with tables alone.
    """
    if args.tables or args.output_dir or args.ci or args.baseline is not None:
        raise ValueError(
            "--run shows one run; tables, --output-dir, --ci and --baseline are for many. Leave one of them out."
        )
    if args.format not in FORMATS_OF_RUN:
        raise ValueError(f"--format is {args.format}; with --run it must be one of {', '.join(FORMATS_OF_RUN)}.")
    run = read_run(args.run)
    return FORMATS_OF_RUN[args.format](run), f"images: {len(run.predictions or ()):,}"


def collect(names: Sequence[str], output: Path) -> tuple[list[FilledTable], list[Table]]:
    """Fills tables in.

    Args:
        names: Of the tables and groups of them.
        output: The folder of all runs.

    Returns:
        Those with at least one result, filled in, and those without any.

    Raises:
        KeyError: A name is unknown.
        FileNotFoundError: The folder does not exist.
        ValueError: No table has a result.
    """
    planned = select(names, OWN)
    first = f"bash scripts/reproduce.sh {planned[0].name if 0 < len(planned) < len(TABLES) else 'shapes'}"
    check_folder(output, "--output-dir", f"Check the spelling, or run {first} first.")
    ran = find_runs(output)
    tables = with_own(planned, ran)
    if set(OWN) & set(names):
        every = tables if len(planned) == len(TABLES) else with_own(TABLES.values(), ran)
        tables += [table for table in own_tables(every, ran) if OWN[0] in names or table.name in names]
    filled = [fill(table, output) for table in tables]
    found = [table for table in filled if table.n_found]
    if not found:
        problems = "".join(dict.fromkeys(f"\n  {problem}" for table in filled for problem in table.problems))
        names = ", ".join(table.name for table in planned)
        what = f"{names}. Run {first} first." if planned else "a method or a data set of your own."
        raise ValueError(f"{output} holds no finished run of {what}{problems}")
    return found, [table.table for table in filled if not table.n_found]


if __name__ == "__main__":
    sys.exit(main())
