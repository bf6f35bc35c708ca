"""The protocol of a store of blobs, named by the digest of their bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from castoff.oci.digest import Digest


class BlobWriter(Protocol):
    """Takes the bytes of one blob. A context manager: without a commit, leaving it throws the bytes away."""

    def write(self, data: bytes | memoryview, /) -> int:
        """Append bytes and return their number.

        Raises:
            StoreError: the store can't be written (full, read-only).
        """

    def commit(self, expected: Digest | None = None) -> tuple[Digest, int]:
        """Make the blob visible and return its digest and size. Atomic; nothing changes if it is there already.

        Raises:
            DigestMismatchError: the bytes are not those of `expected`; nothing was stored.
            StoreError: the store can't be written.
        """

    def __enter__(self) -> BlobWriter:
        """Return itself."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Throw the bytes away unless they were committed."""


class BlobStore(Protocol):
    """Blobs by digest. Safe for several threads and processes."""

    def size(self, digest: Digest) -> int | None:
        """Return the size of a blob in bytes, or None where it is not there."""

    def open_(self, digest: Digest) -> BinaryIO:
        """Open a blob for reading; its bytes are not verified on the way.

        Raises:
            BlobNotFoundError: it is not there.
        """

    def read(self, digest: Digest, limit: int = 4 << 20) -> bytes:
        """Return a small blob whole, verified.

        Raises:
            BlobNotFoundError: it is not there.
            DigestMismatchError: the bytes are not those of the digest.
            StoreError: it is larger than `limit`.
        """

    def writer(self) -> BlobWriter:
        """Begin a new blob."""

    def add(self, data: bytes) -> Digest:
        """Store bytes and return their digest. Atomic, idempotent."""

    def delete(self, digest: Digest) -> None:
        """Remove a blob. Atomic, idempotent."""

    def __iter__(self) -> Iterator[Digest]:
        """Yield the digests of all blobs, in no order."""
