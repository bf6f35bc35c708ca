"""Images as values that are changed by making new ones: nothing in the store is ever altered."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from castoff.errors import InvalidImageError
from castoff.oci import mediatypes
from castoff.oci.descriptor import Descriptor
from castoff.oci.manifest import Manifest

if TYPE_CHECKING:
    from castoff.image.image import Image, ImageLayer
    from castoff.oci.config import ContainerConfig, History, ImageConfig
    from castoff.oci.platform import Platform
    from castoff.store.blobs import BlobStore

_TO_OCI = {
    mediatypes.DOCKER_LAYER: mediatypes.OCI_LAYER,
    mediatypes.DOCKER_LAYER_GZIP: mediatypes.OCI_LAYER_GZIP,
}


@dataclass(frozen=True, slots=True)
class DraftImage:
    """An image that is being put together: its layers are in a store, its documents not yet.

    `layers` are bottom first and those of `config`'s diff_ids.
    """

    config: ImageConfig
    layers: tuple[Descriptor, ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()

    def store(self, blobs: BlobStore, platform: Platform | None = None) -> Descriptor:
        """Write the config and an OCI manifest, and return the manifest's descriptor. Idempotent.

        Args:
            blobs: where the layers are, and where the documents go.
            platform: what the descriptor says; None to leave it out.

        Raises:
            InvalidImageError: there is no layer, or the numbers of layers and diff_ids differ.
            StoreError: the store can't be written.
        """
        if len(self.layers) != len(self.config.diff_ids):
            raise InvalidImageError(
                f"an image can't have {len(self.layers)} layers and {len(self.config.diff_ids)} diff_ids"
            )
        if not self.layers:
            raise InvalidImageError("an image can't be without layers", hint="an image without files has an empty one")
        data = self.config.to_bytes()
        config = Descriptor(mediatypes.OCI_CONFIG, blobs.add(data), len(data))
        return store_manifest(blobs, Manifest(config, self.layers, annotations=self.annotations), platform)


def store_manifest(blobs: BlobStore, manifest: Manifest, platform: Platform | None = None) -> Descriptor:
    """Write a manifest and return its descriptor. Idempotent.

    Raises:
        StoreError: the store can't be written.
    """
    data = manifest.to_bytes()
    return Descriptor(manifest.media_type, blobs.add(data), len(data), platform)


def draft_of(image: Image) -> DraftImage:
    """Return a draft with an image's config and layers, Docker's media types turned into those of the OCI.

    Raises:
        StoreError: a document is missing or damaged.
        InvalidImageError: a document is not valid.
    """
    layers = tuple(
        replace(layer.descriptor, media_type=_TO_OCI.get(layer.descriptor.media_type, layer.descriptor.media_type))
        for layer in image.layers()
    )
    return DraftImage(image.config(), layers, image.manifest().annotations)


def append_layer(draft: DraftImage, layer: ImageLayer, history: History) -> DraftImage:
    """Return a copy with one layer more on top, and the history entry that tells how it was made."""
    config = replace(
        draft.config,
        diff_ids=(*draft.config.diff_ids, layer.diff_id),
        history=(*draft.config.history, replace(history, empty_layer=False)),
    )
    return replace(draft, config=config, layers=(*draft.layers, layer.descriptor))


def append_history(draft: DraftImage, history: History) -> DraftImage:
    """Return a copy with a history entry more, of an instruction that made no layer."""
    entry = replace(history, empty_layer=True)
    return replace(draft, config=replace(draft.config, history=(*draft.config.history, entry)))


def with_config(draft: DraftImage, config: ContainerConfig) -> DraftImage:
    """Return a copy with other execution parameters."""
    return replace(draft, config=replace(draft.config, config=config))


def with_created(draft: DraftImage, created: str) -> DraftImage:
    """Return a copy with another time of creation, RFC 3339."""
    return replace(draft, config=replace(draft.config, created=created))


def with_annotations(draft: DraftImage, annotations: dict[str, str]) -> DraftImage:
    """Return a copy with further annotations of the manifest; one that is there already is replaced."""
    merged = {**dict(draft.annotations), **annotations}
    return replace(draft, annotations=tuple(sorted(merged.items())))
