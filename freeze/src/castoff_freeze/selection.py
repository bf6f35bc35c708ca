"""Choose what is kept, and say of every file why."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from castoff_freeze import rules
from castoff_freeze.files import Candidate, Inventory, importable
from castoff_freeze.imports import ImportGraph, is_within

if TYPE_CHECKING:
    from castoff_freeze.trace import Trace

Mode = Literal["safe", "small", "smallest"]
MODES: tuple[Mode, ...] = ("safe", "small", "smallest")


@dataclass(frozen=True, slots=True)
class Wish:
    """What decides a selection.

    Attributes:
        mode: how much is kept.
        seeds: modules that are started by name.
        folders: of each dependency (``name version``), the folder that it is installed in.
        include: paths and modules to keep whatever the mode says.
        exclude: paths and modules to leave out; a path stands for all below it.
        builtins: modules inside of the interpreter.
    """

    mode: Mode
    seeds: tuple[str, ...]
    folders: Mapping[str, str]
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    builtins: frozenset[str] = frozenset()


@dataclass(slots=True)
class Selection:
    """What is kept and what is not, each with the reason; all paths are candidates of the inventory.

    Attributes:
        kept: path to reason.
        dropped: path to reason.
        sources: kept modules whose source is kept too.
        named: modules that the service loaded, or that its packages name.
    """

    kept: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    sources: set[str] = field(default_factory=set)
    named: frozenset[str] = frozenset()


def select(inventory: Inventory, graph: ImportGraph, trace: Trace, wish: Wish) -> Selection:
    """Choose among the candidates."""
    chooser = _Chooser(inventory, graph, trace, wish)
    result = Selection()
    for path, candidate in inventory.files.items():
        keep, why = chooser.decide(candidate)
        (result.kept if keep else result.dropped)[path] = why
    result.named = chooser.named
    result.sources = {path for path in trace.sources if path in result.kept}
    return result


class _Chooser:
    """Decides on one candidate after the other."""

    def __init__(self, inventory: Inventory, graph: ImportGraph, trace: Trace, wish: Wish) -> None:
        self._inventory = inventory
        self._trace = trace
        self._wish = wish
        self.named: frozenset[str] = frozenset()
        self._reached = self._reach(graph)
        self._owners = {
            inventory.modules[name].owner for name in self._reached if inventory.modules[name].group == "dependency"
        }
        self._tops = {name.partition(".")[0] for name in self._reached}

    def _reach(self, graph: ImportGraph) -> dict[str, str]:
        """Return the modules that the mode keeps because of imports, each with the module that led to it."""
        loaded = set(self._trace.modules) | set(self._wish.seeds) | rules.STARTUP
        self.named = frozenset(loaded)
        if self._wish.mode == "smallest":
            return self._only(loaded)
        begin = loaded | {name for name, item in self._inventory.modules.items() if self._begins(item)}
        seeds = begin | rules.C_IMPORTS
        named = set(loaded)
        for name in begin & self._inventory.modules.keys():
            imports = {item.name for item in graph.imports(name)}
            seeds |= imports
            if self._inventory.modules[name].group != "stdlib":
                named |= imports
        self.named = frozenset(named)
        # What a package names, it gets; what only the standard library itself could come to, it does not.
        without = rules.STDLIB_DROPPED - named if self._wish.mode == "safe" else rules.DEVELOPMENT - loaded
        reached = graph.closure(seeds, lazy=False, without=without)
        for name in loaded & self._inventory.modules.keys():
            reached.setdefault(name, "")
        return reached

    def _begins(self, item: Candidate) -> bool:
        """Tell whether a module's imports count though it was not loaded."""
        if item.group == "application":
            return True
        if self._wish.mode != "safe" or item.group != "dependency":
            return False
        return not rules.dependency_dropped(item.path, self._wish.folders.get(item.owner, ""))

    def _only(self, names: Collection[str]) -> dict[str, str]:
        return {
            name: ""
            for given in names
            for name in (given, *self._inventory.parents(given))
            if name in self._inventory.modules
        }

    def decide(self, item: Candidate) -> tuple[bool, str]:  # noqa: PLR0911 - a list of rules, the first of which counts
        """Return whether a candidate is kept, and why."""
        if self._named(item, self._wish.exclude):
            return False, "left out by request"
        if self._named(item, self._wish.include):
            return True, "kept by request"
        if item.path in self._trace.sources:
            return True, "its source was read while tracing"
        if item.path in self._trace.opened:
            return True, "opened while tracing"
        is_module = bool(item.module) and self._inventory.modules.get(item.module) is item
        if is_module and item.module in self._trace.modules:
            return True, "imported while tracing"
        if item.group == "stdlib":
            return self._decide_stdlib(item)
        if item.group == "dependency":
            return self._decide_dependency(item, is_module)
        if self._wish.mode == "smallest" and is_module and item.module not in self._reached:
            return False, "not imported while tracing"
        return True, "application"

    def _decide_stdlib(self, item: Candidate) -> tuple[bool, str]:
        if not item.module:
            return False, "data of the standard library that was not opened"
        if rules.FALLBACKS.get(item.module) in {*self._inventory.modules, *self._wish.builtins}:
            return False, f"stands in for {rules.FALLBACKS[item.module]}, which is there"
        if item.is_extension and item.module in self._wish.builtins:
            return False, "inside of the interpreter"
        if self._wish.mode != "safe":
            return self._by_import(item)
        if item.module.startswith("_sysconfigdata_") or not is_within(item.module, rules.STDLIB_DROPPED):
            return True, "standard library"
        if item.module in self._reached:
            return self._by_import(item)
        return False, "not for a service"

    def _decide_dependency(self, item: Candidate, is_module: bool) -> tuple[bool, str]:  # noqa: PLR0911 - as above
        if is_module and item.module in self._reached and self._wish.mode != "safe":
            return self._by_import(item)
        folder = self._wish.folders.get(item.owner, "")
        useless = rules.dependency_dropped(item.path, folder)
        if useless and not (is_module and item.module in self._reached):
            return False, useless
        if self._wish.mode == "safe":
            return True, f"belongs to {item.owner}"
        below = item.path[len(folder) + 1 :] if item.path.startswith(folder + "/") else item.path
        if below.partition("/")[0].endswith(".dist-info"):
            return True, f"metadata of {item.owner}"
        if item.is_source and importable(item, self._inventory.modules):
            return False, "nothing that is kept imports it"
        if item.is_extension:
            return False, "nothing that is kept imports it"
        if self._wish.mode == "smallest":
            return False, "not opened while tracing"
        if item.owner not in self._owners or below.partition("/")[0] not in self._tops:
            return False, f"data of {item.owner}, no module of which is kept there"
        if ".so" in os.path.basename(item.path):
            return False, "a library that nothing needs"
        return True, f"data of {item.owner}"

    def _by_import(self, item: Candidate) -> tuple[bool, str]:
        if item.module not in self._reached:
            return False, "nothing that is kept imports it"
        by = self._reached[item.module]
        return True, f"imported by {by}" if by else "imported by name, or by C code"

    @staticmethod
    def _named(item: Candidate, names: Collection[str]) -> bool:
        return any(
            (name.startswith("/") and (item.path == name or item.path.startswith(name.rstrip("/") + "/")))
            or (item.module and is_within(item.module, (name,)))
            for name in names
        )
