"""The file systems of images, for the verbs that need more of an image than its documents."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from castoff.ops.filesystem import FileSystem, base_chain
from castoff.ops.workspace import LayerVariant, Storage, Workspace
from castoff.sandbox.zygote_executor import ZygoteExecutor
from castoff.snapshot.overlay import OverlaySnapshotter
from castoff.solve.cache import DirectoryCacheStore, LayerRecord
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
    storage = Storage(
        store,
        session,
        OverlaySnapshotter(store.snapshots, session, userxattr=tier.userxattr),
        DirectoryCacheStore(f"{store.cache}/records"),
        tier.userxattr,
    )
    workspace = Workspace(storage, LayerVariant(), lambda: ZygoteExecutor(session.new_dir()))
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
