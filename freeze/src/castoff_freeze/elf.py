"""Which shared libraries machine code needs, read from the files as the dynamic loader reads them.

Follows ld.so(8) for glibc, and musl's rules where the interpreter of the program is musl's loader: DT_RPATH of the
loading chain, DT_RUNPATH of the file itself, ``$ORIGIN``, the loader's configured folders, its default folders; and a
library that another one has loaded before, under the same name, wins over all of it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import InterpSegment

ALWAYS = ("libgcc_s.so.1",)
"""Libraries that glibc loads by name at need: this one when a thread is cancelled or ends."""

_CONFIGURATION = "/etc/ld.so.conf"
_MAX_DEPTH = 12


@dataclass(frozen=True, slots=True)
class Binary:
    """What the dynamic section of a file says.

    Attributes:
        needed: names of libraries.
        rpath: folders for it and all that it loads; void where there is a runpath.
        runpath: folders for it alone.
        soname: its own name, or "".
        loader: path of the dynamic loader, for a program.
        bits: 32 or 64.
        machine: architecture.
    """

    needed: tuple[str, ...] = ()
    rpath: tuple[str, ...] = ()
    runpath: tuple[str, ...] = ()
    soname: str = ""
    loader: str = ""
    bits: int = 64
    machine: str = ""


@dataclass(frozen=True, slots=True)
class Need:
    """A file that machine code needs.

    Attributes:
        path: where the loader finds it.
        by: the file that needs it.
        name: under which it is needed.
        folder: whether it was only found through the loader's configuration, which a tree does not have.
    """

    path: str
    by: str
    name: str
    configured: bool = False


@dataclass(slots=True)
class Closure:
    """What was found: needs by path, and names that were not found with the file that wants them."""

    found: dict[str, Need] = field(default_factory=dict)
    missing: list[tuple[str, str]] = field(default_factory=list)


def read_binary(path: str) -> Binary | None:
    """Return what a file says, or None where it is no ELF file or has no dynamic section."""
    try:
        with open(path, "rb") as file:
            if file.read(4) != b"\x7fELF":
                return None
            elf = ELFFile(file)
            loader = ""
            dynamic: DynamicSegment | None = None
            for segment in elf.iter_segments():
                if isinstance(segment, DynamicSegment):
                    dynamic = segment
                elif isinstance(segment, InterpSegment):
                    loader = segment.get_interp_name()
            machine = str(elf["e_machine"])
            if dynamic is None:
                return Binary(loader=loader, bits=elf.elfclass, machine=machine)
            return _dynamic(dynamic, loader, elf.elfclass, machine)
    except (OSError, ELFError, ValueError, KeyError, AttributeError, UnicodeDecodeError):
        return None


def _text(tag: object, name: str) -> str:
    """Return a text of a tag, which pyelftools sets as an attribute of the tag's own name."""
    return str(getattr(tag, name))


def _dynamic(section: DynamicSegment, loader: str, bits: int, machine: str) -> Binary:
    needed: list[str] = []
    folders: dict[str, tuple[str, ...]] = {}
    soname = ""
    for tag in section.iter_tags():
        kind = tag.entry.d_tag
        if kind == "DT_NEEDED":
            needed.append(_text(tag, "needed"))
        elif kind == "DT_RPATH":
            folders["rpath"] = tuple(_text(tag, "rpath").split(":"))
        elif kind == "DT_RUNPATH":
            folders["runpath"] = tuple(_text(tag, "runpath").split(":"))
        elif kind == "DT_SONAME":
            soname = _text(tag, "soname")
    runpath = folders.get("runpath", ())
    return Binary(tuple(needed), () if runpath else folders.get("rpath", ()), runpath, soname, loader, bits, machine)


@dataclass(frozen=True, slots=True)
class Loader:
    """The dynamic loader of a program.

    Attributes:
        path: as the program names it; "" for a static one.
        default: folders that it always searches.
        configured: folders that its configuration adds.
    """

    path: str
    default: tuple[str, ...]
    configured: tuple[str, ...] = ()


def find_loader(program: str) -> Loader:
    """Return the loader of a program and the folders that it searches."""
    binary = read_binary(program)
    if binary is None or not binary.loader:
        return Loader("", ())
    if "musl" in os.path.basename(binary.loader):
        return Loader(binary.loader, ("/lib", "/usr/local/lib", "/usr/lib"))
    default = _system_folders(binary.loader)
    configured = tuple(item for item in _read_configuration(_CONFIGURATION) if item not in default)
    return Loader(binary.loader, default, configured)


def _system_folders(loader: str) -> tuple[str, ...]:
    """Ask glibc's loader for its default folders (2.33 and newer); else take those that distributions have."""
    try:
        done = subprocess.run([loader, "--list-diagnostics"], capture_output=True, text=True, timeout=20, check=False)
        lines = done.stdout.splitlines() if done.returncode == 0 else []
    except (OSError, subprocess.SubprocessError):
        lines = []
    found = [
        os.path.normpath(line.partition("=")[2].strip('"')) for line in lines if line.startswith("path.system_dirs[")
    ]
    triplet = f"{os.uname().machine}-linux-gnu"
    fallback = (f"/lib/{triplet}", f"/usr/lib/{triplet}", "/lib64", "/usr/lib64", "/lib", "/usr/lib")
    return tuple(dict.fromkeys(found)) or fallback


def _read_configuration(path: str, depth: int = 0) -> Iterator[str]:
    """Yield the folders in a configuration of the loader and in those that it includes."""
    import glob

    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read(1 << 20).splitlines()
    except OSError:
        return
    for line in lines:
        words = line.partition("#")[0].split()
        if words[:1] == ["include"] and depth < _MAX_DEPTH:
            for pattern in words[1:]:
                for name in sorted(glob.glob(os.path.join(os.path.dirname(path), pattern))):
                    yield from _read_configuration(name, depth + 1)
        elif len(words) == 1 and words[0].startswith("/"):
            yield os.path.normpath(words[0])


class Resolver:
    """Computes closures for one program and what it loads."""

    def __init__(self, loader: Loader, program: str, bundled: Iterable[str] = ()) -> None:
        """Prepare.

        Args:
            loader: the program's loader.
            program: the interpreter, whose DT_RPATH all that it loads inherits.
            bundled: libraries that packages bring along, which may be loaded before others ask for them by name.
        """
        self._loader = loader
        self._program = program
        self._architecture = read_binary(program)
        self._bundled: dict[str, str] = {}
        for path in sorted(bundled):
            binary = read_binary(path)
            if binary is not None:
                self._bundled.setdefault(binary.soname or os.path.basename(path), path)
                self._bundled.setdefault(os.path.basename(path), path)

    def closure(self, roots: Iterable[str]) -> Closure:
        """Return all that machine code needs, besides itself."""
        result = Closure()
        seen: set[tuple[str, tuple[str, ...]]] = set()
        inherited: tuple[str, ...] = ()
        program = read_binary(self._program)
        if program is not None:
            inherited = _expanded(program.rpath, self._program)
        todo = [(path, inherited) for path in sorted(set(roots), reverse=True)]
        while todo:
            path, chain = todo.pop()
            if (path, chain) in seen:
                continue
            seen.add((path, chain))
            binary = read_binary(path)
            if binary is None:
                continue
            if binary.loader and path == self._program:
                result.found.setdefault(binary.loader, Need(binary.loader, path, "program interpreter"))
            own = _expanded(binary.rpath, path)
            # A runpath switches the whole chain's rpath off, but for this file alone.
            folders = _expanded(binary.runpath, path) if binary.runpath else (*own, *chain)
            for name in binary.needed:
                need = self._find(name, path, folders)
                if need is None:
                    result.missing.append((path, name))
                elif need.path not in result.found:
                    result.found[need.path] = need
                if need is not None:
                    todo.append((need.path, (*own, *chain)))
        return result

    def _find(self, name: str, by: str, folders: Sequence[str]) -> Need | None:
        if "/" in name:
            return Need(name, by, name) if os.path.isfile(name) else None
        if self._loader.path and name == os.path.basename(self._loader.path):
            return Need(self._loader.path, by, name)  # it is there before everything else
        for folder in folders:
            if self._fits(path := os.path.join(folder, name)):
                return Need(os.path.normpath(path), by, name)
        if name in self._bundled:
            return Need(self._bundled[name], by, name)
        for folder in self._loader.default:
            if self._fits(path := os.path.join(folder, name)):
                return Need(path, by, name)
        for folder in self._loader.configured:
            if self._fits(path := os.path.join(folder, name)):
                return Need(path, by, name, configured=True)
        return None

    def by_name(self, name: str) -> Need | None:
        """Find a library that is loaded by its name alone, as by ``dlopen``."""
        return self._find(name, "", ())

    def _fits(self, path: str) -> bool:
        """Tell whether a library is there and of the program's architecture; the loader passes over others."""
        if not os.path.isfile(path):
            return False
        binary = read_binary(path)
        ours = self._architecture
        return binary is not None and (ours is None or (binary.bits, binary.machine) == (ours.bits, ours.machine))


def _expanded(folders: Sequence[str], path: str) -> tuple[str, ...]:
    """Replace ``$ORIGIN`` in folders by the folder of the file that names them."""
    origin = os.path.dirname(os.path.abspath(path))
    return tuple(
        os.path.normpath(folder.replace("${ORIGIN}", origin).replace("$ORIGIN", origin)) for folder in folders if folder
    )
