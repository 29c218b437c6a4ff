"""Who may import whom, what a module does when it is imported, and how long a file and a function may be."""

import ast
import re
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAY_IMPORT = {
    "clip": set(),
    "engine": set(),
    "datasets": {"engine"},
    "trainers": {"engine", "clip"},
    "dassl": {"engine"},
    "reports": set(),
}
PACKAGES = sorted(MAY_IMPORT)
SOURCES = sorted(path for package in (*PACKAGES, "tools", "benchmarks") for path in (ROOT / package).rglob("*.py"))
SOURCES += sorted(ROOT.glob("*.py"))
MODULES = [path for path in SOURCES if path.parent.name in MAY_IMPORT]
MAX_LINES, MAX_FUNCTION_LINES = 250, 40
LONGER = {"clip/model.py": 450}  # OpenAI's whole architecture, read in one place
NOT_OURS = {"dassl/utils.py"}  # the name is Dassl's
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "misc", "common"}


def name_of(path):
    return path.relative_to(ROOT).as_posix()


@lru_cache
def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def imported_modules(path):
    """Dotted names of all that a file imports; `from .base import X` in trainers/coop.py is trainers.base."""
    package, found = path.parent.name, set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            prefix = package if node.level else ""
            module = ".".join(filter(None, (prefix, node.module)))
            found |= {module} if node.module else {f"{module}.{alias.name}" for alias in node.names}
    return found


def siblings(path):
    """Names of the modules of its own package that a file imports."""
    package = path.parent.name
    return {name.split(".")[1] for name in imported_modules(path) if name.startswith(f"{package}.")}


def registers(path):
    """Whether a file registers a data set, a trainer or an evaluator."""
    classes = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.ClassDef)]
    return any("_REGISTRY.register" in ast.unparse(mark) for node in classes for mark in node.decorator_list)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_package_imports_only_the_packages_below_it(path):
    package = path.parent.name
    ours = {name.split(".")[0] for name in imported_modules(path)} & {*PACKAGES, "tools", "benchmarks", "tests"}
    assert ours - {package} <= MAY_IMPORT[package]


@pytest.mark.parametrize("package", ["datasets", "trainers"])
def test_a_method_or_data_set_never_imports_a_sibling_one(package):
    paths = {path.stem: path for path in MODULES if path.parent.name == package}
    plugins = {name for name, path in paths.items() if registers(path)}
    assert plugins, "the scan finds nothing"
    for name, path in paths.items():
        if name != "__init__":
            assert not siblings(path) & (plugins - {name}), name_of(path)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_import_cycle(package):
    paths = {path.stem: path for path in MODULES if path.parent.name == package and path.stem != "__init__"}
    left = {name: siblings(path) & set(paths) for name, path in paths.items()}
    while free := [name for name, needs in left.items() if not needs & set(left)]:
        for name in free:
            del left[name]
    assert not left


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
    assert n_lines <= LONGER.get(name_of(path), MAX_LINES)
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef):
            docstring = node.body[0] if ast.get_docstring(node) else None
            n_lines = node.end_lineno - node.lineno + 1
            n_lines -= docstring.end_lineno - docstring.lineno + 1 if docstring else 0
            declares_keys = name_of(path) == "engine/config.py"  # one key a line
            assert declares_keys or n_lines <= MAX_FUNCTION_LINES, node.name


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_names_say_what_is_inside(path):
    assert name_of(path) in NOT_OURS or not set(path.relative_to(ROOT).with_suffix("").parts) & VAGUE_NAMES


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_every_module_says_what_it_is(path):
    assert ast.get_docstring(tree_of(path)) or not path.read_text().strip()
