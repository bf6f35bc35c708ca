"""Unpacks a layer into a directory in overlay format (OCI image specification, "Applying Changesets")."""

from __future__ import annotations

import hashlib
import queue
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from castoff.errors import InvalidImageError
from castoff.fs.entry import display
from castoff.fs.upper import UpperWriter
from castoff.layer.tarreader import TarLimits, TarReader
from castoff.layer.tarwriter import OPAQUE_NAME, WHITEOUT_PREFIX
from castoff.oci.digest import Digest

if TYPE_CHECKING:
    from castoff.fs.ownership import Ownership
    from castoff.fs.union import UnionTree
    from castoff.layer.tarreader import Readable, TarMember

_READ = 1 << 20
_QUEUED = 4
_AUFS_PREFIX = b".wh..wh."


@dataclass(frozen=True, slots=True)
class ApplyInfo:
    """A layer that was unpacked.

    Attributes:
        diff_id: digest of the bytes that were read, to be compared with the config's.
        size: their number.
        entries: number of entries.
        notes: one sentence for each thing that could not be kept, such as an attribute the file system refuses.
    """

    diff_id: Digest
    size: int
    entries: int
    notes: tuple[str, ...] = ()


def apply_layer(
    stream: Readable,
    upper: str,
    lower: UnionTree,
    ownership: Ownership,
    userxattr: bool,
    limits: TarLimits | None = None,
) -> ApplyInfo:
    """Unpack a layer's tar stream and return what was read.

    Whiteouts become character devices 0/0 and opaque marks overlay's attribute; both hide only what lies below, never
    what the same layer brings. Of two entries for one path the later one counts. Nothing is written outside `upper`,
    whatever the names and links in the stream. The stream is read to its end while its digest is taken; a caller that
    finds the digest wrong throws `upper` away. Neither atomic nor idempotent.

    Args:
        stream: the uncompressed bytes of the layer.
        upper: absolute host path of an empty directory.
        lower: what the layer lies on.
        ownership: takes the owners.
        userxattr: whether overlay's attributes are ``user.overlay.*``.
        limits: bounds on entries and sizes.

    Raises:
        InvalidImageError: the stream is no valid layer.
        StoreError: the directory can't be written.
        SyscallError: the host refuses an owner.
    """
    with UpperWriter(upper, lower, ownership, userxattr, problem=InvalidImageError) as writer:
        return apply_to(stream, writer, limits)


def apply_to(stream: Readable, writer: UpperWriter, limits: TarLimits | None = None) -> ApplyInfo:
    """Hand a layer's entries to a writer, whose `problem` is InvalidImageError; see `apply_layer`."""
    source = _HashedStream(stream)
    entries = 0
    try:
        for member in TarReader(source, limits):
            entries += 1
            _apply(writer, member)
        writer.finish()
        notes = tuple(writer.notes)
        source.drain()
    finally:
        source.stop()
    return ApplyInfo(Digest("sha256", source.hexdigest()), source.size, entries, notes)


def _apply(writer: UpperWriter, member: TarMember) -> None:
    entry = member.entry
    parent, _, name = entry.path.rpartition(b"/")
    if not name.startswith(WHITEOUT_PREFIX):
        writer.add(entry, member.content if entry.is_file and entry.hardlink is None else None)
    elif name == OPAQUE_NAME:
        writer.hide_content(parent)
    elif not name.startswith(_AUFS_PREFIX):  # Others of that prefix are aufs' own book-keeping.
        hidden = name.removeprefix(WHITEOUT_PREFIX)
        if hidden in {b"", b".", b".."}:
            raise InvalidImageError(f"the whiteout {display(entry.path)} in the layer names nothing")
        writer.hide(parent + b"/" + hidden if parent else hidden)


class _HashedStream:
    """Reads a stream ahead in a thread, where it is decompressed and hashed, and hands its blocks on."""

    def __init__(self, stream: Readable) -> None:
        self.size = 0
        self._stream = stream
        self._digest = hashlib.sha256()
        self._queue: queue.Queue[bytes | BaseException] = queue.Queue(_QUEUED)
        self._stopped = False
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="castoff-unpack", daemon=True)
        self._thread.start()

    def read(self, size: int, /) -> bytes:  # noqa: ARG002 - a block is what there is: at most 1 MiB
        """Return the next block, whatever `size` says (the tar reader asks for as much); b"" at the end."""
        if self._ended:
            return b""
        block = self._queue.get()
        if isinstance(block, BaseException):
            self._ended = True
            raise block
        self._ended = not block
        return block

    def drain(self) -> None:
        """Read what is left."""
        while self.read(_READ):
            pass

    def stop(self) -> None:
        """End the thread."""
        self._stopped = True
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.05)
            except queue.Empty:
                continue
        self._thread.join()

    def hexdigest(self) -> str:
        """Return the digest of all that was read."""
        return self._digest.hexdigest()

    def _run(self) -> None:
        try:
            while not self._stopped:
                block = self._stream.read(_READ)
                self._digest.update(block)
                self.size += len(block)
                self._queue.put(block)
                if not block:
                    return
        except BaseException as error:  # noqa: BLE001 - it is raised in the thread that waits
            self._queue.put(error)
