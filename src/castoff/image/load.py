"""Loading images: from Docker archives, OCI archives and OCI layout folders, compressed or not.

References: OCI image specification, "OCI Image Layout Specification"; Docker image specification v1.2, "Combined
Image JSON + Filesystem Changeset Format".
"""

from __future__ import annotations

import os
import stat
import time
from typing import TYPE_CHECKING

from castoff.errors import InvalidImageError
from castoff.image.archivefiles import FolderFiles, TarFiles
from castoff.image.ingest import LoadedImage
from castoff.image.load_docker import load_docker
from castoff.image.load_layout import load_layout
from castoff.image.spool import spool
from castoff.layer.decompression import HEAD, sniff
from castoff.store.failure import translated

if TYPE_CHECKING:
    from typing import BinaryIO

    from castoff.image.archivefiles import ImageFiles
    from castoff.store.directory import DirectoryStore

__all__ = ["LoadedImage", "load", "load_stream"]


def load(path: str, store: DirectoryStore, created: float | None = None) -> list[LoadedImage]:
    """Load all images of an archive or a layout folder, and tag them as the archive says.

    Every blob is verified against its digest, a Docker archive's layers against their diff_ids, before anything is
    tagged. Layers stay as they are, compressed or not. An image without a name is listed without one.

    Args:
        path: a Docker or OCI archive, which may be compressed (gzip, zstd, bzip2, xz), or an OCI layout folder.
        store: where the images go.
        created: now, in seconds since the epoch; None for the clock's time.

    Raises:
        InvalidImageError: it is no image archive, or damaged.
        DigestMismatchError: a blob is not what its digest promises.
        StoreError: it can't be read, or the store can't be written.
    """
    if os.path.isdir(path):
        return _load_files(FolderFiles(path), store, created)
    with translated(f"read {path}"), open(path, "rb", buffering=0) as file:
        return load_stream(file, store, path, created)


def load_stream(
    source: BinaryIO, store: DirectoryStore, name: str = "the archive", created: float | None = None
) -> list[LoadedImage]:
    """Load all images of an archive that is read from an open file or a pipe; see `load`.

    Args:
        source: the archive at its beginning, with a descriptor. A regular file that is not compressed is read in
            place, anything else is first written to a temporary file in the store.
        store: where the images go.
        name: names it in messages.
        created: now, in seconds since the epoch; None for the clock's time.

    Raises:
        InvalidImageError: it is no image archive, or damaged.
        DigestMismatchError: a blob is not what its digest promises.
        StoreError: it can't be read, or the store can't be written.
    """
    with translated(f"read {name}"):
        fd = source.fileno()
        if stat.S_ISREG(os.fstat(fd).st_mode) and sniff(os.pread(fd, HEAD, 0)) == "none":
            return _load_files(TarFiles(fd, name), store, created)
    with store.session().new_file() as temporary:
        try:
            with translated(f"write out {name}"):
                spool(source, temporary, name)
            return _load_files(TarFiles(temporary.fileno(), name), store, created)
        finally:
            os.unlink(temporary.name)


def _load_files(files: ImageFiles, store: DirectoryStore, created: float | None) -> list[LoadedImage]:
    store.session()  # from here on no other process collects what is being put together
    if files.size("oci-layout") is not None and files.size("index.json") is not None:
        images = load_layout(files, store.blobs)
    elif files.size("manifest.json") is not None:
        images = load_docker(files, store.blobs)
    else:
        raise InvalidImageError(
            f"{files.name} is neither a Docker archive (it has no manifest.json) nor an OCI image layout (it has no"
            " oci-layout and index.json)",
            hint="docker save, skopeo copy and castoff save write archives that can be loaded",
        )
    now = time.time() if created is None else created
    for image in images:
        for reference in image.references:
            store.images.set_(reference, image.descriptor, now)
        if not image.references:
            store.images.keep(image.descriptor, now)
    return images
