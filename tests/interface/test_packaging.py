"""setup.py says what the project is: its packages, its data, and every third-party module that is imported."""

import ast
import importlib
import re
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]
DISTRIBUTIONS = {"PIL": "pillow", "yaml": "pyyaml", "sklearn": "scikit-learn", "open_clip": "open_clip_torch"}


@pytest.fixture(scope="module")
def arguments():
    """What setup.py passes to setuptools.setup, which need not be installed."""
    passed = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "setuptools", SimpleNamespace(setup=passed.update))
        runpy.run_path(str(ROOT / "setup.py"))
    return passed


def names(requirements):
    return {re.match(r"[\w-]+", requirement)[0] for requirement in requirements}


def imports(path, *, only_at_import):
    """Top-level names of the modules that a file imports, anywhere or when it is imported itself."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if only_at_import else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.split(".")[0])
    return found


def third_party(paths, arguments, *, only_at_import=False):
    """Distributions behind the modules that neither the project nor Python brings."""
    found = set().union(*(imports(path, only_at_import=only_at_import) for path in paths))
    ours = {*arguments["packages"], *arguments["py_modules"], "tests", "setuptools"}
    return {DISTRIBUTIONS.get(name, name) for name in found - ours - sys.stdlib_module_names}


def sources(arguments):
    modules = [ROOT / f"{name}.py" for name in arguments["py_modules"]]
    return modules + [path for package in arguments["packages"] for path in (ROOT / package).rglob("*.py")]


@pytest.mark.parametrize(
    "name", ["clip", "dassl", "datasets", "engine", "reports", "trainers", "train", "parse_test_res"]
)
def test_ours_is_what_gets_imported(name):
    assert Path(importlib.import_module(name).__file__).is_relative_to(ROOT)


def test_the_packages_are_those_there_are(arguments):
    tops = [path.parent for path in ROOT.glob("*/__init__.py") if path.parent.name != "tests"]
    folders = [path.parent.relative_to(ROOT) for top in tops for path in top.rglob("__init__.py")]
    there = {".".join(folder.parts) for folder in folders}
    assert set(arguments["packages"]) == there
    assert set(arguments["py_modules"]) == {path.stem for path in ROOT.glob("*.py")} - {"setup"}


def test_every_import_is_required(arguments):
    required = names(arguments["install_requires"])
    assert third_party(sources(arguments), arguments, only_at_import=True) <= required
    optional = names(arguments["extras_require"]["templates"] + arguments["extras_require"]["ray"])
    assert third_party(sources(arguments), arguments) <= required | optional


def test_every_import_of_the_tests_is_required(arguments):
    allowed = names(arguments["install_requires"]) | names(arguments["extras_require"]["test"])
    assert third_party((ROOT / "tests").rglob("*.py"), arguments) <= allowed


def test_requirements_have_lower_bounds_only(arguments):
    extras = [requirement for extra in arguments["extras_require"].values() for requirement in extra]
    for requirement in arguments["install_requires"] + extras:
        assert re.fullmatch(r"[\w-]+>=\d+(\.\d+)*", requirement), requirement
    assert arguments["python_requires"] == ">=3.10"


def test_the_files_that_clip_reads_are_package_data(arguments):
    data = arguments["package_data"]["clip"]
    assert {"bpe_simple_vocab_16e6.txt.gz", "shapes.npz"} <= set(data)
    kinds = {".gz", ".md", ".npz"}
    assert {path.name for path in (ROOT / "clip").iterdir() if path.suffix in kinds} <= set(data)


def test_the_files_that_reports_read_are_package_data(arguments):
    data = {(package, name) for package, names in arguments["package_data"].items() for name in names}
    files = [path for path in (ROOT / "reports").rglob("*.*") if path.suffix not in (".py", ".pyc")]
    assert {(".".join(path.parent.relative_to(ROOT).parts), path.name) for path in files} <= data
    assert {path.name for path in files} == {"page.css", "paper.yaml"}


def test_licence_and_citation():
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")
    assert "bpe_simple_vocab_16e6.txt.gz" in (ROOT / "NOTICE").read_text()
    citation = (ROOT / "CITATION.cff").read_text()
    assert "arxiv.org/abs/2109.01134" in citation
    assert "arxiv.org/abs/2203.05557" in citation
