"""Where a cache is kept: what a folder, a registry or a service must be able to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from castoff.buildcache.document import CONFIG_TYPE, MAX_CONFIG, CacheDocument
from castoff.errors import InvalidImageError
from castoff.oci import mediatypes

if TYPE_CHECKING:
    from collections.abc import Callable

    from castoff.oci.descriptor import Descriptor
    from castoff.oci.manifest import Manifest
    from castoff.store.blobs import BlobStore

INLINE = "dev.castoff.buildcache.v1"
"""The annotation of an image's manifest that holds its cache's document: zlib, in base64."""


@dataclass(frozen=True, slots=True)
class FoundCache:
    """A cache that was found.

    Attributes:
        document: what it has.
        blobs: the blobs that can be fetched from where it was found.
    """

    document: CacheDocument
    blobs: tuple[Descriptor, ...]


class CachePlace(Protocol):
    """Keeps one cache under a name. Safe for several threads."""

    def load(self) -> FoundCache | None:
        """Return what is there; None where there is nothing. Its blobs are not fetched. Idempotent.

        Raises:
            CastoffError: it can't be read, or is no cache.
        """

    def fetch(self, descriptor: Descriptor, blobs: BlobStore, moved: Callable[[int], None]) -> None:
        """Bring one of its blobs into a store, verified, unless it is there. Atomic, idempotent.

        Raises:
            CastoffError: it can't be had, or is not what its descriptor promises.
        """

    def save(self, document: CacheDocument, ensure: Callable[[Descriptor], BlobStore], told: Progress) -> None:
        """Keep a cache in place of an earlier one. Atomic: a reader finds the old or the new one.

        Args:
            document: what it has.
            ensure: gives the store that has a blob, which is fetched into it where it has to be; called for those
                only that the place lacks.
            told: called with the number of bytes that moved and of those that are to move.

        Raises:
            CastoffError: it can't be written.
        """


class Progress(Protocol):
    """Told how far a transfer is."""

    def __call__(self, name: str, current: int, total: int) -> None:
        """Take that so many of a blob's bytes are there."""


def check_config(manifest: Manifest, what: str) -> None:
    """Refuse a manifest that is not a cache's.

    Raises:
        InvalidImageError: it is not.
    """
    if manifest.config.media_type != CONFIG_TYPE:
        kind = "an image" if manifest.config.media_type in mediatypes.CONFIGS else manifest.config.media_type
        raise InvalidImageError(
            f"{what} is {kind} and no build cache of castoff's",
            hint="export one with --cache-to, or build the image with --cache-to type=inline",
        )
    if manifest.config.size > MAX_CONFIG:
        raise InvalidImageError(f"the document of the build cache {what} has more than {MAX_CONFIG >> 20} MiB")


def inline_document(annotations: tuple[tuple[str, str], ...]) -> CacheDocument | None:
    """Return the cache that the annotations of an image hold; None for none.

    Raises:
        InvalidImageError: it is damaged.
    """
    text = dict(annotations).get(INLINE)
    if text is None:
        return None
    import base64
    import zlib

    try:
        inflate = zlib.decompressobj()
        data = inflate.decompress(base64.b64decode(text, validate=True), MAX_CONFIG + 1)
    except (ValueError, zlib.error) as error:
        raise InvalidImageError("the build cache in an image's annotations is damaged") from error
    return CacheDocument.parse(data)


def inline_annotation(document: CacheDocument) -> tuple[str, str]:
    """Return the annotation that holds a cache, the same on every machine."""
    import base64

    from zlib_ng import zlib_ng

    return INLINE, base64.b64encode(zlib_ng.compress(document.to_bytes(), 9)).decode("ascii")
