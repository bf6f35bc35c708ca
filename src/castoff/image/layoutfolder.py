"""An OCI image layout in a folder, read where it lies."""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING, BinaryIO

from castoff.errors import BlobNotFoundError, InvalidImageError, InvalidReferenceError, StoreError
from castoff.image.image import StoredImage
from castoff.image.validate import blob_digest
from castoff.oci.descriptor import FULL_NAME, REF_NAME, Descriptor
from castoff.oci.manifest import Index
from castoff.oci.reference import Reference
from castoff.store.blobfolder import verified

if TYPE_CHECKING:
    from castoff.oci.digest import Digest
    from castoff.oci.platform import Platform
    from castoff.store.blobs import BlobStore

_MAX_INDEX = 4 << 20
_BLOCK = 1 << 20


class LayoutFolder:
    """A layout folder as a source of images; nothing is ever written to it.

    Attributes:
        path: host path of the folder.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    @property
    def index_path(self) -> str:
        """Host path of its index."""
        return os.path.join(self.path, "index.json")

    def _blob(self, digest: Digest) -> str:
        return os.path.join(self.path, "blobs", digest.algorithm, digest.hex)

    def size(self, digest: Digest) -> int | None:
        """Return the size of a blob in bytes, or None where it is not there."""
        try:
            return os.stat(self._blob(digest)).st_size
        except OSError:
            return None

    def open_(self, digest: Digest) -> BinaryIO:
        """Open a blob for reading; its bytes are not verified on the way.

        Raises:
            BlobNotFoundError: it is not there.
        """
        try:
            # A FIFO in the folder must not stall the program.
            fd = os.open(self._blob(digest), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise BlobNotFoundError(f"the layout {self.path} lacks the blob {digest}") from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise BlobNotFoundError(f"the blob {digest} of the layout {self.path} is no regular file")
        return os.fdopen(fd, "rb")

    def read(self, digest: Digest, limit: int = 4 << 20) -> bytes:
        """Return a small blob whole, verified.

        Raises:
            BlobNotFoundError: it is not there.
            DigestMismatchError: the bytes are not those of the digest.
            StoreError: it is larger than `limit`.
        """
        with self.open_(digest) as file:
            data = file.read(limit + 1)
        return verified(data, digest, limit)

    def choose(self, tag: str = "", digest: str = "") -> Descriptor:
        """Return the manifest or index that a tag or a digest names; the only one there is without either.

        Raises:
            StoreError: it is no layout, or not one image is meant.
            InvalidImageError: its index is not valid.
        """
        manifests = self._index().manifests
        if digest:
            chosen = tuple(item for item in manifests if str(item.digest) == digest)
        elif tag:
            chosen = tuple(item for item in manifests if _is_tagged(item, tag))
        else:
            chosen = manifests
        if len({item.digest for item in chosen}) == 1:
            return chosen[0]
        names = sorted({item.annotation(REF_NAME) for item in manifests} - {""})
        problem = "several images" if chosen else "no image of that name" if tag or digest else "no image"
        raise StoreError(
            f"the layout {self.path} holds {problem}",
            hint=f"it holds {', '.join(names)}" if names else "check the folder",
        )

    def _index(self) -> Index:
        try:
            with open(self.index_path, "rb") as file:
                data = file.read(_MAX_INDEX)
        except OSError as error:
            raise StoreError(
                f"{self.path} is not an OCI image layout: {error.strerror}", hint="name a folder with an index.json"
            ) from error
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            value.setdefault("schemaVersion", 2)
            data = json.dumps(value).encode()
        return Index.parse(data)

    def take(self, descriptor: Descriptor, blobs: BlobStore, platform: Platform) -> StoredImage:
        """Copy the image that fits a platform into a store, verified, and return it there.

        Raises:
            StoreError: a blob is missing, damaged, or can't be written.
            InvalidImageError: a document is not valid.
        """
        image = StoredImage.open_(self, descriptor, platform)  # type: ignore[arg-type]  # only ever read
        manifest = image.manifest()
        for item in (*manifest.layers, manifest.config, image.descriptor):
            if blobs.size(item.digest) == item.size and blob_digest(blobs, item.digest) == item.digest:
                continue
            actual = self.size(item.digest)
            if actual is not None and actual != item.size:
                raise InvalidImageError(
                    f"the blob {item.digest} of the layout {self.path} has {actual} bytes, and its descriptor says "
                    f"{item.size}"
                )
            with self.open_(item.digest) as blob, blobs.writer() as writer:
                left = item.size
                while left and (data := blob.read(min(_BLOCK, left))):
                    left -= len(data)
                    writer.write(data)
                writer.commit(item.digest)
        return StoredImage(blobs, image.descriptor)


def _is_tagged(item: Descriptor, tag: str) -> bool:
    """Tell whether an entry of an index has a name: the whole of it, its tag, or as the same reference."""
    names = {item.annotation(REF_NAME), item.annotation(FULL_NAME)} - {""}
    if tag in names or any(name.endswith(":" + tag) for name in names):
        return True
    wanted = _reference(tag)
    return wanted is not None and any(_reference(name) == wanted for name in names)


def _reference(text: str) -> Reference | None:
    try:
        return Reference.parse(text)
    except InvalidReferenceError:
        return None
