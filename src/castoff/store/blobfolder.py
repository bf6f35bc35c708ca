"""Blobs as files of an OCI image layout: ``blobs/<algorithm>/<hex>``."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, BinaryIO

from castoff.errors import BlobNotFoundError, DigestMismatchError, InvalidReferenceError, StoreError
from castoff.oci.digest import Digest
from castoff.store.failure import store_error, translated
from castoff.store.removal import remove_tree

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType

    from castoff.store.durability import UnsyncedList
    from castoff.store.session import Session

REPAIR_HINT = "castoff doctor --store --repair removes what is damaged; then build or load the image again"
"""What to do about a blob that is not what its digest promises."""

_MODE = 0o644


class DirectoryBlobStore:
    """A BlobStore in a folder. Safe for several threads and processes."""

    def __init__(
        self,
        folder: str,
        session: Callable[[], Session],
        unsynced: UnsyncedList,
        removed: Callable[[], None],
    ) -> None:
        """Take an existing folder.

        Args:
            folder: absolute path of ``blobs``.
            session: gives the session in whose folder new blobs are written; called at the first write.
            unsynced: notes what is not known to be on the disk.
            removed: called before blobs are removed.
        """
        self._folder = folder
        self._session = session
        self._unsynced = unsynced
        self._removed = removed

    def path(self, digest: Digest) -> str:
        """Return the absolute path where a blob is, or would be."""
        return f"{self._folder}/{digest.algorithm}/{digest.hex}"

    def size(self, digest: Digest) -> int | None:
        """Return the size of a blob in bytes, or None where it is not there. One stat call."""
        try:
            return os.stat(self.path(digest)).st_size
        except FileNotFoundError:
            return None
        except OSError as error:
            raise store_error(error, f"look up the blob {digest}") from error

    def open_(self, digest: Digest) -> BinaryIO:
        """Open a blob for reading; it has a file descriptor. Its bytes are not verified on the way.

        Raises:
            BlobNotFoundError: it is not there.
            StoreError: it can't be read.
        """
        try:
            return open(self.path(digest), "rb")
        except FileNotFoundError as error:
            raise _not_found(digest) from error
        except OSError as error:
            raise store_error(error, f"open the blob {digest}") from error

    def read(self, digest: Digest, limit: int = 4 << 20) -> bytes:
        """Return a small blob whole, verified.

        Raises:
            BlobNotFoundError: it is not there.
            DigestMismatchError: the bytes are not those of the digest.
            StoreError: it is larger than `limit` bytes, or can't be read.
        """
        with self.open_(digest) as file:
            try:
                data = file.read(limit + 1)
            except OSError as error:
                raise store_error(error, f"read the blob {digest}") from error
        return verified(data, digest, limit)

    def writer(self) -> FileBlobWriter:
        """Begin a new blob in the session's folder.

        Raises:
            StoreError: the store can't be written.
        """
        return FileBlobWriter(self._session().new_file(), self.path, self._unsynced)

    def add(self, data: bytes) -> Digest:
        """Store bytes and return their digest. Atomic, idempotent.

        Raises:
            StoreError: the store can't be written.
        """
        digest = Digest.of(data)
        with translated(f"look up the blob {digest}"):
            if holds(self.path(digest), digest, len(data)):
                return digest
        with self.writer() as writer:
            writer.write(data)
            return writer.commit(digest)[0]

    def delete(self, digest: Digest) -> None:
        """Remove a blob. Atomic, idempotent.

        Raises:
            StoreError: the store can't be written.
        """
        self.delete_all([digest])

    def delete_all(self, digests: Iterable[Digest]) -> int:
        """Remove several blobs, and return how many bytes that freed. Idempotent.

        Raises:
            StoreError: the store can't be written.
        """
        freed = 0
        present = [(digest, size) for digest in digests if (size := self.size(digest)) is not None]
        if present:
            self._removed()
        for digest, size in present:
            try:
                os.unlink(self.path(digest))
            except FileNotFoundError:
                continue
            except OSError as error:
                raise store_error(error, f"remove the blob {digest}") from error
            freed += size
        return freed

    def sync(self) -> None:
        """Wait until every blob written so far, by whichever process, is on the disk. Idempotent.

        Raises:
            StoreError: the disk failed, or is full.
        """
        with translated("write the store's blobs to the disk"):
            self._unsynced.sync()

    def __iter__(self) -> Iterator[Digest]:
        """Yield the digests of all blobs, in no order; files that are no blobs are left out."""
        try:
            algorithms = os.listdir(self._folder)
        except FileNotFoundError:
            return
        except OSError as error:
            raise store_error(error, f"list the blobs in {self._folder}") from error
        for algorithm in algorithms:
            try:
                names = os.listdir(f"{self._folder}/{algorithm}")
            except OSError:
                continue
            for name in names:
                try:
                    yield Digest.parse(f"{algorithm}:{name}")
                except InvalidReferenceError:
                    continue


class FileBlobWriter:
    """Writes one blob to a temporary file and hashes it on the way. Not safe for several threads."""

    def __init__(self, file: io.FileIO, place: Callable[[Digest], str], unsynced: UnsyncedList) -> None:
        self._file = file
        self._temporary = str(file.name)
        self._place = place
        self._unsynced = unsynced
        self._hash = hashlib.sha256()
        self._size = 0

    def write(self, data: bytes | memoryview, /) -> int:
        """Append bytes and return their number.

        Raises:
            StoreError: the store can't be written (full, read-only).
        """
        view = memoryview(data).cast("B")
        self._hash.update(view)
        fd, length, done = self._file.fileno(), len(view), 0
        try:
            while done < length:
                done += os.write(fd, view[done:] if done else view)
        except OSError as error:
            self.close()
            raise store_error(error, "write a blob to the store") from error
        self._size += length
        return length

    def commit(self, expected: Digest | None = None) -> tuple[Digest, int]:
        """Make the blob visible and return its digest and size. Atomic; nothing changes if it is there already.

        It is on the disk for certain only after the store's `sync`.

        Raises:
            DigestMismatchError: the bytes are not those of `expected`; nothing was stored.
            StoreError: the store can't be written.
        """
        try:
            digest = self._digest(expected)
            if expected is not None and digest != expected:
                raise DigestMismatchError(
                    f"the bytes of the blob {expected} have the digest {digest}",
                    expected=str(expected),
                    actual=str(digest),
                    hint="it was damaged on the way, or changed by somebody: get it again",
                )
            with translated(f"store the blob {digest}"):
                self._publish(digest)
        finally:
            self.close()
        return digest, self._size

    def _digest(self, expected: Digest | None) -> Digest:
        if expected is None or expected.algorithm == "sha256":
            return Digest("sha256", self._hash.hexdigest())
        check_registered(expected)
        with translated("read back a blob of the store"):
            self._file.seek(0)
            return Digest(expected.algorithm, hashlib.file_digest(self._file, expected.algorithm).hexdigest())

    def _publish(self, digest: Digest) -> None:
        place = self._place(digest)
        if holds(place, digest, self._size):
            return
        os.fchmod(self._file.fileno(), _MODE)
        self._unsynced.note(f"{digest.algorithm}/{digest.hex}")
        try:
            os.rename(self._temporary, place)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(place), 0o755, exist_ok=True)
            os.rename(self._temporary, place)

    def close(self) -> None:
        """Throw the bytes away unless they were committed. Idempotent."""
        if not self._file.closed:
            self._file.close()
            remove_tree(self._temporary)

    def __enter__(self) -> FileBlobWriter:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Throw the bytes away unless they were committed."""
        self.close()


def holds(path: str, digest: Digest, size: int) -> bool:
    """Tell whether a file is there and has the bytes of a digest; it is read only where its size is right.

    Raises:
        OSError: it can't be read.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            if os.fstat(file.fileno()).st_size != size:
                return False
            return hashlib.file_digest(file, digest.algorithm).hexdigest() == digest.hex
    except FileNotFoundError:
        return False


def verified(data: bytes, digest: Digest, limit: int) -> bytes:
    """Return the bytes of a blob if they are what they should be.

    Raises:
        StoreError: they are more than `limit`, or the digest is of an algorithm that can't be computed.
        DigestMismatchError: they are not those of the digest.
    """
    if len(data) > limit:
        raise StoreError(f"the blob {digest} is larger than the {limit} bytes that are read at once")
    check_registered(digest)
    actual = hashlib.new(digest.algorithm, data).hexdigest()
    if actual != digest.hex:
        raise DigestMismatchError(
            f"the blob {digest} in the store is damaged: its bytes have the digest {digest.algorithm}:{actual}",
            expected=str(digest),
            actual=f"{digest.algorithm}:{actual}",
            hint=REPAIR_HINT,
        )
    return data


def check_registered(digest: Digest) -> None:
    """Refuse a digest that nothing can be verified against.

    Raises:
        StoreError: its algorithm is not one that can be computed here.
    """
    if not digest.is_registered:
        raise StoreError(f"the blob {digest} can't be verified: {digest.algorithm} is not an algorithm of castoff's")


def _not_found(digest: Digest) -> BlobNotFoundError:
    return BlobNotFoundError(f"the blob {digest} is not in the store", hint="build, load or pull the image again")
