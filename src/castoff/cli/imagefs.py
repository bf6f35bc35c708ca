"""The file systems of images, for the verbs that need more of an image than its documents."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from castoff.ops.filesystem import FileSystem, base_chain
from castoff.ops.tierparts import open_storage, start_executor
from castoff.ops.workspace import LayerVariant, Workspace
from castoff.solve.cache import LayerRecord
from castoff.solve.cachekey import cache_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from castoff.image.image import StoredImage
    from castoff.sandbox.userns import Tier
    from castoff.store.directory import DirectoryStore


@contextmanager
def open_workspace(store: DirectoryStore, tier: Tier) -> Iterator[Workspace]:
    """Yield what works on a store's snapshots; leaving it ends every process that was started."""
    session = store.session()
    storage = open_storage(store, tier)
    workspace = Workspace(storage, LayerVariant(), lambda: start_executor(session.new_dir(), tier))
    try:
        yield workspace
    finally:
        workspace.close()


def filesystem_of(image: StoredImage, workspace: Workspace) -> FileSystem:
    """Return the file system of an image; its snapshots are those that builds on it have too.

    Raises:
        StoreError: a document is missing or damaged.
        InvalidImageError: the image is not valid.
    """
    layers = tuple(
        LayerRecord(
            str(layer.diff_id), str(layer.descriptor.digest), layer.descriptor.size, 0, layer.descriptor.media_type
        )
        for layer in image.layers()
    )
    bottom = FileSystem.empty(workspace, cache_key("scratch"))
    return base_chain(workspace, bottom, layers, lambda text: cache_key("image", text))
