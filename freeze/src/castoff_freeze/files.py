"""The files that could go into a frozen tree, and what they are to Python."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from castoff_freeze.errors import FreezeError

if TYPE_CHECKING:
    from castoff_freeze.distributions import Distribution
    from castoff_freeze.python import Python

Group = Literal["stdlib", "dependency", "application"]

_MAX_FILES = 400_000
_SKIPPED_FOLDERS = frozenset(
    "__pycache__ .git .hg .svn .venv .tox .nox .mypy_cache .ruff_cache .pytest_cache node_modules".split()
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that could be kept.

    Attributes:
        path: absolute; the same in the tree.
        group: whose it is.
        owner: ``name version`` of a dependency, else "".
        module: full name of the module that it is, or "" for data.
        package: whether it is a package's ``__init__``.
    """

    path: str
    group: Group
    owner: str = ""
    module: str = ""
    package: bool = False

    @property
    def is_source(self) -> bool:
        """Tell whether it is Python source."""
        return self.path.endswith(".py")

    @property
    def is_extension(self) -> bool:
        """Tell whether it is a module in machine code."""
        return bool(self.module) and not self.is_source


@dataclass(frozen=True, slots=True)
class Inventory:
    """All candidates, by path, and those that are modules, by name."""

    files: Mapping[str, Candidate]
    modules: Mapping[str, Candidate]

    def parents(self, module: str) -> Iterator[str]:
        """Yield a module's packages that exist, the nearest first."""
        while "." in module:
            module = module.rpartition(".")[0]
            if module in self.modules:
                yield module


def take_inventory(
    python: Python, path: Sequence[str], distributions: Iterable[Distribution], application: Sequence[str]
) -> Inventory:
    """List every candidate.

    Args:
        python: the interpreter.
        path: the whole import path of the service.
        distributions: those that may be frozen.
        application: files and folders of the application.

    Raises:
        FreezeError: there are absurdly many files.
    """
    namer = _Namer(python, path)
    files: dict[str, Candidate] = {}
    for file in _walk(python.stdlib, python.is_site):
        files[file] = namer.candidate(file, "stdlib")
    if not python.dynload.startswith(python.stdlib + os.sep) and os.path.isdir(python.dynload):
        for file in _walk(python.dynload):
            files[file] = namer.candidate(file, "stdlib")
    for item in distributions:
        for file in item.files:
            if os.path.isfile(file):
                files.setdefault(file, namer.candidate(file, "dependency", str(item)))
    for top in application:
        for file in [top] if os.path.isfile(top) else _walk(top):
            files.setdefault(file, namer.candidate(file, "application"))
    if len(files) > _MAX_FILES:
        raise FreezeError(
            f"there are more than {_MAX_FILES} files to choose from", hint="name the application's folder"
        )
    ordered = dict(sorted(files.items()))
    modules: dict[str, Candidate] = {}
    for candidate in ordered.values():
        if candidate.module:
            known = modules.get(candidate.module)
            if known is None or namer.precedes(candidate, known):
                modules[candidate.module] = candidate
    return Inventory(ordered, dict(sorted(modules.items())))


def _walk(top: str, leaves_out: object = None) -> Iterator[str]:
    """Yield the files below a folder; links are not followed out of it."""
    refuse = leaves_out if callable(leaves_out) else None
    for folder, names, files in os.walk(top):
        names[:] = sorted(
            name
            for name in names
            if name not in _SKIPPED_FOLDERS and not (refuse is not None and refuse(os.path.join(folder, name)))
        )
        for name in sorted(files):
            path = os.path.join(folder, name)
            if not name.endswith(".pyc") and os.path.isfile(path):
                yield path


class _Namer:
    """Finds which module a file is, along an import path."""

    def __init__(self, python: Python, path: Sequence[str]) -> None:
        self._order = {os.path.normpath(entry): place for place, entry in enumerate(path)}
        # The longest suffix first: `.cpython-311-x86_64-linux-gnu.so` ends with `.so` too.
        self._suffixes = sorted((".py", *python.suffixes), key=len, reverse=True)

    def candidate(self, path: str, group: Group, owner: str = "") -> Candidate:
        folder, name = os.path.split(path)
        stem = next((name[: -len(suffix)] for suffix in self._suffixes if name.endswith(suffix)), "")
        if not stem or not _is_module_name(stem):
            return Candidate(path, group, owner)
        parts: list[str] = [] if stem == "__init__" else [stem]
        while folder not in self._order:
            folder, part = os.path.split(folder)
            if not part.isidentifier():
                return Candidate(path, group, owner)
            parts.insert(0, part)
        return Candidate(path, group, owner, ".".join(parts), stem == "__init__")

    def precedes(self, one: Candidate, other: Candidate) -> bool:
        """Tell whether a module is found before another one of the same name."""
        return self._rank(one) < self._rank(other)

    def _rank(self, item: Candidate) -> tuple[int, bool, bool]:
        folder = os.path.dirname(item.path)
        while folder not in self._order:
            folder = os.path.dirname(folder)
        # As the import system has it: a package, then machine code, then source.
        return self._order[folder], not item.package, item.is_source


def _is_module_name(stem: str) -> bool:
    return stem.isidentifier() or stem.startswith("_sysconfigdata_")


def importable(candidate: Candidate, modules: Mapping[str, Candidate]) -> bool:
    """Tell whether a source would be imported, and not only be read: all packages above it are packages."""
    if not candidate.module:
        return False
    parent = candidate.module.rpartition(".")[0]
    while parent:
        if parent not in modules:
            return False
        parent = parent.rpartition(".")[0]
    return True
