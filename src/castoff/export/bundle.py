"""The tar archive around an image: sorted, without times or owners, so that equal images give equal archives."""

from __future__ import annotations

import stat
import time
from typing import TYPE_CHECKING

from castoff.events import StatusEvent
from castoff.export.placement import failing_as_export, placed_file
from castoff.export.transfer import send_blob, write_all
from castoff.fs.entry import FileEntry
from castoff.layer.tarwriter import BLOCK, header

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import BinaryIO

    from castoff.events import Observer
    from castoff.export.contents import BlobFile

_END = bytes(2 * BLOCK)
SENDING = "sending tarball"


class Progress:
    """Counts bytes, and tells an observer of them a few times a second."""

    def __init__(self, observer: Observer, vertex: str, name: str, total: int) -> None:
        self._observer = observer
        self._vertex = vertex
        self._name = name
        self._total = total
        self._told = 0.0
        self.done = 0

    def add(self, count: int) -> None:
        """Count some more bytes."""
        self.done += count
        now = time.time()
        if now - self._told >= 0.1:
            self._told = now
            self._observer.status(StatusEvent(self._vertex, self._name, now, self.done, self._total))

    def finish(self) -> None:
        """Say that it is done."""
        self._observer.status(
            StatusEvent(self._vertex, self._name, time.time(), self.done, max(self._total, self.done), done=True)
        )


def write_bundle(
    dest: str,
    documents: Mapping[str, bytes],
    blobs: Sequence[BlobFile],
    progress: Progress,
    stdout: BinaryIO | None = None,
) -> int:
    """Write an archive of small documents and blobs and return its size in bytes. Atomic.

    Args:
        dest: the path of a file, or ``-`` for `stdout`.
        documents: names and contents.
        blobs: in any order.
        progress: told of what is written.
        stdout: standard output.

    Raises:
        ExportError: the destination can't be written.
        StoreError: a blob is missing or damaged.
    """
    by_name: dict[str, BlobFile | bytes | None] = {"blobs/": None}
    for blob in blobs:
        by_name[f"blobs/{blob.digest.algorithm}/"] = None
        by_name[blob.name] = blob
    by_name.update(documents)
    with placed_file(dest, stdout) as fd, failing_as_export(f"write {dest}"):
        for name in sorted(by_name):
            _write_member(fd, name, by_name[name], progress)
        progress.add(write_all(fd, _END))
    progress.finish()
    return progress.done


def _write_member(fd: int, name: str, content: BlobFile | bytes | None, progress: Progress) -> None:
    path = name.rstrip("/").encode()
    if content is None:
        progress.add(write_all(fd, header(FileEntry(path, stat.S_IFDIR | 0o755), 0)))
        return
    size = len(content) if isinstance(content, bytes) else content.size
    progress.add(write_all(fd, header(FileEntry(path, stat.S_IFREG | 0o644, size=size), 0)))
    if isinstance(content, bytes):
        progress.add(write_all(fd, content))
    else:
        send_blob(content.blobs, content.digest, content.size, fd, progress.add)
    progress.add(write_all(fd, bytes(-size % BLOCK)))
