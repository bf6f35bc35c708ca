"""The life of snapshots: prepare, fill, commit (or discard), read, remove."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from castoff.fs.ownership import Ownership
    from castoff.fs.union import UnionTree


@dataclass(frozen=True, slots=True)
class ActiveSnapshot:
    """A snapshot that is being filled.

    Attributes:
        key: identifies it while it is active.
        parent: the committed snapshot below it; None for an empty one.
        lowers: host paths of the directories below it, topmost first.
        upper: host path of the directory that takes the changes, in overlay format.
        work: host path of overlayfs' work directory, empty, on the same file system as `upper`.
        userxattr: whether overlay attributes are ``user.overlay.*`` (in a user namespace) or ``trusted.overlay.*``.
        whole: whether `upper` holds the whole file system and not only the changes; then there are no lowers.
        devices: whether device nodes of layers may be made in it.
    """

    key: str
    parent: str | None
    lowers: tuple[str, ...]
    upper: str
    work: str
    userxattr: bool
    whole: bool = False
    devices: bool = True


class Snapshotter(Protocol):
    """Keeps committed snapshots, each the changes against its parent. Safe for several threads and processes."""

    def prepare(self, parent: str | None) -> ActiveSnapshot:
        """Begin a snapshot on top of a committed one. Not idempotent: each call gives a new one.

        It is removed with the store's session unless it is committed.

        Raises:
            StoreError: the parent does not exist, or the store can't be written.
        """

    def commit(self, active: ActiveSnapshot, name: str | None = None) -> str:
        """Make an active snapshot permanent and immutable, and return its name. Atomic.

        With a `name` that exists already (another process was faster) the active one is discarded.

        Raises:
            StoreError: the store can't be written.
        """

    def discard(self, active: ActiveSnapshot) -> None:
        """Throw an active snapshot away. Idempotent."""

    def parent(self, name: str) -> str | None:
        """Return the parent of a committed snapshot.

        Raises:
            StoreError: there is no such snapshot.
        """

    def exists(self, name: str) -> bool:
        """Tell whether a committed snapshot and all its parents are there."""

    def tree(self, name: str | None) -> UnionTree:
        """Return the merged file system of a committed snapshot, read without a mount; None for an empty one."""

    def remove(self, name: str) -> None:
        """Remove a committed snapshot that no other has as its parent. Idempotent.

        Raises:
            StoreError: another snapshot stands on it.
        """


class OwnershipSource(Protocol):
    """Gives the ownership of a snapshot's directory."""

    def __call__(self, directory: str, /) -> Ownership:
        """Return the ownership of the snapshot whose files are in `directory`."""
