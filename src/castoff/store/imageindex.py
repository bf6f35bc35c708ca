"""The images of a store in a folder: the entries of the layout's ``index.json``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from castoff.errors import InvalidImageError, StoreError
from castoff.oci.manifest import Index
from castoff.store.failure import translated
from castoff.store.images import ImageRecord, ImageTable
from castoff.store.locking import exclusive
from castoff.store.replacement import replace_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from castoff.oci.descriptor import Descriptor
    from castoff.oci.digest import Digest
    from castoff.oci.reference import Reference
    from castoff.store.blobs import BlobStore

_LIMIT = 64 << 20


class DirectoryImages:
    """Images in the ``index.json`` of a folder. Readers take no lock: the file is only ever replaced whole."""

    def __init__(self, root: str, blobs: BlobStore, sync: Callable[[], None], removed: Callable[[], None]) -> None:
        """Take an existing store.

        Args:
            root: the store's folder.
            blobs: where the manifests are.
            sync: called before a tag is written, so that the disk has what it names.
            removed: called, with the lock held, before a tag is taken away.
        """
        self._path = f"{root}/index.json"
        self._lock = f"{root}/index.lock"
        self._blobs = blobs
        self._sync = sync
        self._removed = removed
        self._cached: tuple[tuple[int, int, int], ImageTable, Index] | None = None

    def get(self, reference: Reference) -> Descriptor | None:
        """Return the manifest or index that a reference names, or None.

        Raises:
            StoreError: the list can't be read.
        """
        return self._read()[0].get(reference)

    def set_(self, reference: Reference, descriptor: Descriptor, created: float) -> None:
        """Make a reference name a manifest or index whose blobs are in the store. Atomic, idempotent, durable.

        Raises:
            StoreError: the store can't be written, or the manifest is not in it.
        """
        if self._blobs.size(descriptor.digest) is None:
            raise StoreError(f"{reference.familiar} can't name {descriptor.digest}, which is not in the store")
        self._sync()
        self._change(lambda table: table.with_tag(reference, descriptor, created), removes=False)

    def keep(self, descriptor: Descriptor, created: float) -> None:
        """List an image without a name, unless it is listed. Atomic, idempotent, durable.

        Raises:
            StoreError: the store can't be written.
        """
        self._sync()
        self._change(lambda table: table.with_untagged(descriptor, created), removes=False)

    def remove(self, reference: Reference) -> bool:
        """Remove a tag and tell whether there was one; blobs stay until they are collected. Atomic, idempotent.

        Raises:
            StoreError: the store can't be written.
        """
        return self._change(lambda table: table.without_tag(reference), removes=True)

    def remove_digest(self, digest: Digest) -> bool:
        """Remove all names and entries of one manifest, and tell whether there were any. Atomic, idempotent.

        Raises:
            StoreError: the store can't be written.
        """
        return self._change(lambda table: table.without_digest(digest), removes=True)

    def find(self, text: str) -> ImageRecord:
        """Return the image that a reference, a digest, or a unique beginning (4 digits or more) of one means.

        Raises:
            BlobNotFoundError: there is none.
            StoreError: several images are meant.
            InvalidReferenceError: it is neither a reference nor a digest.
        """
        return self._read()[0].find(text, self._blobs)

    def __iter__(self) -> Iterator[ImageRecord]:
        """Yield all images, oldest entry first."""
        return iter(self._read()[0].records)

    def _read(self) -> tuple[ImageTable, Index]:
        with translated("read the store's list of images"), open(self._path, "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
            cached = self._cached
            if cached is not None and cached[0] == stamp:
                return cached[1], cached[2]
            data = file.read(_LIMIT)
        try:
            index = Index.parse(data)
        except InvalidImageError as error:
            raise StoreError(
                f"the store's list of images, {self._path}, can't be read: {error.message}",
                hint="put back a copy of it, or move the store away",
            ) from error
        table = ImageTable(ImageRecord.from_descriptor(descriptor) for descriptor in index.manifests)
        self._cached = (stamp, table, index)
        return table, index

    def _change(self, change: Callable[[ImageTable], ImageTable], *, removes: bool) -> bool:
        with translated("write the store's list of images"), exclusive(self._lock):
            table, index = self._read()
            changed = change(table)
            if changed.records == table.records:
                return False
            if removes:
                self._removed()
            descriptors = tuple(record.to_descriptor() for record in changed.records)
            data = Index(descriptors, index.media_type, index.annotations).to_bytes()
            replace_file(self._path, data, durable=True, locked=True)
            return True
