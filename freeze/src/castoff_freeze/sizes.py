"""What a tree weighs, by part, and compressed as a layer would be."""

from __future__ import annotations

import io
import os
import tarfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from castoff_freeze.tree import Item

_ZSTD_LEVEL = 19


@dataclass(frozen=True, slots=True)
class Part:
    """One line of the table: a name, and how many files and bytes it has."""

    name: str
    files: int
    size: int


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a tree weighs, in bytes.

    Attributes:
        parts: the largest first.
        total: of the regular files.
        files: how many there are.
        gzip: of the tree as one gzip'd layer, level 9.
        zstd: the same with Zstandard, level 19; 0 where no encoder is installed.
    """

    parts: tuple[Part, ...]
    total: int
    files: int
    gzip: int
    zstd: int

    def table(self) -> str:
        """Return the sizes as lines of text."""
        width = max([len(part.name) for part in self.parts] + [10])
        lines = [f"{part.name:<{width}}  {part.files:>6}  {part.size / 1e6:>9.2f} MB" for part in self.parts]
        lines.append(f"{'together':<{width}}  {self.files:>6}  {self.total / 1e6:>9.2f} MB")
        packed = f"gzip {self.gzip / 1e6:.2f} MB"
        if self.zstd:
            packed += f", zstd {self.zstd / 1e6:.2f} MB"
        return "\n".join([*lines, *([f"as a layer: {packed}"] if self.gzip else [])]) + "\n"


def measure(items: Iterable[Item], root: str) -> Sizes:
    """Weigh a tree that is written below a folder; where the folder is "", nothing is compressed."""
    parts: dict[str, list[int]] = {}
    for item in items:
        if item.kind == "file":
            size = os.path.getsize(item.source) if item.source else len(item.content)
            part = parts.setdefault(_part(item), [0, 0])
            part[0] += 1
            part[1] += size
    ordered = sorted((Part(name, *counts) for name, counts in parts.items()), key=lambda part: (-part.size, part.name))
    gzip, zstd = compressed_sizes(root) if root else (0, 0)
    return Sizes(tuple(ordered), sum(p.size for p in ordered), sum(p.files for p in ordered), gzip, zstd)


def _part(item: Item) -> str:
    names = {"python": "interpreter", "stdlib": "standard library", "system": "libraries and system files"}
    return names.get(item.owner, item.owner)


def compressed_sizes(root: str) -> tuple[int, int]:
    """Return how many bytes a folder takes as a gzip'd and as a Zstandard layer (0 without an encoder)."""
    gzip = zlib.compressobj(9, zlib.DEFLATED, 31)
    zstd = _zstd_encoder()
    sink = _Sink([gzip.compress, *([zstd[0]] if zstd else [])])
    with tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(_below(root)):
            info = archive.gettarinfo(path, os.path.relpath(path, root))
            info.uid = info.gid = 0
            info.uname = info.gname = ""
            if info.isreg():
                with open(path, "rb") as file:
                    archive.addfile(info, file)
            else:
                archive.addfile(info)
    return sink.sizes[0] + len(gzip.flush()), (sink.sizes[1] + len(zstd[1]())) if zstd else 0


def _below(root: str) -> Iterable[str]:
    for folder, names, files in os.walk(root):
        for name in (*names, *files):
            yield os.path.join(folder, name)


class _Sink(io.RawIOBase):
    """Counts what encoders make of what is written."""

    def __init__(self, encoders: Sequence[Callable[[bytes], bytes]]) -> None:
        super().__init__()
        self._encoders = encoders
        self.sizes = [0] * len(encoders)

    def write(self, data: bytes) -> int:  # type: ignore[override]
        for place, encode in enumerate(self._encoders):
            self.sizes[place] += len(encode(data))
        return len(data)


def _zstd_encoder() -> tuple[Callable[[bytes], bytes], Callable[[], bytes]] | None:
    try:
        import zstandard
    except ImportError:
        return None
    encoder = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compressobj()
    return encoder.compress, encoder.flush
