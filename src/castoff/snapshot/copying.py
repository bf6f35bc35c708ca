"""Snapshots that each hold a whole file system: for stores on which overlayfs can't be, and for root without mounts.

They are a folder of their own in the store, and on disk as those of overlayfs are (`castoff.snapshot.overlay`), but
that ``fs`` is everything and not only what changed: there are no whiteouts, and no attributes of overlayfs.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from castoff.fs.treecopy import copy_tree
from castoff.fs.union import UnionTree
from castoff.snapshot.overlay import OverlaySnapshotter, direct_ownership, failed, remove_folder
from castoff.snapshot.snapshotter import ActiveSnapshot

if TYPE_CHECKING:
    from castoff.snapshot.overlay import FolderSource
    from castoff.snapshot.snapshotter import OwnershipSource


class CopyingSnapshotter(OverlaySnapshotter):
    """Whole file systems, each copied from its parent. Safe for several threads and processes.

    Args:
        root: the folder of committed snapshots; it is made at the first commit.
        session: where active snapshots live.
        devices: whether device nodes of layers are made.
        ownership: who owns what in a snapshot's directory.
    """

    def __init__(
        self,
        root: str,
        session: FolderSource,
        *,
        devices: bool = True,
        ownership: OwnershipSource = direct_ownership,
    ) -> None:
        super().__init__(root, session, userxattr=True, ownership=ownership)
        self._devices = devices

    def prepare(self, parent: str | None) -> ActiveSnapshot:
        """Begin a snapshot with a copy of a committed one.

        Raises:
            StoreError: the parent does not exist, or the store can't be written.
        """
        source = self.directory(parent) if parent is not None else None
        folder = self._session.new_dir()
        upper, work = os.path.join(folder, "fs"), os.path.join(folder, "work")
        try:
            os.mkdir(upper, 0o755)
            os.mkdir(work, 0o755)
            if source is None:
                os.chmod(upper, 0o755)  # noqa: S103 - the root of an image, whatever the umask
            else:
                copy_tree(source, upper, self._ownership(source), self._ownership(upper))
        except OSError as error:
            remove_folder(folder)
            raise failed("copy a snapshot", error) from error
        return ActiveSnapshot(folder, parent, (), upper, work, self._userxattr, whole=True, devices=self._devices)

    def tree(self, name: str | None) -> UnionTree:
        """Return the file system of a committed snapshot.

        Raises:
            StoreError: the snapshot does not exist.
        """
        if name is None:
            return UnionTree()
        self.parent(name)  # tells of one that is not there
        return UnionTree([self._layer(name)])

    def upper_tree(self, active: ActiveSnapshot) -> UnionTree:
        """Return the file system of an active snapshot as it is now; nothing may write to it meanwhile."""
        return UnionTree([self._new_layer(active.upper)])
