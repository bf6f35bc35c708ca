"""Taking blobs out of archives into a store, verified on the way."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from castoff.errors import DigestMismatchError, InvalidImageError
from castoff.image.validate import blob_digest

if TYPE_CHECKING:
    from castoff.image.archivefiles import ImageFiles
    from castoff.oci.descriptor import Descriptor
    from castoff.oci.digest import Digest
    from castoff.oci.reference import Reference
    from castoff.store.blobs import BlobStore


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """An image that came into the store.

    Attributes:
        descriptor: its manifest, or its index.
        references: the names that it has in the archive; none where these are no references.
        config_digest: Docker's image id; None for an index.
    """

    descriptor: Descriptor
    references: tuple[Reference, ...]
    config_digest: Digest | None


def take(blobs: BlobStore, files: ImageFiles, name: str, expected: Digest, size: int | None = None) -> int:
    """Copy one file into the store as the blob of a digest, unless it is there whole, and return its size. Idempotent.

    Args:
        blobs: the store.
        files: the archive.
        name: the file.
        expected: the digest that it must have.
        size: the bytes that it must have; None where nothing says so.

    Raises:
        InvalidImageError: it is missing, or of another size.
        DigestMismatchError: it is not what its digest promises.
        StoreError: the store can't be written.
    """
    actual = files.size(name)
    present = blobs.size(expected)
    if present is not None and present in (size, actual) and blob_digest(blobs, expected) == expected:
        return present
    if actual is None:
        raise InvalidImageError(f"{files.name} lacks the blob {expected}")
    if size is not None and actual != size:
        raise InvalidImageError(
            f"the blob {expected} in {files.name} has {actual} bytes, and its descriptor says {size}"
        )
    with blobs.writer() as writer:
        with contextlib.closing(files.iter_(name)) as pieces:
            for piece in pieces:
                writer.write(piece)
        try:
            return writer.commit(expected)[1]
        except DigestMismatchError as error:
            raise DigestMismatchError(
                f"the file {name!r} in {files.name} is damaged: it has the digest {error.actual}",
                expected=error.expected,
                actual=error.actual,
            ) from error
