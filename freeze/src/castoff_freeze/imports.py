"""Which modules a module imports, read from its code without running it."""

from __future__ import annotations

import dis
import marshal
import os
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from types import CodeType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from castoff_freeze.files import Candidate, Inventory

_PYC_HEAD = 16
_FUNCTION = 0x1  # CO_OPTIMIZED: the code of a function, not of a module or class
_DYNAMIC = frozenset("import_module __import__ import_string find_spec load resolve_name".split())
_DOTTED = re.compile(r"\.?[^\W\d]\w*(?:\.[^\W\d]\w*)*(?::[\w.]+)?")


@dataclass(frozen=True, slots=True)
class Import:
    """An import statement, or a text that may be one.

    Attributes:
        name: full name of the module.
        lazy: whether it is only done when a function is called.
    """

    name: str
    lazy: bool


class ImportGraph:
    """What modules import, computed when it is asked for."""

    def __init__(self, inventory: Inventory, bytecode: dict[str, str]) -> None:
        """Read modules of an inventory.

        Args:
            inventory: all modules that there are.
            bytecode: compiled file of each source.
        """
        self._inventory = inventory
        self._bytecode = bytecode
        self._known: dict[str, tuple[Import, ...]] = {}

    def imports(self, module: str) -> tuple[Import, ...]:
        """Return what a module imports of the modules that there are."""
        if module not in self._known:
            self._known[module] = tuple(self._read(self._inventory.modules[module]))
        return self._known[module]

    def closure(self, seeds: Iterable[str], *, lazy: bool, without: Collection[str] = ()) -> dict[str, str]:
        """Return all modules that seeds lead to, each with the module that asked for it first ("" for a seed).

        Args:
            seeds: where to begin; unknown names are passed over.
            lazy: whether imports inside of functions count.
            without: modules, with all that is in them, that are not entered.
        """
        modules = self._inventory.modules
        why: dict[str, str] = {}
        todo = [(name, "") for name in sorted(seeds)]
        while todo:
            name, by = todo.pop()
            if name not in modules or name in why or is_within(name, without):
                continue
            why[name] = by
            todo += [(parent, name) for parent in self._inventory.parents(name)]
            todo += [(item.name, name) for item in self.imports(name) if lazy or not item.lazy]
        return why

    def _read(self, candidate: Candidate) -> Iterator[Import]:
        path = self._bytecode.get(candidate.path)
        if path is None or not os.path.exists(path):
            return
        with open(path, "rb") as file:
            file.seek(_PYC_HEAD)
            code = marshal.loads(file.read())  # noqa: S302 - written by this very run
        package = candidate.module if candidate.package else candidate.module.rpartition(".")[0]
        modules = self._inventory.modules
        for name, names, is_lazy in _statements(code, package):
            for full in (name, *(f"{name}.{part}" for part in names)):
                if full in modules and full != candidate.module:
                    yield Import(full, is_lazy)


def is_within(module: str, tops: Collection[str]) -> bool:
    """Tell whether a module is one of some modules, or in one of them."""
    while module:
        if module in tops:
            return True
        module = module.rpartition(".")[0]
    return False


def _statements(code: CodeType, package: str, lazy: bool = False) -> Iterator[tuple[str, tuple[str, ...], bool]]:
    """Yield the imports of a code object and of all inside of it: full name, names imported from it, whether lazy."""
    constants: list[object] = []
    for step in dis.get_instructions(code):
        if step.opname == "IMPORT_NAME":
            level, names = _import_operands(constants)
            name = _absolute(str(step.argval), level, package)
            if name:
                yield name, names, lazy
        elif step.opname in ("LOAD_CONST", "LOAD_SMALL_INT"):
            constants.append(step.argval)
    if _DYNAMIC & set(code.co_names):
        for text in constants:
            if isinstance(text, str) and _DOTTED.fullmatch(text):
                name = text.partition(":")[0]
                yield (f"{package}{name}" if name.startswith(".") else name), (), True
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _statements(inner, package, lazy or bool(inner.co_flags & _FUNCTION))


def _import_operands(constants: list[object]) -> tuple[int, tuple[str, ...]]:
    """Return level and names of an import statement: the two constants that are loaded right before it."""
    if len(constants) < 2:
        return 0, ()
    level, names = constants[-2:]
    return (
        level if isinstance(level, int) else 0,
        tuple(item for item in names if isinstance(item, str)) if isinstance(names, tuple) else (),
    )


def _absolute(name: str, level: int, package: str) -> str:
    if not level:
        return name
    parts = package.split(".") if package else []
    parts = parts[: len(parts) - (level - 1)]
    return ".".join([*parts, name] if name else parts)
