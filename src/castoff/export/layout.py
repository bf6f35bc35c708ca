"""OCI image layouts: ``type=oci``, as an archive or as a folder.

References: OCI image specification, "OCI Image Layout Specification".
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from castoff.errors import ExportError, InvalidImageError
from castoff.export.bundle import SENDING, Progress, write_bundle
from castoff.export.contents import LAYOUT, BlobFile, collect_blobs, entries_of
from castoff.export.exporter import ExportReport, ImageResult
from castoff.export.placement import failing_as_export, new_file, placed_folder, sweep_files
from castoff.export.transfer import send_blob
from castoff.oci.descriptor import FULL_NAME, REF_NAME, Descriptor
from castoff.oci.jsontext import MAX_DOCUMENT
from castoff.oci.manifest import Index
from castoff.store.blobfolder import holds
from castoff.store.removal import remove_tree
from castoff.store.replacement import replace_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import BinaryIO

    from castoff.events import Observer


class LayoutExporter:
    """Writes OCI image layouts.

    Args:
        dest: the path of an archive, ``-`` for `stdout`; or of a folder.
        tar: whether to write an archive.
        stdout: standard output, for ``-``.
    """

    def __init__(self, dest: str, *, tar: bool = True, stdout: BinaryIO | None = None) -> None:
        self._dest = dest
        self._tar = tar
        self._stdout = stdout

    def export(self, result: ImageResult, observer: Observer, vertex: str = "") -> ExportReport:
        """Write one image; see `Exporter`."""
        return self.export_all([result], observer, vertex)

    def export_all(self, results: Sequence[ImageResult], observer: Observer, vertex: str = "") -> ExportReport:
        """Write several images into one layout; see `Exporter`. Blobs that they share are written once."""
        if not results:
            raise ExportError("there is no image to write")
        blobs = collect_blobs(results)
        entries = tuple(entry for result in results for entry in entries_of(result))
        progress = Progress(observer, vertex, SENDING, sum(blob.size for blob in blobs))
        if self._tar:
            documents = {"index.json": Index(entries).to_bytes(), "oci-layout": LAYOUT}
            size = write_bundle(self._dest, documents, blobs, progress, self._stdout)
        else:
            size = write_folder(self._dest, entries, blobs, progress)
        return ExportReport(self._dest, results[0].descriptor.digest, size)


def write_folder(dest: str, entries: Sequence[Descriptor], blobs: Sequence[BlobFile], progress: Progress) -> int:
    """Write images into a layout folder, which is made, or added to, and return the number of bytes written.

    A tag that the folder has already is replaced. A new folder appears whole; in one that exists, blobs come first and
    the index last, so that a reader sees the old or the new state.

    Raises:
        ExportError: the folder is something else, or can't be written.
        StoreError: a blob is missing or damaged.
    """
    with failing_as_export(f"write the image layout {dest}"):
        path = os.path.realpath(dest)
        if _is_fresh(path, dest):
            with _taking_place(path), placed_folder(path) as target:
                _fill(target, blobs, progress)
                _write_index(target, dest, entries)
        else:
            _fill(path, blobs, progress)
            with _locked(path):
                _write_index(path, dest, entries)
    progress.finish()
    return progress.done


@contextmanager
def _opened(folder: str) -> Iterator[int]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _locked(folder: str) -> Iterator[None]:
    """Hold the lock of a folder itself, which leaves no file behind."""
    with _opened(folder) as fd:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield


def _is_fresh(path: str, dest: str) -> bool:
    """Tell whether the folder is still to be made.

    Raises:
        ExportError: it is a file, or a folder that is neither empty nor a layout.
    """
    try:
        names = os.listdir(path)
    except FileNotFoundError:
        return True
    except NotADirectoryError as error:
        raise ExportError(
            f"can't write the image layout {dest}: it is a file", hint="name a folder, or say tar=true for an archive"
        ) from error
    if names and "oci-layout" not in names:
        raise ExportError(
            f"can't write the image layout {dest}: the folder is neither empty nor an image layout",
            hint="name a new folder",
        )
    return not names


@contextmanager
def _taking_place(path: str) -> Iterator[None]:
    try:
        yield
    except NotADirectoryError as error:
        raise ExportError(f"can't write the image layout {path}: a file has been made there meanwhile") from error


def _fill(target: str, blobs: Sequence[BlobFile], progress: Progress) -> None:
    for folder in sorted({os.path.dirname(f"{target}/{blob.name}") for blob in blobs} | {f"{target}/blobs/sha256"}):
        os.makedirs(folder, exist_ok=True)
        with _opened(folder) as fd:
            sweep_files(fd)
    for blob in blobs:
        place = f"{target}/{blob.name}"
        if holds(place, blob.digest, blob.size):
            continue
        fd, temporary = new_file(place)
        try:
            send_blob(blob.blobs, blob.digest, blob.size, fd, progress.add)
            os.rename(temporary, place)
        except BaseException:
            remove_tree(temporary)
            raise
        finally:
            os.close(fd)


def _write_index(target: str, dest: str, entries: Sequence[Descriptor]) -> None:
    try:
        with open(f"{target}/index.json", "rb") as file:
            index = Index.parse(file.read(MAX_DOCUMENT + 1))
    except FileNotFoundError:
        index = Index(())
    except InvalidImageError as error:
        raise ExportError(f"can't add to the image layout {dest}: {error.message}") from error
    kept = [old for old in index.manifests if not any(_replaces(new, old) for new in entries)]
    data = Index((*kept, *entries), index.media_type, index.annotations).to_bytes()
    if not os.path.exists(f"{target}/oci-layout"):
        replace_file(f"{target}/oci-layout", LAYOUT, locked=True)
    replace_file(f"{target}/index.json", data, locked=True)


def _replaces(new: Descriptor, old: Descriptor) -> bool:
    """Tell whether an entry takes the place of another: it has the same name, or is the same image without one."""
    for key in (FULL_NAME, REF_NAME):
        if new.annotation(key) and old.annotation(key):
            return new.annotation(key) == old.annotation(key)
    return new.digest == old.digest and not old.annotation(REF_NAME)
