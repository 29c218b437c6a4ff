"""Pages and config headers say what is true: every command is one the scripts accept, every file named is there."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

import demo
import draw_curves
import export
import interpret_prompt
import parse_test_res
import predict
import report
import reports.tables.catalogue
import reproduce
import sweep
import train
from datasets import check, prepare
from engine import TRAINER_REGISTRY
from engine.config.load import full_default

ROOT = Path(__file__).parents[2]
PAGES = [
    "README.md",
    "BENCHMARKS.md",
    "COOP.md",
    "COCOOP.md",
    "DATASETS.md",
    "USE.md",
    "docs/BACKBONES.md",
    "docs/METHODS.md",
    "docs/SHAPES.md",
]
EXPERIMENT = re.compile(r"scripts/((coop|cocoop|linear_probe)/|few_shot)")
PLACEHOLDER = re.compile(r"\bDATASET\b(?!\.)")  # not the key DATASET.NUM_SHOTS
PROGRAMS = (
    check,
    demo,
    draw_curves,
    export,
    interpret_prompt,
    parse_test_res,
    predict,
    prepare,
    report,
    reproduce,
    sweep,
    train,
)
READERS = {module.__name__: module for module in PROGRAMS}


def shell_lines(page):
    """The lines of a page's bash blocks, joined at backslashes, comments removed."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line.split(" #")[0].strip() for line in lines if line.strip() and not line.startswith("#")]


def header_lines(path):
    """The commands in the header of a config, without the explanation that stands apart behind them."""
    return re.findall(
        r"^# .*?((?:TRAINER=\w+ )?bash scripts/.+?)(?:  |$)", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE
    )


def lines_of_pages():
    return [(page, line) for page in PAGES for line in shell_lines(page)]


def experiments():
    lines = lines_of_pages()
    lines += [(path.name, line) for path in sorted((ROOT / "configs").rglob("*.yaml")) for line in header_lines(path)]
    return [(page, line) for page, line in lines if EXPERIMENT.search(line) and not PLACEHOLDER.search(line)]


@pytest.mark.parametrize("page, line", experiments())
def test_experiments_are_calls_that_train_accepts(page, line, monkeypatch):
    env = {**os.environ, "DRY_RUN": "1", "DATA": "/data", "SEEDS": "1"}
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    monkeypatch.chdir(ROOT)
    calls = [shlex.split(call) for call in done.stdout.splitlines()]
    assert calls
    for _, script, *arguments in calls:
        assert script == "train.py"
        train.setup_cfg(train.parse_args(arguments))  # raises on an unknown file, key or name


@pytest.mark.parametrize(
    "page, line", [pair for pair in lines_of_pages() if re.search(r"reproduce\.sh|\.py |-m datasets\.", pair[1])]
)
def test_calls_of_programs(page, line, monkeypatch):
    """The words are ones that the program takes; every key, file, table and data set is one that there is."""
    monkeypatch.chdir(ROOT)
    line = re.sub(r"^.*scripts/reproduce\.sh", "python reproduce.py", line).replace("$DATA", "/data")
    _, name, *words = shlex.split(line.replace(" -m ", " "))
    module = READERS[name.removesuffix(".py")]
    args = module.parse_args(words)
    if module is train:
        train.setup_cfg(args)
    if hasattr(args, "tables"):
        assert reports.tables.catalogue.select(args.tables or reports.tables.catalogue.GROUPS)
    for name in getattr(args, "names", ()):
        assert name == "all" or check.find_dataset(name)


def test_every_table_has_a_line_in_its_papers_page():
    for page, group in (("COOP.md", "coop"), ("COCOOP.md", "cocoop")):
        named = set(
            re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (?:Table|Figure) .*", (ROOT / page).read_text(), re.M)))
        )
        assert named == {table.name for table in reports.tables.catalogue.select([group])}


def test_every_method_has_a_row_on_the_first_page():
    [table] = re.findall(r"^\| method \|.*?\n\n", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.DOTALL)
    named = [name for row in table.strip().splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[2])]
    classes = {name: TRAINER_REGISTRY.get(name) for name in TRAINER_REGISTRY.registered_names()}
    ours = [name for name, cls in classes.items() if cls.__module__.startswith("trainers.")]  # no test's plug-in
    assert sorted(named) == sorted(ours)


def anchors(path):
    """The anchors of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md"])
def test_links_lead_to_files_and_headings(page):
    for name, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", (ROOT / page).read_text(encoding="utf-8")):
        target = (ROOT / page).parent / name if name else ROOT / page
        assert target.exists(), name
        assert not anchor or anchor in anchors(target), anchor


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md"])
def test_keys_are_in_the_config(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for key in set(re.findall(r"`((?:TRAINER|TEST|MODEL|DATASET|OPTIM|INPUT|TRAIN)\.[A-Z_.0-9]+)", text)):
        node = full_default()
        for part in key.rstrip(".").split("."):
            node = node[part]
