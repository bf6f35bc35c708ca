"""A store in memory, the twin of the one in a folder."""

from __future__ import annotations

import hashlib
import io
import threading
from typing import TYPE_CHECKING, BinaryIO

from castoff.errors import BlobNotFoundError, DigestMismatchError, StoreError
from castoff.oci.digest import Digest
from castoff.store.blobfolder import check_registered, verified
from castoff.store.images import ImageRecord, ImageTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from castoff.oci.descriptor import Descriptor
    from castoff.oci.reference import Reference


class MemoryBlobStore:
    """A BlobStore in memory. Safe for several threads."""

    def __init__(self, removed: Callable[[], object] = lambda: None) -> None:
        """Begin empty; `removed` is called before a blob is removed."""
        self._blobs: dict[Digest, bytes] = {}
        self._removed = removed

    def size(self, digest: Digest) -> int | None:
        """Return the size of a blob in bytes, or None where it is not there."""
        data = self._blobs.get(digest)
        return None if data is None else len(data)

    def open_(self, digest: Digest) -> BinaryIO:
        """Open a blob for reading; it has no file descriptor.

        Raises:
            BlobNotFoundError: it is not there.
        """
        return io.BytesIO(self._get(digest))

    def read(self, digest: Digest, limit: int = 4 << 20) -> bytes:
        """Return a small blob whole, verified.

        Raises:
            BlobNotFoundError: it is not there.
            StoreError: it is larger than `limit` bytes.
        """
        return verified(self._get(digest), digest, limit)

    def writer(self) -> MemoryBlobWriter:
        """Begin a new blob."""
        return MemoryBlobWriter(self._blobs)

    def add(self, data: bytes) -> Digest:
        """Store bytes and return their digest. Atomic, idempotent."""
        digest = Digest.of(data)
        self._blobs.setdefault(digest, bytes(data))
        return digest

    def delete(self, digest: Digest) -> None:
        """Remove a blob. Atomic, idempotent."""
        if digest in self._blobs:
            self._removed()
            self._blobs.pop(digest, None)

    def __iter__(self) -> Iterator[Digest]:
        """Yield the digests of all blobs, in no order."""
        return iter(list(self._blobs))

    def _get(self, digest: Digest) -> bytes:
        try:
            return self._blobs[digest]
        except KeyError:
            raise BlobNotFoundError(f"the blob {digest} is not in the store") from None


class MemoryBlobWriter:
    """Gathers one blob in memory."""

    def __init__(self, blobs: dict[Digest, bytes]) -> None:
        self._blobs = blobs
        self._data: bytearray | None = bytearray()

    def write(self, data: bytes | memoryview, /) -> int:
        """Append bytes and return their number."""
        if self._data is None:
            raise StoreError("a blob that was committed or thrown away can't be written to")
        before = len(self._data)
        self._data += memoryview(data).cast("B")
        return len(self._data) - before

    def commit(self, expected: Digest | None = None) -> tuple[Digest, int]:
        """Make the blob visible and return its digest and size. Atomic; nothing changes if it is there already.

        Raises:
            DigestMismatchError: the bytes are not those of `expected`; nothing was stored.
        """
        if self._data is None:
            raise StoreError("a blob that was committed or thrown away can't be committed")
        data, self._data = bytes(self._data), None
        if expected is not None:
            check_registered(expected)
        algorithm = expected.algorithm if expected else "sha256"
        digest = Digest(algorithm, hashlib.new(algorithm, data).hexdigest())
        if expected is not None and digest != expected:
            raise DigestMismatchError(
                f"the bytes of the blob {expected} have the digest {digest}",
                expected=str(expected),
                actual=str(digest),
            )
        self._blobs.setdefault(digest, data)
        return digest, len(data)

    def __enter__(self) -> MemoryBlobWriter:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Throw the bytes away unless they were committed."""
        self._data = None


class MemoryImages:
    """Images in memory. Safe for several threads."""

    def __init__(self, blobs: MemoryBlobStore, removed: Callable[[], object] = lambda: None) -> None:
        """Begin empty; `removed` is called before a tag is removed."""
        self._blobs = blobs
        self._removed = removed
        self._table = ImageTable()
        self._lock = threading.Lock()

    def get(self, reference: Reference) -> Descriptor | None:
        """Return the manifest or index that a reference names, or None."""
        return self._table.get(reference)

    def set_(self, reference: Reference, descriptor: Descriptor, created: float) -> None:
        """Make a reference name a manifest or index whose blobs are in the store. Atomic, idempotent.

        Raises:
            StoreError: the manifest is not in the store.
        """
        if self._blobs.size(descriptor.digest) is None:
            raise StoreError(f"{reference.familiar} can't name {descriptor.digest}, which is not in the store")
        self._change(lambda table: table.with_tag(reference, descriptor, created), removes=False)

    def keep(self, descriptor: Descriptor, created: float) -> None:
        """List an image without a name, unless it is listed. Atomic, idempotent."""
        self._change(lambda table: table.with_untagged(descriptor, created), removes=False)

    def remove(self, reference: Reference) -> bool:
        """Remove a tag and tell whether there was one. Atomic, idempotent."""
        return self._change(lambda table: table.without_tag(reference), removes=True)

    def remove_digest(self, digest: Digest) -> bool:
        """Remove all names and entries of one manifest, and tell whether there were any. Atomic, idempotent."""
        return self._change(lambda table: table.without_digest(digest), removes=True)

    def find(self, text: str) -> ImageRecord:
        """Return the image that a reference, a digest, or a unique beginning (4 digits or more) of one means.

        Raises:
            BlobNotFoundError: there is none.
            StoreError: several images are meant.
            InvalidReferenceError: it is neither a reference nor a digest.
        """
        return self._table.find(text, self._blobs)

    def __iter__(self) -> Iterator[ImageRecord]:
        """Yield all images, oldest entry first."""
        return iter(self._table.records)

    def _change(self, change: Callable[[ImageTable], ImageTable], *, removes: bool) -> bool:
        with self._lock:
            changed = change(self._table)
            if changed.records == self._table.records:
                return False
            if removes:
                self._removed()
            self._table = changed
            return True


class MemoryStore:
    """A store in memory.

    Attributes:
        blobs: the blobs.
        images: the tags.
    """

    def __init__(self) -> None:
        self._generation = 0
        self.blobs = MemoryBlobStore(self.bump_generation)
        self.images = MemoryImages(self.blobs, self.bump_generation)

    def generation(self) -> int:
        """Return the number of times that something was removed."""
        return self._generation

    def bump_generation(self) -> int:
        """Count a removal, before it is done, and return the new number."""
        self._generation += 1
        return self._generation
