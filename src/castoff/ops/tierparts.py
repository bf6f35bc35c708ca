"""What the tier in force decides of a build: which snapshotter keeps its file systems, and what runs its steps.

Snapshots are overlayfs' where the store's file system can hold the changes of an overlay, and whole copies elsewhere;
whole copies too for root without namespaces, who can't mount. Their owners are the files' own, or in a table beside
each snapshot where castoff has one id only. Snapshots of different kinds are of no use to each other and have a folder
each; layers and records serve all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from castoff.errors import UnsupportedError
from castoff.fs.tableownership import ownership_source
from castoff.ops.workspace import Storage
from castoff.sandbox.chroot_executor import ChrootExecutor
from castoff.sandbox.filesystems import file_system, overlay_refusal
from castoff.sandbox.zygote_executor import ZygoteExecutor
from castoff.snapshot.copying import CopyingSnapshotter
from castoff.snapshot.overlay import OverlaySnapshotter
from castoff.solve.cache import DirectoryCacheStore

if TYPE_CHECKING:
    from castoff.sandbox.executor import Executor
    from castoff.sandbox.userns import Tier
    from castoff.snapshot.overlay import FolderSource
    from castoff.store.directory import DirectoryStore


_WEAK = (
    "there are no namespaces here, so that steps run in a changed root and nothing more: they have no /proc and no"
    " /sys, and are not kept from the network and the processes of this container (castoff doctor says what would do better)"
)
_COPIES = (
    "overlayfs can't be used on {0}, so that every step works on a copy of its whole root; put the store on a volume"
    " with ext4, xfs, btrfs or tmpfs (--root)"
)


def open_snapshots(store: DirectoryStore, session: FolderSource, tier: Tier) -> OverlaySnapshotter:
    """Return the snapshotter of a store; `store.snapshots` is its folder from now on."""
    ownership = ownership_source(tier.emulated)
    whole = not tier.mounts or bool(overlay_refusal(store.root, userxattr=tier.userxattr))
    # A step that no mount keeps from device nodes must not find any.
    devices = tier.name != "chroot"
    marks = [mark for mark, holds in (("whole", whole), ("nodev", not devices), ("table", tier.emulated)) if holds]
    if marks:
        store.keep_snapshots_apart("-".join(marks))
    if whole:
        return CopyingSnapshotter(store.snapshots, session, devices=devices, ownership=ownership)
    return OverlaySnapshotter(store.snapshots, session, userxattr=tier.userxattr, ownership=ownership)


def open_storage(store: DirectoryStore, tier: Tier) -> Storage:
    """Return where a build in this tier keeps things."""
    session = store.session()
    snapshotter = open_snapshots(store, session, tier)
    whole = isinstance(snapshotter, CopyingSnapshotter)
    return Storage(
        store,
        session,
        snapshotter,
        DirectoryCacheStore(f"{store.cache}/records"),
        tier.userxattr,
        whole=whole,
        ownership=ownership_source(tier.emulated),
        limits=_limits(store, tier, whole=whole),
    )


def _limits(store: DirectoryStore, tier: Tier, *, whole: bool) -> tuple[str, ...]:
    if tier.name == "chroot":
        return (_WEAK,)
    if whole and tier.mounts:
        return (_COPIES.format(file_system(store.root) or "the store's file system"),)
    return ()


def start_executor(folder: str, tier: Tier) -> Executor:
    """Return what runs processes in this tier, with a folder of its own in the store; nothing is started yet.

    Raises:
        UnsupportedError: nothing can be run in it.
    """
    if tier.name == "none":
        raise UnsupportedError("nothing can be run here", feature="RUN", hint="castoff doctor says what is lacking")
    return ChrootExecutor(folder) if tier.name == "chroot" else ZygoteExecutor(folder)
