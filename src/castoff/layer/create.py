"""Makes layers: changes become a tar stream that is hashed and compressed in one pass."""

from __future__ import annotations

import hashlib
import queue
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from castoff.fs.changes import Added
from castoff.layer.compression import Compression, new_encoder
from castoff.layer.tarfields import BLOCK
from castoff.layer.tarwriter import CHUNK, TarStream
from castoff.oci.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from castoff.fs.changes import Change
    from castoff.layer.compression import Encoder

_QUEUED = 4
_INLINE = 4 * CHUNK
_PIECE = 1 << 16


class LayerWriter(Protocol):
    """Takes the compressed bytes of a layer; a blob store's writer is one, and so is a file."""

    def write(self, data: bytes, /) -> int:
        """Append bytes and return their number."""


@dataclass(frozen=True, slots=True)
class LayerOptions:
    """How a layer is made.

    Attributes:
        epoch: modification times in seconds since 1970; None keeps those of the entries (whole seconds).
        set_times: True gives every entry the epoch, False only takes later times back to it.
        compression: how the layer is compressed.
    """

    epoch: int | None = None
    set_times: bool = False
    compression: Compression = field(default_factory=Compression)


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """A layer that was made.

    Attributes:
        diff_id: digest of the tar stream.
        size: bytes of the tar stream.
        compressed_size: bytes that were written; who took them knows their digest.
        files: number of changes in it.
        media_type: the OCI media type.
    """

    diff_id: Digest
    size: int
    compressed_size: int
    files: int
    media_type: str


def tar_size(changes: Iterable[Change]) -> int:
    """Return the bytes of the tar stream that changes give, without pax records: what the choice of a codec rests on.

    It depends on the number of changes and the sizes of files only, and reads nothing.
    """
    total = 2 * BLOCK
    for change in changes:
        total += BLOCK
        if isinstance(change, Added):
            entry = change.entry
            if entry.size and entry.hardlink is None:
                total += entry.size + -entry.size % BLOCK
    return total


def write_layer(changes: Iterable[Change], out: LayerWriter, options: LayerOptions) -> LayerInfo:
    """Write a layer and return what it is.

    Reading files, hashing and compressing run at the same time where the layer is large; no more than a dozen
    buffers of 1 MiB are held. The bytes depend on the changes and the options alone.

    Args:
        changes: in layer order (parents first, a hard link after its target); taken into a list first.
        out: takes the compressed bytes, possibly from another thread, one call at a time.
        options: how to make it.

    Raises:
        ContextError: a file can't be read, or changes while it is being read.
        StoreError: `out` can't be written.
        UnsupportedError: the encoder is not installed.
    """
    listed = changes if isinstance(changes, list) else list(changes)
    size = tar_size(listed)
    encoder = new_encoder(options.compression, size)
    stream = TarStream(epoch=options.epoch, set_times=options.set_times)
    sink = _Sink(encoder, out)
    if size <= _INLINE:
        for chunk in stream.chunks(listed):
            sink.hash(chunk)
            sink.compress(chunk)
    else:
        _in_threads(stream.chunks(listed), (sink.hash, sink.compress))
    sink.finish()
    return LayerInfo(
        Digest("sha256", sink.digest.hexdigest()),
        sink.size,
        sink.written,
        stream.entries,
        options.compression.media_type,
    )


class _Sink:
    """Where the tar stream goes: into a hash and through an encoder."""

    def __init__(self, encoder: Encoder, out: LayerWriter) -> None:
        self.digest = hashlib.sha256()
        self.size = 0
        self.written = 0
        self._encoder = encoder
        self._out = out

    def hash(self, chunk: memoryview) -> None:
        self.digest.update(chunk)
        self.size += len(chunk)

    def compress(self, chunk: memoryview) -> None:
        # In pieces: results of a megabyte each would tear holes into the C library's heap, which then grows for ever.
        for start in range(0, len(chunk), _PIECE):
            self._write(self._encoder.compress(chunk[start : start + _PIECE]))

    def finish(self) -> None:
        self._write(self._encoder.flush())

    def _write(self, data: bytes) -> None:
        if data:
            self._out.write(data)
            self.written += len(data)


def _in_threads(chunks: Iterable[memoryview], stages: Sequence[Callable[[memoryview], None]]) -> None:
    """Give every chunk to every stage, each stage in a thread of its own and in order.

    Raises:
        BaseException: whatever the chunks or a stage raise, after all threads ended.
    """
    lines = [_Line(stage) for stage in stages]
    try:
        for chunk in chunks:
            for line in lines:
                line.put(chunk)
    finally:
        for line in lines:
            line.end()
    for line in lines:
        if line.error is not None:
            raise line.error


class _Line:
    """A thread that does one thing with every chunk."""

    def __init__(self, stage: Callable[[memoryview], None]) -> None:
        self.error: BaseException | None = None
        self._stage = stage
        self._queue: queue.Queue[memoryview | None] = queue.Queue(_QUEUED)
        self._thread = threading.Thread(target=self._run, name="castoff-layer", daemon=True)
        self._thread.start()

    def put(self, chunk: memoryview) -> None:
        if self.error is not None:
            raise self.error
        self._queue.put(chunk)

    def end(self) -> None:
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (chunk := self._queue.get()) is not None:
            if self.error is not None:
                continue  # The queue is emptied all the same, so that nobody waits for a place in it.
            try:
                self._stage(chunk)
            except BaseException as error:  # noqa: BLE001 - it is raised in the thread that waits
                self.error = error
