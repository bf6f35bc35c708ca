"""Put the tree together from what was selected."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from castoff_freeze.elf import find_loader
from castoff_freeze.entry import launcher
from castoff_freeze.files import Candidate, importable
from castoff_freeze.libraries import add_libraries
from castoff_freeze.runtime_files import add_runtime_files, zone_packages
from castoff_freeze.tree import Item, Layer, Tree

if TYPE_CHECKING:
    from castoff_freeze.selection import Selection
    from castoff_freeze.surroundings import Surroundings
    from castoff_freeze.trace import Trace

_LAYERS: dict[str, Layer] = {"application": "app"}


@dataclass(frozen=True, slots=True)
class Assembled:
    """A tree in the making, before it is written.

    Attributes:
        tree: its entries.
        remarks: what the user should know.
    """

    tree: Tree
    remarks: tuple[str, ...]


class Assembler:
    """Makes trees of one service."""

    def __init__(self, place: Surroundings, bytecode: Mapping[str, str], work: str) -> None:
        """Prepare.

        Args:
            place: what is frozen.
            bytecode: compiled file of each source that could be compiled.
            work: folder for stripped files.
        """
        self._place = place
        self._bytecode = bytecode
        self._work = work
        self._loader = os.path.realpath(find_loader(place.python.real).path or "/")
        self._strip = shutil.which("strip") if place.request.strip else None

    def assemble(self, selection: Selection, trace: Trace, extra: Collection[str]) -> Assembled:
        """Make the tree.

        Args:
            selection: which candidates are kept.
            trace: what the service used.
            extra: further files of this system that a verification was found to miss.
        """
        tree = Tree()
        loaded = set()
        for path, why in selection.kept.items():
            item = self._place.inventory.files[path]
            if item.module:
                loaded.add(item.module)
            for entry in self._entries(item, why, path in selection.sources, item.module in trace.modules):
                tree.add(entry)
        self._add_interpreter(tree)
        for path in sorted({*trace.opened, *extra}):
            if path not in self._place.inventory.files and path not in tree and self._is_wanted(path, tree):
                tree.add_system_file(path, "opened while tracing" if path in trace.opened else "missed when verifying")
        sparing = self._place.request.mode != "safe"
        zones = self._place.request.mode != "smallest" and "zoneinfo" in selection.named
        zones = zones and not zone_packages(list(self._place.dependencies))
        remarks = add_runtime_files(tree, self._place.python, loaded, sparing=sparing, zones=zones)
        self._add_launcher(tree)
        bundled = {
            path: item.owner
            for path, item in self._place.inventory.files.items()
            if item.group == "dependency" and not item.module and ".so" in os.path.basename(path)
        }
        missing = add_libraries(tree, self._place.python.real, trace.libraries, bundled)
        remarks += [f"a library was not found: {name}" for name in missing]
        remarks += [f"the service ran {name}, which the tree does not have" for name in self._programs(tree, trace)]
        return Assembled(tree, tuple(remarks))

    def _entries(self, item: Candidate, why: str, with_source: bool, is_loaded: bool) -> list[Item]:
        """Return the entries that a candidate becomes."""
        layer: Layer = _LAYERS.get(item.group, "deps")
        owner = item.owner or item.group
        compiled = self._bytecode.get(item.path)
        is_code = item.path == self._place.entry.script or importable(item, self._place.inventory.modules) or is_loaded
        if item.path == self._place.entry.script:
            with_source = False  # whoever starts a script reads it
        if item.is_source and compiled is not None and is_code:
            folder, name = os.path.split(item.path)
            beside = f"{folder}/__pycache__/{name[:-3]}.{self._place.python.tag}.pyc"
            target = beside if with_source else f"{item.path}c"
            entries = [Item(target, "file", why, layer, owner, source=compiled, origin=item.path)]
            if with_source:
                entries.append(Item(item.path, "file", why, layer, owner, source=item.path))
            return entries
        mode = 0o755 if item.is_extension or os.access(item.path, os.X_OK) else 0o644
        return [Item(item.path, "file", why, layer, owner, source=self._stripped(item), mode=mode, origin=item.path)]

    def _stripped(self, item: Candidate) -> str:
        """Return a file without its symbols, where that is safe: tools that add libraries have patched others."""
        if self._strip is None or not item.is_extension or item.group != "dependency":
            return item.path
        folder = self._place.folders().get(item.owner, "")
        top = item.path[len(folder) + 1 :].partition("/")[0].partition(".")[0]
        if os.path.isdir(os.path.join(folder, f"{top}.libs")) or os.path.isdir(os.path.join(folder, top, ".libs")):
            return item.path
        target = self._work + item.path
        if not os.path.exists(target):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            done = subprocess.run([self._strip, "--strip-unneeded", "-o", target, item.path], check=False)
            if done.returncode:
                return item.path
        return target

    def _add_interpreter(self, tree: Tree) -> None:
        python = self._place.python
        tree.add_system_file(python.executable, "the interpreter", "python")
        if python.real not in tree:
            tree.add(Item(python.real, "file", "the interpreter", owner="python", source=python.real, mode=0o755))
        marker = os.path.join(python.prefix, "pyvenv.cfg")
        if python.prefix != python.base_prefix and os.path.isfile(marker):
            tree.add_system_file(marker, "marks the virtual environment", "python")
        # Without this folder the interpreter does not find the place of its extension modules, and says so.
        tree.add_folder(python.dynload, "the interpreter looks for it")

    def _is_wanted(self, path: str, tree: Tree) -> bool:
        """Tell whether a file that belongs to nobody is worth keeping because it was opened."""
        real = os.path.realpath(path)
        if real in tree or real == self._loader or "/gconv/" in path:
            return False
        return not (path.endswith(".pth") and _runs_code(path))

    def _add_launcher(self, tree: Tree) -> None:
        text = frozen_launcher(self._place, "")
        tree.add_text(self._place.request.launcher, text, "the launcher", mode=0o755, layer="app")

    def _programs(self, tree: Tree, trace: Trace) -> list[str]:
        python = self._place.python
        names = {name for name in trace.programs if name not in (python.executable, python.real)}
        return sorted(name for name in names if name not in tree)


def _runs_code(path: str) -> bool:
    """Tell whether a path configuration file imports something, which is then a module of a package left out."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return any(line.startswith(("import ", "import\t")) for line in file)
    except OSError:
        return True


def frozen_launcher(place: Surroundings, root: str) -> str:
    """Return the launcher of the tree; below a root where it is not entered but only stands for a prefix."""
    entry = place.entry.with_script(f"{root}{place.entry.script}c") if place.entry.script else place.entry
    return launcher(entry, place.python.executable, [root + path for path in place.paths])
