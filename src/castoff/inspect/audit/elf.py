"""What the head of an ELF file says of it: for which machine it is, and what it needs in order to start.

Only the program headers and the dynamic section are read, as the loader reads them (System V ABI, chapters 4 and 5).
Files are hostile: every number is checked against the size of the file, and every table has a bound.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

MAGIC = b"\x7fELF"
_MAX_HEADERS = 4096
_MAX_DYNAMIC = 1 << 16
_MAX_NAME = 4096
_MAX_NEEDED = 1024
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NEEDED, _DT_STRTAB, _DT_SONAME, _DT_RPATH, _DT_RUNPATH, _DT_FLAGS_1 = 1, 5, 14, 15, 29, 0x6FFFFFFB
_DF_1_PIE = 0x08000000
_MACHINES: dict[tuple[int, int, bool], str] = {
    # number, bits, little-endian: the architecture as images name it
    (3, 32, True): "386",
    (62, 64, True): "amd64",
    (40, 32, True): "arm",
    (183, 64, True): "arm64",
    (243, 64, True): "riscv64",
    (21, 64, True): "ppc64le",
    (21, 64, False): "ppc64",
    (22, 64, False): "s390x",
    (258, 64, True): "loong64",
    (8, 32, True): "mipsle",
    (8, 32, False): "mips",
    (8, 64, True): "mips64le",
    (8, 64, False): "mips64",
}
_KINDS: dict[int, Literal["executable", "shared"]] = {2: "executable", 3: "shared"}


class Seekable(Protocol):
    """Something to read bytes from at any place."""

    def seek(self, offset: int, /) -> int:
        """Go to a place, counted from the beginning."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes."""


@dataclass(frozen=True, slots=True)
class ElfFacts:
    """What is known of an ELF file.

    Attributes:
        architecture: as images name it, such as ``amd64``; ``machine 123`` for others.
        kind: a program, a shared object, or something that is never loaded as it is (object files, core dumps).
        interpreter: path of the loader that it asks for; b"" for none.
        needed: names of the shared libraries that it asks for.
        soname: what it calls itself; b"" for nothing.
        runpath: folders to look for libraries in, ``$ORIGIN`` and all, as it has them.
    """

    architecture: str
    kind: Literal["executable", "shared", "other"]
    interpreter: bytes = b""
    needed: tuple[bytes, ...] = ()
    soname: bytes = b""
    runpath: tuple[bytes, ...] = ()

    @property
    def is_dynamic(self) -> bool:
        """Whether it needs a loader or libraries."""
        return bool(self.interpreter or self.needed)


class _Segment(NamedTuple):
    kind: int
    offset: int
    address: int
    size: int


class _Layout(NamedTuple):
    """How numbers of a file are written, and where its program headers are."""

    order: str
    bits: int
    machine: int
    type: int
    table: int
    entry_size: int
    headers: int


def read_elf(file: Seekable) -> ElfFacts | None:
    """Return what an ELF file says of itself; None where it is none, or is cut short or otherwise odd."""
    try:
        file.seek(0)
        layout = _layout(file.read(64))
        if layout is None:
            return None
        segments = _segments(file, layout)
        return _facts(file, layout, segments)
    except (struct.error, ValueError, OverflowError):
        return None


def _layout(head: bytes) -> _Layout | None:
    if len(head) < 52 or not head.startswith(MAGIC) or head[4] not in (1, 2) or head[5] not in (1, 2):
        return None
    order, bits = "<" if head[5] == 1 else ">", 32 * head[4]
    kind, machine = struct.unpack_from(order + "HH", head, 16)
    if bits == 64:
        (table,) = struct.unpack_from(order + "Q", head, 32)
        entry_size, count = struct.unpack_from(order + "HH", head, 54)
    else:
        (table,) = struct.unpack_from(order + "I", head, 28)
        entry_size, count = struct.unpack_from(order + "HH", head, 42)
    return _Layout(order, bits, machine, kind, table, entry_size, count)


def _segments(file: Seekable, layout: _Layout) -> list[_Segment]:
    wanted = 56 if layout.bits == 64 else 32
    if not layout.headers or layout.entry_size < wanted or layout.headers > _MAX_HEADERS:
        return []
    data = _at(file, layout.table, layout.headers * layout.entry_size)
    found = []
    for start in range(0, len(data) - wanted + 1, layout.entry_size):
        if layout.bits == 64:
            kind, _flags, offset, address, _physical, size = struct.unpack_from(layout.order + "IIQQQQ", data, start)
        else:
            kind, offset, address, _physical, size = struct.unpack_from(layout.order + "IIIII", data, start)
        if kind in (_PT_LOAD, _PT_DYNAMIC, _PT_INTERP):
            found.append(_Segment(kind, offset, address, size))
    return found


def _facts(file: Seekable, layout: _Layout, segments: list[_Segment]) -> ElfFacts:
    architecture = _MACHINES.get((layout.machine, layout.bits, layout.order == "<"), f"machine {layout.machine}")
    if layout.type not in _KINDS:
        return ElfFacts(architecture, "other")
    kind: Literal["executable", "shared"] = _KINDS[layout.type]
    interpreter = b""
    tags: list[tuple[int, int]] = []
    for segment in segments:
        if segment.kind == _PT_INTERP:
            interpreter = _at(file, segment.offset, min(segment.size, _MAX_NAME)).partition(b"\0")[0]
        elif segment.kind == _PT_DYNAMIC and not tags:
            tags = _dynamic(file, layout, segment)
    if layout.type == 3:
        # Position-independent programs are of the type of libraries; libraries with a loader of their own have a name.
        named = any(tag == _DT_SONAME for tag, _value in tags)
        is_program = any(tag == _DT_FLAGS_1 and value & _DF_1_PIE for tag, value in tags)
        kind = "executable" if is_program or (interpreter and not named) else "shared"
    strings = next((value for tag, value in tags if tag == _DT_STRTAB), None)
    base = _file_offset(segments, strings) if strings is not None else None
    if base is None:
        return ElfFacts(architecture, kind, interpreter)

    def text(tag: int) -> list[bytes]:
        values = [value for found, value in tags if found == tag][:_MAX_NEEDED]
        return [name for value in values if (name := _at(file, base + value, _MAX_NAME).partition(b"\0")[0])]

    paths = text(_DT_RUNPATH) or text(_DT_RPATH)
    return ElfFacts(
        architecture,
        kind,
        interpreter,
        tuple(text(_DT_NEEDED)),
        next(iter(text(_DT_SONAME)), b""),
        tuple(part for path in paths for part in path.split(b":") if part),
    )


def _dynamic(file: Seekable, layout: _Layout, segment: _Segment) -> list[tuple[int, int]]:
    data = _at(file, segment.offset, min(segment.size, _MAX_DYNAMIC))
    form = struct.Struct(layout.order + ("QQ" if layout.bits == 64 else "II"))
    tags = []
    for tag, value in form.iter_unpack(data[: len(data) - len(data) % form.size]):
        if not tag:
            break
        tags.append((tag, value))
    return tags


def _file_offset(segments: list[_Segment], address: int) -> int | None:
    """Return where in the file an address of memory is loaded from."""
    for segment in segments:
        if segment.kind == _PT_LOAD and segment.address <= address < segment.address + segment.size:
            return address - segment.address + segment.offset
    return None


def _at(file: Seekable, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)
