"""Moving the bytes of blobs to where they are wanted, each verified on its way."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from castoff.errors import DigestMismatchError, StoreError
from castoff.store.blobfolder import REPAIR_HINT, check_registered

if TYPE_CHECKING:
    from collections.abc import Callable

    from castoff.oci.digest import Digest
    from castoff.store.blobs import BlobStore

_PIECE = 1 << 20


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
    """Write a blob to a descriptor, verify on the way that it is what its digest promises, and return its size.

    What was written before an error is the caller's to throw away. No way of the kernel's own to copy is used: the
    bytes that are written must be the very ones that were hashed.

    Args:
        blobs: where it is.
        digest: which one.
        size: how many bytes it must have.
        fd: open for writing, at the place where the blob goes; a file, a pipe or a socket.
        moved: called with the number of bytes of each step.

    Raises:
        BlobNotFoundError: it is not there.
        StoreError: it has another size.
        DigestMismatchError: its bytes are not those of its digest.
        OSError: the descriptor refuses.
    """
    check_registered(digest)
    running = hashlib.new(digest.algorithm)
    sent = 0
    with blobs.open_(digest) as source:
        while sent < size and (piece := source.read(min(_PIECE, size - sent))):
            running.update(piece)
            write_all(fd, piece)
            sent += len(piece)
            moved(len(piece))
        if sent != size or source.read(1):
            raise StoreError(
                f"the blob {digest} in the store does not have the {size} bytes that it should have", hint=REPAIR_HINT
            )
    actual = running.hexdigest()
    if actual != digest.hex:
        raise DigestMismatchError(
            f"the blob {digest} in the store is damaged: its bytes have the digest {digest.algorithm}:{actual}",
            expected=str(digest),
            actual=f"{digest.algorithm}:{actual}",
            hint=REPAIR_HINT,
        )
    return size
