"""Moving the bytes of blobs to where they are wanted, inside the kernel where it can."""

from __future__ import annotations

import errno
import io
import os
from typing import TYPE_CHECKING

from castoff.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

    from castoff.oci.digest import Digest
    from castoff.store.blobs import BlobStore

_STEP = 64 << 20
_PIECE = 1 << 20
_REFUSED = frozenset(
    {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM, errno.ETXTBSY, errno.ESPIPE}
)


def write_all(fd: int, data: bytes | memoryview) -> int:
    """Write all of some bytes and return their number.

    Raises:
        OSError: the descriptor refuses.
    """
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    return len(data)


def send_blob(
    blobs: BlobStore, digest: Digest, size: int, fd: int, moved: Callable[[int], None] = lambda _: None
) -> int:
    """Write a blob to a descriptor and return its size.

    Args:
        blobs: where it is.
        digest: which one.
        size: how many bytes it must have.
        fd: open for writing, at the place where the blob goes; a file, a pipe or a socket.
        moved: called with the number of bytes of each step.

    Raises:
        BlobNotFoundError: it is not there.
        StoreError: it has another size.
        OSError: the descriptor refuses.
    """
    with blobs.open_(digest) as source:
        try:
            descriptor = source.fileno()
        except io.UnsupportedOperation:
            sent = _copy(source, fd, size, moved)
        else:
            sent = _send(descriptor, fd, size, moved)
        if sent != size or blobs.size(digest) not in (None, size):
            raise StoreError(
                f"the blob {digest} in the store does not have the {size} bytes that it should have",
                hint="remove it with castoff prune and build or load the image again",
            )
    return size


def _send(source: int, fd: int, size: int, moved: Callable[[int], None]) -> int:
    """Let the kernel move the bytes, by the best of its ways that these two files allow."""

    def by_range(done: int, count: int) -> int:
        return os.copy_file_range(source, fd, count, offset_src=done)

    def by_sendfile(done: int, count: int) -> int:
        return os.sendfile(fd, source, done, count)

    def by_copy(done: int, count: int) -> int:
        return write_all(fd, os.pread(source, min(count, _PIECE), done))

    ways = [by_range, by_sendfile, by_copy]
    done = 0
    while done < size:
        try:
            count = ways[0](done, min(_STEP, size - done))
        except OSError as error:
            if error.errno not in _REFUSED or len(ways) == 1:
                raise
            del ways[0]
            continue
        if count == 0:
            if len(ways) == 1:
                break
            # Some file systems answer copy_file_range with 0 where they mean that they can't.
            del ways[0]
            continue
        done += count
        moved(count)
    return done


def _copy(source: BinaryIO, fd: int, size: int, moved: Callable[[int], None]) -> int:
    done = 0
    while done < size and (piece := source.read(min(_PIECE, size - done))):
        done += write_all(fd, piece)
        moved(len(piece))
    return done
