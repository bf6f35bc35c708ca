"""Docker archives: ``type=docker``, what ``docker load`` reads.

The archive is an OCI image layout with Docker's ``manifest.json`` beside its index, as docker save writes it since
version 25, so that old and new readers find what they look for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from castoff.errors import ExportError, InvalidImageError
from castoff.export.bundle import SENDING, Progress, write_bundle
from castoff.export.contents import LAYOUT, BlobFile, collect_blobs, entries_of
from castoff.export.exporter import ExportReport, ImageResult
from castoff.image.image import StoredImage, iter_manifests
from castoff.oci import mediatypes
from castoff.oci.jsontext import dump
from castoff.oci.manifest import Index

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import BinaryIO

    from castoff.events import Observer
    from castoff.oci.descriptor import Descriptor


class DockerArchiveExporter:
    """Writes Docker archives.

    Args:
        dest: the path of the archive, or ``-`` for `stdout`.
        stdout: standard output, for ``-``.
    """

    def __init__(self, dest: str, *, stdout: BinaryIO | None = None) -> None:
        self._dest = dest
        self._stdout = stdout

    def export(self, result: ImageResult, observer: Observer, vertex: str = "") -> ExportReport:
        """Write one image; see `Exporter`."""
        return self.export_all([result], observer, vertex)

    def export_all(self, results: Sequence[ImageResult], observer: Observer, vertex: str = "") -> ExportReport:
        """Write several images into one archive; see `Exporter`. Layers that they share are written once."""
        if not results:
            raise ExportError("there is no image to write")
        blobs = collect_blobs(results)
        entries = tuple(entry for result in results for entry in entries_of(result))
        documents = {
            "index.json": Index(entries).to_bytes(),
            "manifest.json": dump([_manifest(result) for result in results]),
            "oci-layout": LAYOUT,
        }
        progress = Progress(observer, vertex, SENDING, sum(blob.size for blob in blobs))
        size = write_bundle(self._dest, documents, blobs, progress, self._stdout)
        return ExportReport(self._dest, results[0].descriptor.digest, size)


def _manifest(result: ImageResult) -> dict[str, object]:
    """Return the entry of ``manifest.json`` for one image."""
    image = StoredImage(result.blobs, _single(result))
    tags = [reference.familiar for reference in result.references if reference.tag and not reference.digest]
    return {
        "Config": BlobFile(image.config_digest(), 0, result.blobs).name,
        "RepoTags": tags or None,
        "Layers": [BlobFile(layer.descriptor.digest, 0, result.blobs).name for layer in image.layers()],
    }


def _single(result: ImageResult) -> Descriptor:
    """Return the one manifest of an image.

    Raises:
        ExportError: there are several.
    """
    if result.descriptor.media_type in mediatypes.MANIFESTS:
        return result.descriptor
    present = [one for one in iter_manifests(result.blobs, result.descriptor) if result.blobs.size(one.digest)]
    if len(present) > 1:
        raise ExportError(
            f"a Docker archive holds images for one platform, and {result.descriptor.digest} is for {len(present)}",
            hint="write type=oci, or choose a platform with --platform",
        )
    if not present:
        raise InvalidImageError(f"the index {result.descriptor.digest} has no image in the store")
    return present[0]
