"""What all operations of one build share: the store, the snapshots, the executor, the choice of how layers are made."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from castoff.errors import SandboxError
from castoff.image.users import USER_FILES, exec_user
from castoff.ops.listing import ListingStore
from castoff.snapshot.overlay import direct_ownership

if TYPE_CHECKING:
    from collections.abc import Callable

    from castoff.fs.union import UnionTree
    from castoff.image.users import ExecUser
    from castoff.layer.compression import Compression
    from castoff.ops.cachemounts import CarriedMounts
    from castoff.ops.filesystem import FileSystem
    from castoff.ops.lazyblobs import LazyBlobs
    from castoff.ops.select import Request
    from castoff.sandbox.executor import Executor
    from castoff.snapshot.snapshotter import OwnershipSource, Snapshotter
    from castoff.solve.cache import CacheStore
    from castoff.store.directory import DirectoryStore
    from castoff.store.session import Session

DEFAULT_EPOCH = 315532800
"""1980-01-01T00:00:00Z: the earliest time that zip files can hold."""


@dataclass(frozen=True, slots=True)
class LayerVariant:
    """How layers are made.

    Attributes:
        epoch: no time in a layer is later than this, in seconds since 1970; None keeps the times that files have.
        compression: the codec; None for castoff's choice by the layer's size.
    """

    epoch: int | None = DEFAULT_EPOCH
    compression: Compression | None = None

    def __str__(self) -> str:
        """Return the name under which a cache record keeps a layer that was made this way."""
        return f"{'kept' if self.epoch is None else self.epoch}/{self.compression or 'auto'}"


@dataclass(frozen=True, slots=True)
class Storage:
    """Where a build keeps things.

    Attributes:
        store: blobs and tags.
        session: temporary files.
        snapshotter: snapshots.
        cache: cache records.
        userxattr: whether overlay attributes are ``user.overlay.*``.
        whole: whether each snapshot holds a whole file system.
        ownership: who owns what in a directory of the snapshotter.
        limits: sentences on what steps have less of here than elsewhere, to be said once.
        lazy: layers that can be fetched when something needs their bytes.
        mounts: cache mounts that came with imported caches.
    """

    store: DirectoryStore
    session: Session
    snapshotter: Snapshotter
    cache: CacheStore
    userxattr: bool
    whole: bool = False
    ownership: OwnershipSource = direct_ownership
    limits: tuple[str, ...] = ()
    lazy: LazyBlobs | None = field(default=None, kw_only=True)
    mounts: CarriedMounts | None = field(default=None, kw_only=True)


class Workspace:
    """What all operations of one build share. Safe for several threads."""

    def __init__(self, storage: Storage, variant: LayerVariant, start_executor: Callable[[], Executor]) -> None:
        self.store = storage.store
        self.session = storage.session
        self.snapshotter = storage.snapshotter
        self.cache = storage.cache
        self.userxattr = storage.userxattr
        self.whole = storage.whole
        self.ownership = storage.ownership
        self.lazy = storage.lazy
        self.mounts = storage.mounts
        self.selections: dict[tuple[FileSystem, Request, bool], str] = {}
        self.variant = variant
        self.listings = ListingStore(storage.store.cache)
        self._start_executor = start_executor
        self._users: dict[tuple[bytes | None, bytes | None, str], ExecUser] = {}
        self._executor: Executor | None = None
        self._closed = False
        self._lock = threading.Lock()

    def exec_user(self, tree: UnionTree, text: str) -> ExecUser:
        """Return who a process runs as under ``USER text``; most steps of a build ask the same files.

        Raises:
            ContextError: the image has no such user or group.
        """
        sources = [entry.source if (entry := tree.lstat(tree.resolve(path))) else None for path in USER_FILES]
        key = (sources[0], sources[1], text)
        if None in sources:
            return exec_user(tree, text)
        user = self._users.get(key)
        if user is None:
            user = self._users[key] = exec_user(tree, text)
        return user

    def executor(self) -> Executor:
        """Return the executor, which is started the first time that a step wants it.

        Raises:
            SandboxError: it can't be started, or the build is over.
        """
        with self._lock:
            if self._closed:
                raise SandboxError("the build is over")
            if self._executor is None:
                self._executor = self._start_executor()
            return self._executor

    def close(self) -> None:
        """Kill what still runs. Idempotent; callable from any thread."""
        with self._lock:
            self._closed = True
            executor = self._executor
        if executor is not None:
            executor.close()
