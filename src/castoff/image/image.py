"""Images in a store: a manifest, a config, layers; and the choice of one by platform."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from castoff.errors import BlobNotFoundError, InvalidImageError, StoreError
from castoff.oci import mediatypes
from castoff.oci.config import ImageConfig
from castoff.oci.manifest import Index, Manifest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from castoff.oci.descriptor import Descriptor
    from castoff.oci.digest import Digest
    from castoff.oci.platform import Platform
    from castoff.store.blobs import BlobStore

MAX_DEPTH = 5
"""How many indexes may be nested."""
MAX_MANIFESTS = 1000
"""How many manifests and indexes may belong to one image."""

_ATTESTATION = "vnd.docker.reference.type"
_ARM_VARIANTS = ("v8", "v7", "v6", "v5")


@dataclass(frozen=True, slots=True)
class ImageLayer:
    """One layer of an image.

    Attributes:
        descriptor: the blob as it is stored, compressed or not.
        diff_id: the digest of the uncompressed tar.
    """

    descriptor: Descriptor
    diff_id: Digest


class Image(Protocol):
    """An image for one platform. All methods are idempotent and read each document once."""

    @property
    def descriptor(self) -> Descriptor:
        """The descriptor of the manifest."""

    def manifest(self) -> Manifest:
        """Return the manifest.

        Raises:
            StoreError: it is missing or damaged.
            InvalidImageError: it is not valid.
        """

    def config(self) -> ImageConfig:
        """Return the config; errors as of `manifest`."""

    def config_digest(self) -> Digest:
        """Return the digest of the config, Docker's image id; errors as of `manifest`."""

    def layers(self) -> tuple[ImageLayer, ...]:
        """Return the layers, bottom first; errors as of `manifest`.

        Raises:
            InvalidImageError: the manifest has another number of layers than the config.
        """


class StoredImage:
    """An image in a blob store. Safe for several threads."""

    def __init__(self, blobs: BlobStore, descriptor: Descriptor) -> None:
        """Take the descriptor of a manifest; nothing is read yet."""
        self._blobs = blobs
        self._descriptor = descriptor
        self._manifest: Manifest | None = None
        self._config: ImageConfig | None = None

    @classmethod
    def open_(cls, blobs: BlobStore, descriptor: Descriptor, platform: Platform | None = None) -> StoredImage:
        """Return the image of a manifest, or that of an index which fits a platform.

        Args:
            blobs: where it is.
            descriptor: a manifest or an index.
            platform: what an index is searched for; None for this machine's. A plain manifest is taken as it is.

        Raises:
            BlobNotFoundError: a blob is missing, or no image of the index fits.
            InvalidImageError: a document is not valid.
        """
        return cls(blobs, resolve(blobs, descriptor, platform))

    @property
    def descriptor(self) -> Descriptor:
        """The descriptor of the manifest."""
        return self._descriptor

    @property
    def blobs(self) -> BlobStore:
        """The store that it is in."""
        return self._blobs

    def manifest(self) -> Manifest:
        """Return the manifest.

        Raises:
            StoreError: it is missing or damaged.
            InvalidImageError: it is not valid.
        """
        if self._manifest is None:
            self._manifest = Manifest.parse(read_document(self._blobs, self._descriptor))
        return self._manifest

    def config(self) -> ImageConfig:
        """Return the config.

        Raises:
            StoreError: it is missing or damaged.
            InvalidImageError: it is not valid.
        """
        if self._config is None:
            self._config = ImageConfig.parse(read_document(self._blobs, self.manifest().config))
        return self._config

    def config_digest(self) -> Digest:
        """Return the digest of the config, Docker's image id; errors as of `manifest`."""
        return self.manifest().config.digest

    def layers(self) -> tuple[ImageLayer, ...]:
        """Return the layers, bottom first.

        Raises:
            StoreError: a document is missing or damaged.
            InvalidImageError: a document is not valid, or the numbers of layers in the two differ.
        """
        descriptors, diff_ids = self.manifest().layers, self.config().diff_ids
        if len(descriptors) != len(diff_ids):
            raise InvalidImageError(
                f"the image {self._descriptor.digest} has {len(descriptors)} layers, and its config has"
                f" {len(diff_ids)} diff_ids"
            )
        return tuple(ImageLayer(descriptor, diff_id) for descriptor, diff_id in zip(descriptors, diff_ids, strict=True))

    def size(self) -> int:
        """Return the bytes of the manifest, the config and the layers, compressed as they are stored."""
        manifest = self.manifest()
        return self._descriptor.size + manifest.config.size + sum(layer.size for layer in manifest.layers)


def read_document(blobs: BlobStore, descriptor: Descriptor) -> bytes:
    """Return a manifest, an index or a config, its digest and size verified.

    Raises:
        BlobNotFoundError: it is not there.
        DigestMismatchError: it is damaged.
        InvalidImageError: it is not of the size that the descriptor gives.
    """
    data = blobs.read(descriptor.digest)
    if len(data) != descriptor.size:
        raise InvalidImageError(
            f"the blob {descriptor.digest} has {len(data)} bytes, and its descriptor says {descriptor.size}"
        )
    return data


def fallbacks(platform: Platform) -> tuple[Platform, ...]:
    """Return the platforms whose images run on one, best first: itself, then lower variants of the architecture."""
    from dataclasses import replace

    exact = replace(platform, os_version="")
    if platform.architecture == "arm" and platform.variant in _ARM_VARIANTS:
        lower = _ARM_VARIANTS[_ARM_VARIANTS.index(platform.variant) + 1 :]
        return (exact, *(replace(exact, variant=variant) for variant in lower))
    level = platform.variant.removeprefix("v")
    if platform.architecture == "amd64" and level.isdecimal():
        lower = tuple(f"v{number}" for number in range(int(level[:2]) - 1, 1, -1))
        return (exact, *(replace(exact, variant=variant) for variant in (*lower, "")))
    if platform.variant:
        return (exact, replace(exact, variant=""))
    return (exact,)


def select(index: Index, platform: Platform) -> Descriptor | None:
    """Return the entry of one index that suits a platform best, or None; entries without a platform don't count.

    Among equals the first wins. Attestations are no images.
    """
    from dataclasses import replace

    candidates = [
        (replace(entry.platform, os_version=""), entry)
        for entry in index.manifests
        if entry.platform is not None and is_image(entry) and not entry.annotation(_ATTESTATION)
    ]
    for wanted in fallbacks(platform):
        for offered, entry in candidates:
            if offered == wanted and platform.os_version in ("", entry.platform.os_version if entry.platform else ""):
                return entry
    return None


def is_image(descriptor: Descriptor) -> bool:
    """Tell whether a descriptor is of a manifest or an index of images."""
    return descriptor.media_type in mediatypes.MANIFESTS or descriptor.media_type in mediatypes.INDEXES


def resolve(blobs: BlobStore, descriptor: Descriptor, platform: Platform | None = None) -> Descriptor:
    """Return the manifest that a descriptor means on a platform.

    Args:
        blobs: where the documents are.
        descriptor: a manifest, which is returned as it is, or an index, nested indexes included.
        platform: what to look for; None for this machine's.

    Raises:
        BlobNotFoundError: a document is missing, or no image fits.
        InvalidImageError: a document is not valid, or is no image; indexes are nested too deeply or in a ring.
    """
    from castoff.oci.platform import Platform

    if descriptor.media_type in mediatypes.MANIFESTS:
        return descriptor
    wanted = platform or Platform.host()
    offered: list[Platform] = []
    for manifest in iter_manifests(blobs, descriptor, wanted):
        actual = manifest.platform or _platform_of(blobs, manifest)
        if actual is None:
            continue
        offered.append(actual)
        if select(Index((_with_platform(manifest, actual),)), wanted) is not None:
            return manifest
    names = ", ".join(sorted({str(one) for one in offered})) or "none"
    raise BlobNotFoundError(
        f"the image {descriptor.digest} is not for the platform {wanted}", hint=f"its platforms: {names}"
    )


def _with_platform(descriptor: Descriptor, platform: Platform) -> Descriptor:
    from dataclasses import replace

    return replace(descriptor, platform=platform)


def iter_manifests(blobs: BlobStore, descriptor: Descriptor, first: Platform | None = None) -> Iterator[Descriptor]:
    """Yield the image manifests of a descriptor, those of nested indexes included, attestations left out.

    Args:
        blobs: where the documents are.
        descriptor: a manifest or an index.
        first: the platform whose best entry comes first within each index; None for the order of the index.

    Raises:
        BlobNotFoundError: an index is missing.
        InvalidImageError: a document is no image; indexes are nested too deeply, in a ring, or hold too many images.
    """
    count = 0
    pending: list[tuple[Descriptor, tuple[Digest, ...]]] = [(descriptor, ())]
    while pending:
        current, path = pending.pop()
        count += 1
        if count > MAX_MANIFESTS:
            raise InvalidImageError(f"the image {descriptor.digest} has more than {MAX_MANIFESTS} manifests")
        if current.media_type in mediatypes.MANIFESTS:
            yield current
            continue
        if current.media_type not in mediatypes.INDEXES:
            if path:
                continue  # artefacts beside the images
            raise InvalidImageError(f"{current.digest} is of type {current.media_type}, which is no image")
        if current.digest in path:
            raise InvalidImageError(f"the index {current.digest} contains itself")
        if len(path) >= MAX_DEPTH:
            raise InvalidImageError(f"the indexes of {descriptor.digest} are nested more than {MAX_DEPTH} deep")
        index = Index.parse(read_document(blobs, current))
        entries = list(_ordered(index, first))
        pending += [(entry, (*path, current.digest)) for entry in reversed(entries)]


def _ordered(index: Index, first: Platform | None) -> Iterable[Descriptor]:
    entries = [entry for entry in index.manifests if not entry.annotation(_ATTESTATION)]
    best = select(index, first) if first is not None else None
    return entries if best is None else [best, *(entry for entry in entries if entry is not best)]


def _platform_of(blobs: BlobStore, manifest: Descriptor) -> Platform | None:
    """Return the platform in the config of a manifest that an index lists without one; None where it is missing."""
    try:
        return StoredImage(blobs, manifest).config().platform
    except (StoreError, InvalidImageError):
        return None
