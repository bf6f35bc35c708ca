"""Images whose content means nothing, and which are the same for the same seed."""

from __future__ import annotations

import hashlib
import stat
from typing import TYPE_CHECKING

from castoff.fs.changes import Added
from castoff.fs.entry import FileEntry
from castoff.image.image import ImageLayer
from castoff.image.mutate import DraftImage, append_history, append_layer, with_config
from castoff.layer.compression import Compression
from castoff.layer.create import LayerOptions, write_layer
from castoff.oci import mediatypes
from castoff.oci.config import ContainerConfig, History, ImageConfig
from castoff.oci.descriptor import Descriptor
from castoff.oci.manifest import Index
from castoff.oci.platform import Platform
from castoff.oci.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from castoff.fs.changes import Change
    from castoff.store.blobs import BlobStore
    from castoff.store.store import Store

_TIME = "1980-01-01T00:00:00Z"
_EPOCH = 315532800


def random_bytes(size: int, seed: object) -> bytes:
    """Return bytes that can't be compressed, the same for the same seed."""
    return hashlib.shake_128(repr(seed).encode()).digest(size)


def layer_of(blobs: BlobStore, changes: Sequence[Change], compression: Compression | None = None) -> ImageLayer:
    """Write changes as a layer into a store."""
    with blobs.writer() as writer:
        info = write_layer(
            list(changes), writer, LayerOptions(_EPOCH, set_times=True, compression=compression or Compression())
        )
        digest, size = writer.commit()
    return ImageLayer(Descriptor(info.media_type, digest, size), info.diff_id)


def random_layer(
    blobs: BlobStore, *, files: int = 3, size: int = 1000, seed: object = 0, compression: Compression | None = None
) -> ImageLayer:
    """Write a layer of a folder with random files into a store.

    Args:
        blobs: where it goes.
        files: how many files it has.
        size: bytes of each.
        seed: the same seed gives the same layer.
        compression: how it is compressed; None for the default.
    """
    folder = b"data-" + random_bytes(4, seed).hex().encode()
    changes: list[Change] = [Added(FileEntry(folder, stat.S_IFDIR | 0o755))]
    for number in range(files):
        data = random_bytes(size, (seed, number))
        path = folder + b"/file-%d" % number
        changes.append(Added(FileEntry(path, stat.S_IFREG | 0o644, size=size, data=data)))
    return layer_of(blobs, changes, compression)


def random_image(
    store: Store,
    reference: str | None = None,
    *,
    layers: int = 2,
    size: int = 1000,
    seed: object = 0,
    platform: Platform | None = None,
) -> Descriptor:
    """Put an image into a store, tag it, and return the descriptor of its manifest. Idempotent.

    Args:
        store: where it goes.
        reference: its name; None to leave it without one.
        layers: how many layers it has.
        size: bytes of each of the three files of a layer.
        seed: the same seed gives the same image.
        platform: what it is for; None for linux/amd64.
    """
    target = platform or Platform("linux", "amd64")
    draft = DraftImage(ImageConfig(target, created=_TIME))
    for number in range(layers):
        layer = random_layer(store.blobs, size=size, seed=(seed, number))
        draft = append_layer(draft, layer, History(_TIME, f"COPY part-{number} / # random"))
    draft = append_history(draft, History(_TIME, 'CMD ["/bin/true"]'))
    draft = with_config(draft, ContainerConfig(env=("PATH=/bin",), cmd=("/bin/true",), labels=(("seed", str(seed)),)))
    descriptor = draft.store(store.blobs, target)
    if reference is not None:
        store.images.set_(Reference.parse(reference), descriptor, _EPOCH)
    return descriptor


def random_index(
    store: Store, reference: str | None = None, platforms: Sequence[str] = ("amd64", "arm64")
) -> Descriptor:
    """Put an image for several platforms into a store, tag it, and return the descriptor of its index. Idempotent."""
    parsed = [Platform.parse(f"linux/{text.removeprefix('linux/')}") for text in platforms]
    descriptor = index_of(store.blobs, [random_image(store, seed=str(target), platform=target) for target in parsed])
    if reference is not None:
        store.images.set_(Reference.parse(reference), descriptor, _EPOCH)
    return descriptor


def index_of(blobs: BlobStore, manifests: Sequence[Descriptor]) -> Descriptor:
    """Write an index of any descriptors into a store and return its descriptor."""
    data = Index(tuple(manifests)).to_bytes()
    return Descriptor(mediatypes.OCI_INDEX, blobs.add(data), len(data))
