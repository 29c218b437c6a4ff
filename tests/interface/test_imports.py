"""Who may import whom, what a module does when it is imported, and how long a file and a function may be."""

import ast
import re
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAY_IMPORT = {
    "clip": set(),
    "engine": set(),
    "datasets": {"engine"},
    "trainers": {"engine", "clip"},
    "inference": {"engine", "clip", "trainers"},
    "launch": {"engine"},
    "dassl": {"engine"},
    "reports": {"engine"},
}
PACKAGES = sorted(MAY_IMPORT)
OURS = {*PACKAGES, "tools", "benchmarks", "tests"}
SOURCES = sorted(path for package in (*PACKAGES, "tools", "benchmarks") for path in (ROOT / package).rglob("*.py"))
SOURCES += sorted(ROOT.glob("*.py"))
SCRIPTS = {path.stem for path in ROOT.glob("*.py")}
MODULES = [path for path in SOURCES if path.relative_to(ROOT).parts[0] in MAY_IMPORT]
REGISTER = {"train", "sweep", "interpret_prompt"}  # root modules that need the trainers or the data sets, by train.py
MAX_LINES, MAX_FUNCTION_LINES = 400, 40
MAX_FILES = 15
ANY_NUMBER = {"datasets", "trainers", "benchmarks", "."}  # a file for each data set, method, table of numbers, command
NOT_OURS = "dassl/utils/"  # the name is Dassl's
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "misc", "common"}


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def dotted(path):
    """The name under which a file is imported: engine/data/__init__.py is engine.data."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {dotted(path): path for path in SOURCES}


@lru_cache
def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


@lru_cache
def imported_modules(path):
    """Dotted names of all that a file imports; `from .base import X` in trainers/coop.py is trainers.base."""
    found, package = set(), path.relative_to(ROOT).parent.parts
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *filter(None, [node.module])])
            names = {f"{module}.{alias.name}" for alias in node.names}
            found |= names & NAMES.keys() or {module}
    return found


def imported_tops(path):
    """The packages and root modules of ours that a file imports."""
    return {name.split(".")[0] for name in imported_modules(path)} & (OURS | SCRIPTS)


def registers(path):
    """Whether a file registers a data set, a trainer or an evaluator."""
    classes = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.ClassDef)]
    return any("_REGISTRY.register" in ast.unparse(mark) for node in classes for mark in node.decorator_list)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_package_imports_only_the_packages_below_it_and_no_root_module(path):
    package = path.relative_to(ROOT).parts[0]
    assert imported_tops(path) - {package} <= MAY_IMPORT[package]


@pytest.mark.parametrize("path", sorted(ROOT.glob("*.py")), ids=name_of)
def test_only_train_and_what_stands_on_it_registers_trainers_and_data_sets(path):
    assert not imported_tops(path) & {"benchmarks", "tests", "dassl"}
    if path.stem not in REGISTER:
        assert not imported_tops(path) & {"trainers", "datasets"}


def test_a_part_of_the_engine_never_imports_the_trainer():
    for part in ("config", "data", "evaluation", "features", "run"):
        for path in (ROOT / "engine" / part).glob("*.py"):
            assert "engine.trainer" not in imported_modules(path), name_of(path)


@pytest.mark.parametrize("package", ["datasets", "trainers"])
def test_a_method_or_data_set_never_imports_a_sibling_one(package):
    plugins = {dotted(path) for path in (ROOT / package).glob("*.py") if registers(path)}
    assert plugins, "the scan finds nothing"
    for path in (ROOT / package).rglob("*.py"):
        if path.name != "__init__.py":
            assert not imported_modules(path) & (plugins - {dotted(path)}), name_of(path)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_import_cycle(package):
    paths = [path for path in MODULES if path.relative_to(ROOT).parts[0] == package and path.stem != "__init__"]
    names = {dotted(path) for path in paths}
    left = {dotted(path): imported_modules(path) & names for path in paths}
    while free := [name for name, needs in left.items() if not needs & set(left)]:
        for name in free:
            del left[name]
    assert not left


def test_no_folder_is_a_long_corridor_and_no_test_a_long_file():
    tests = list((ROOT / "tests").rglob("*.py"))
    for folder in {path.parent for path in [*SOURCES, *tests]}:
        assert name_of(folder) in ANY_NUMBER or len(list(folder.glob("*.py"))) <= MAX_FILES, name_of(folder)
    for path in tests:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES, name_of(path)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_importing_a_module_only_defines_and_registers(path):
    definitions = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.FunctionDef, ast.ClassDef)
    loops = (ast.For,) if path.name == "__init__.py" else ()  # a package imports its own modules
    for node in tree_of(path).body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        main = isinstance(node, ast.If) and re.match(r"__name__|TYPE_CHECKING", ast.unparse(node.test))
        setup = path == ROOT / "setup.py"
        assert isinstance(node, (*definitions, *loops)) or docstring or main or setup, f"line {node.lineno}"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_files_and_functions_are_short(path):
    n_lines = len(path.read_text(encoding="utf-8").splitlines())
    assert n_lines <= MAX_LINES
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef):
            docstring = node.body[0] if ast.get_docstring(node) else None
            n_lines = node.end_lineno - node.lineno + 1
            n_lines -= docstring.end_lineno - docstring.lineno + 1 if docstring else 0
            declares_keys = name_of(path) == "engine/config/defaults.py"  # one key a line
            assert declares_keys or n_lines <= MAX_FUNCTION_LINES, node.name


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_every_module_says_what_it_is(path):
    assert name_of(path).startswith(NOT_OURS) or not set(path.relative_to(ROOT).with_suffix("").parts) & VAGUE_NAMES
    assert ast.get_docstring(tree_of(path)) or not path.read_text().strip()
