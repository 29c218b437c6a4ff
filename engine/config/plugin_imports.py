"""Importing plug-ins: a file is a member of its package, and its repository's own modules go before ours.

Other repositories have packages of the same names: clip, trainers, datasets. So their modules are imported below a name
of their own, trainers/maple.py as plugin1.trainers.maple, and each has an `__import__` of its own in `__builtins__`:
its import statements look in the repository first, those inside of functions too. No other module sees anything of it.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import re
import site
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType, SimpleNamespace

PROJECT = Path(__file__).resolve().parents[2]
INSTALLED = {PROJECT, *(Path(folder).resolve() for folder in site.getsitepackages())}
ALWAYS_OURS = {"engine", "dassl"}  # they hold the registries
SHARED = ("clip", "trainers", "datasets")  # where a repository lacks a module of these packages, ours serves

AFTER_IMPORT: list[Callable[[ModuleType], None]] = []


def after_import(complete: Callable[[ModuleType], None]) -> Callable[[ModuleType], None]:
    """Decorator: the function is called with each module of a plug-in's repository, when it has been imported."""
    AFTER_IMPORT.append(complete)
    return complete


class Repository:
    """Finds the modules of plug-ins from one repository; it stands on sys.meta_path while they are registered.

    Args:
        name: What their names begin with, such as plugin1.
        root: The folder that the topmost package is in; of files outside of any package, the folder above theirs.
    """

    def __init__(self, name: str, root: Path):
        self.name, self.root = name, root
        self.places = {name: root}  # module -> file or folder, of the plug-ins and the packages they are in
        self.packages: list[str] = []  # that the plug-ins are directly in
        self.search: dict[str, Path] = {}  # package -> folder, where absolute imports look, in this order
        self.builtins = {**vars(builtins), "__import__": self.import_name}

    def add(self, path: Path, *, lone: bool) -> str:
        """Adds a plug-in, which is in no package if it is `lone`; returns the name that it is to be imported by."""
        path = path.parent if path.name == "__init__.py" else path
        name, place = self.name, self.root
        for part in path.relative_to(self.root).parts:
            identifier = re.sub(r"\W", "_", part.removesuffix(".py"))
            name, place = f"{name}.{identifier}", place / part
            self.places[name] = place
        package = name.rpartition(".")[0]
        self.packages.append(package)
        beside, root = {package: path.parent}, {self.name: self.root}
        if self.root in PROJECT.parents:  # no repository, but a folder of several
            root = {}
        self.search |= beside | root if lone else root | beside
        return name

    def own_name(self, top: str) -> str | None:
        """Returns the name of the repository's own module for an absolute import of `top`; None where it has none."""
        if top in SHARED and f"{self.name}.{top}" in self.places:
            return f"{self.name}.{top}"
        if top not in ALWAYS_OURS | sys.stdlib_module_names:
            for package, folder in self.search.items():
                if _has_module(folder, top):
                    return f"{package}.{top}"
        return None

    def import_name(self, name: str, globals=None, locals=None, fromlist: Sequence[str] = (), level: int = 0):
        """Does an import statement of the repository's modules: `__import__`."""
        top, dot, below = name.partition(".")
        if top == "pkg_resources" and importlib.util.find_spec(top) is None:  # newer versions of setuptools lack it
            importlib.import_module("packaging.version")
            return SimpleNamespace(packaging=sys.modules["packaging"])  # what CLIP's own file imports of it
        own = None if level else self.own_name(top)
        if own is None:
            return builtins.__import__(name, globals, locals, fromlist, level)
        module = builtins.__import__(own + dot + below, fromlist=fromlist or ())
        return module if fromlist else sys.modules[own]

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None):
        """Finds the repository's module of this name, else ours: what sys.meta_path asks for."""
        if not f"{name}.".startswith(f"{self.name}."):
            return None
        package = name.rpartition(".")[0]
        is_own = not package or sys.modules[package].__name__ == package  # it may be a package of ours
        return (self._own_spec(name, path) if is_own else None) or self._our_spec(name)

    def _own_spec(self, name: str, path: Sequence[str] | None) -> ModuleSpec | None:
        place = self.places.get(name)
        if place is None:
            spec = PathFinder.find_spec(name, path)
            is_clip = name in {f"{package}.clip" for package in self.search}
            if is_clip and spec is not None and spec.submodule_search_locations is not None:
                spec = _completed_by_ours(spec)
        elif place.is_file():
            spec = importlib.util.spec_from_file_location(name, place)
        elif (init := place / "__init__.py").is_file() and place != self.root:
            spec = importlib.util.spec_from_file_location(name, init, submodule_search_locations=[str(place)])
        else:
            spec = ModuleSpec(name, None, is_package=True)
            spec.submodule_search_locations = [str(place)]
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(self, name, spec.origin)
        return spec

    def _our_spec(self, name: str) -> ModuleSpec | None:
        package, _, module = name.rpartition(".")
        names = [name.removeprefix(f"{self.name}.")]
        names += [f"trainers.{module}"] if package in self.packages else []  # as if the file lay there
        for ours in names:
            with suppress(ModuleNotFoundError):  # of a package above it
                if ours.split(".")[0] in SHARED and importlib.util.find_spec(ours):
                    return ModuleSpec(name, _OursInstead(importlib.import_module(ours)))
        return None


class _Loader(SourceFileLoader):
    """Runs a module of a repository with the repository's import statement."""

    def __init__(self, repository: Repository, name: str, path: str):
        super().__init__(name, path)
        self.repository = repository

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__builtins__"] = self.repository.builtins
        super().exec_module(module)
        for complete in AFTER_IMPORT:
            complete(module)


class _OursInstead:
    """Gives a module of ours, as it is, for a name in a plug-in's repository."""

    def __init__(self, module: ModuleType):
        self.module, self.spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self.module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec  # importing it has set the other name's


@contextmanager
def repositories() -> Iterator[Callable[[Path], str]]:
    """Yields a function that makes a plug-in's file importable, and returns its name, until the `with` block ends."""
    found: dict[Path, Repository] = {}
    importlib.invalidate_caches()  # files may have been written a moment ago

    def add(path: Path) -> str:
        path = path.absolute()
        root, lone = _root_of(path)
        if root.resolve() == PROJECT and (ours := path.relative_to(root).with_suffix("").parts)[0] in SHARED:
            return ".".join(ours)
        key = path.parent if lone else root
        if key not in found:
            found[key] = Repository(f"plugin{1 + len(_standing())}", root)
            sys.meta_path.insert(0, found[key])
        return found[key].add(path, lone=lone)

    try:
        yield add
    finally:
        names = {repository.name for repository in found.values()}
        sys.meta_path[:] = [finder for finder in sys.meta_path if finder not in found.values()]
        for module in [module for module in sys.modules if module.split(".")[0] in names]:
            del sys.modules[module]


def repository_of(module: str) -> Repository | None:
    """Returns the repository that a module is from, None for modules of any other kind."""
    return next((repository for repository in _standing() if module.startswith(f"{repository.name}.")), None)


def _standing() -> list[Repository]:
    return [finder for finder in sys.meta_path if isinstance(finder, Repository)]


def without_prefix(text: str) -> str:
    """Returns a text with the modules of plug-ins named as in their repositories."""
    return re.sub(r"\bplugin\d+\.", "", text)


def _root_of(path: Path) -> tuple[Path, bool]:
    """Returns the folder that a file's topmost package is in, and whether there is none: then the one above its own.

    A package is a folder with __init__.py, or one of the original's names.
    """
    outside = next(folder for folder in path.parents if not (folder / "__init__.py").is_file())
    named = [folder for folder in (outside, outside.parent) if folder.name in ("trainers", "datasets")]
    if named:
        return named[0].parent, False
    return (outside.parent, True) if outside == path.parent else (outside, False)


def _has_module(folder: Path, top: str) -> bool:
    """Says whether a module named `top` in a folder goes before any of that name elsewhere."""
    spec = None if folder.resolve() in INSTALLED else PathFinder.find_spec(top, [str(folder)])
    if spec is None:
        return False
    if top in SHARED:  # a folder of data may be named so, too
        return any(folder.glob(f"{top}/*.py"))
    elsewhere = importlib.util.find_spec(top) if spec.origin is None else None  # before a folder without __init__.py
    return elsewhere is None or elsewhere.origin is None


def _completed_by_ours(clip: ModuleSpec) -> ModuleSpec:
    """Lets files of ours serve as a repository's, where its `clip` has a model of its own and leaves out the rest."""
    (folder, *_), ours = clip.submodule_search_locations, PROJECT / "clip"
    if clip.origin is None and not Path(folder, "clip.py").is_file():
        clip = importlib.util.spec_from_file_location(clip.name, ours / "__init__.py", submodule_search_locations=[])
    clip.submodule_search_locations = [folder, str(ours)]
    return clip
