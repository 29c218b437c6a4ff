"""setup.py says what the project is: its packages, its data, and every third-party module that is imported."""

import ast
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


def test_the_packages_are_those_there_are(arguments):
    tops = [path.parent for path in ROOT.glob("*/__init__.py") if path.parent.name != "tests"]
    folders = [path.parent for top in tops for path in top.rglob("__init__.py")]
    assert set(arguments["packages"]) == {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert set(arguments["py_modules"]) == {path.stem for path in ROOT.glob("*.py")} - {"setup"}


def test_every_import_is_required(arguments):
    required = names(arguments["install_requires"])
    assert third_party(sources(arguments), arguments, only_at_import=True) <= required
    optional = set().union(*(names(extra) for key, extra in arguments["extras_require"].items() if key != "test"))
    assert third_party(sources(arguments), arguments) <= required | optional


def test_every_import_of_the_tests_is_required(arguments):
    allowed = names(arguments["install_requires"]) | names(arguments["extras_require"]["test"])
    assert third_party((ROOT / "tests").rglob("*.py"), arguments) <= allowed


def test_requirements_have_lower_bounds_only(arguments):
    extras = [requirement for extra in arguments["extras_require"].values() for requirement in extra]
    for requirement in arguments["install_requires"] + extras:
        assert re.fullmatch(r"[\w-]+>=\d+(\.\d+)*", requirement), requirement
    assert arguments["python_requires"] == ">=3.10"


def test_every_file_that_is_read_is_package_data(arguments):
    for package in arguments["packages"]:
        folder = ROOT.joinpath(*package.split("."))
        files = {path.name for path in folder.iterdir() if path.is_file() and path.suffix not in {".py", ".pyc"}}
        assert files == set(arguments["package_data"].get(package, ())), package


def test_the_version_stands_in_one_place(arguments):
    """The changelog's newest release is it; CITATION.cff has none."""
    releases = re.findall(r"^## \[(\d.*)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert releases[0] == arguments["version"]
    assert not re.search(r"^version:", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
