"""What the service did while it was watched, told from the hook's notes and the kernel's events."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from castoff_freeze.files import Inventory

_SYSTEM = ("/proc/", "/sys/", "/dev/", "/run/", "/tmp/", "/var/tmp/", "/var/cache/", "/root/.cache/")
_PROVIDED = frozenset(
    "/etc/passwd /etc/group /etc/shadow /etc/gshadow /etc/hosts /etc/hostname /etc/nsswitch.conf /etc/resolv.conf "
    "/etc/host.conf /etc/ld.so.cache /etc/ld.so.preload /etc/ld.so.conf /etc/machine-id".split()
)
"""Files that every tree has, or that a container engine provides."""


@dataclass(frozen=True, slots=True)
class Trace:
    """What the service did.

    Attributes:
        modules: names that were imported, as far as they are in the inventory.
        missed: names that were asked for and not found by any finder.
        opened: data files and shared libraries that were read.
        sources: sources that were read as text although their bytecode was there.
        libraries: what was loaded by ``dlopen``, by name or path.
        programs: executables that were run.
        absent: paths that were opened and are not there.
        foreign: modules' files that were read though they belong to nothing that may be frozen.
    """

    modules: frozenset[str] = frozenset()
    missed: frozenset[str] = frozenset()
    opened: frozenset[str] = frozenset()
    sources: frozenset[str] = frozenset()
    libraries: frozenset[str] = frozenset()
    programs: frozenset[str] = frozenset()
    absent: frozenset[str] = frozenset()
    foreign: frozenset[str] = frozenset()


class TraceReader:
    """Makes a trace of notes."""

    def __init__(self, inventory: Inventory, bytecode: Mapping[str, str], ignored: Sequence[str], since: float) -> None:
        """Prepare.

        Args:
            inventory: what there is.
            bytecode: compiled file of each source.
            ignored: folders whose files are no part of the service.
            since: time from which on files were made by the run itself, in seconds since the epoch.
        """
        self._inventory = inventory
        self._source_of = {target: source for source, target in bytecode.items()}
        self._ignored = tuple(folder.rstrip("/") + "/" for folder in (*ignored, *_SYSTEM))
        self._since = since

    def read(self, notes: Iterable[str], watched: Collection[str]) -> Trace:
        """Return the trace.

        Args:
            notes: lines of the hook.
            watched: paths that the kernel saw being opened.
        """
        modules: set[str] = set()
        missed: set[str] = set()
        opened: set[str] = set()
        sources: set[str] = set()
        libraries: set[str] = set()
        programs: set[str] = set()
        absent: set[str] = set()
        foreign: set[str] = set()
        for line in notes:
            event, *fields = line.split("\t")
            if not fields or not fields[0]:
                continue
            if event == "open":
                self._take_open(fields, modules, opened, sources, absent)
                if fields[0].endswith((".py", ".so")) and self._is_foreign(fields[0]):
                    foreign.add(fields[0])
            elif event == "import":
                modules.add(fields[0])
            elif event == "missed":
                missed.add(fields[0])
            elif event == "ctypes.dlopen":
                libraries.add(fields[0])
            else:
                programs.add(fields[0])
        for path in watched:
            item = self._inventory.files.get(path)
            if (item is None or not item.module) and self._counts(path):
                opened.add(path)
        return Trace(
            modules=frozenset(self._with_parents(modules)),
            missed=frozenset(missed),
            opened=frozenset(opened),
            sources=frozenset(sources),
            libraries=frozenset(libraries),
            programs=frozenset(programs),
            absent=frozenset(absent),
            foreign=frozenset(foreign),
        )

    def _take_open(
        self, fields: Sequence[str], modules: set[str], opened: set[str], sources: set[str], absent: set[str]
    ) -> None:
        path = os.path.normpath(fields[0])
        if not path.startswith("/") or fields[-1] == "w":
            return
        source = self._source_of.get(path)
        if source is not None:
            modules.add(self._inventory.files[source].module)
            return
        item = self._inventory.files.get(path)
        if item is not None and item.module:
            if item.is_source:
                sources.add(path)
            else:
                modules.add(item.module)
        elif not os.path.lexists(path):
            absent.add(path)
        elif self._counts(path):
            opened.add(path)

    def _is_foreign(self, path: str) -> bool:
        return "-packages/" in path and path not in self._inventory.files and os.path.isfile(path)

    def _with_parents(self, names: Iterable[str]) -> set[str]:
        known: set[str] = set()
        for name in names:
            if name in self._inventory.modules:
                known.add(name)
            known.update(self._inventory.parents(name))
        return known

    def _counts(self, path: str) -> bool:
        """Tell whether an opened file is one that the service brings along."""
        if path in _PROVIDED or path.startswith(self._ignored) or path.endswith((".pyc", ".py")):
            return False
        try:
            status = os.stat(path)
        except OSError:
            return False
        made_now = max(status.st_mtime, status.st_ctime) >= self._since
        return os.path.isfile(path) and not (made_now and path not in self._inventory.files)


def read_notes(path: str) -> list[str]:
    """Return the lines that the hook wrote."""
    with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        return file.read().split("\n")
