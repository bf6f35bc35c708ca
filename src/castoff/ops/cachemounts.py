"""Cache mounts that travel: their folders as layers, and layers as their folders."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from castoff.buildcache.document import CarriedMount, descriptor_of
from castoff.errors import CastoffError, DigestMismatchError
from castoff.fs.changes import Added
from castoff.fs.ownership import Owner
from castoff.fs.tableownership import TableOwnership
from castoff.fs.union import DirectoryLayer, UnionTree
from castoff.layer.apply import apply_layer
from castoff.layer.compression import Compression, open_decompressed
from castoff.layer.create import LayerOptions, write_layer
from castoff.layer.tarreader import TarLimits
from castoff.layer.tarwriter import WHITEOUT_PREFIX
from castoff.solve.cache import LayerRecord
from castoff.store.blobfolder import DirectoryBlobStore
from castoff.store.durability import UnsyncedList
from castoff.store.locking import try_lock
from castoff.store.removal import remove_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from castoff.fs.entry import FileEntry
    from castoff.fs.ownership import Ownership
    from castoff.ops.workspace import Workspace
    from castoff.store.blobs import BlobStore
    from castoff.store.session import Session

FOLDER = "cache-mounts"
"""The folder of the store in which cache mounts are."""

_WAIT = 60.0
_LOOK = 0.2
_SLACK = 1 << 30


def new_blobs(session: Session) -> DirectoryBlobStore:
    """Return a store of blobs that goes with a session: what is packed to be sent away is of no use here."""
    folder = session.new_dir()
    os.mkdir(f"{folder}/blobs")
    return DirectoryBlobStore(f"{folder}/blobs", lambda: session, UnsyncedList(folder, f"{folder}/blobs"), lambda: None)


def pack(
    workspace: Workspace, mount: tuple[str, str], blobs: BlobStore, compression: Compression | None
) -> CarriedMount | None:
    """Make a layer of a cache mount, its files' times kept; None where it is not there or is empty.

    Nobody else uses it meanwhile: who does is waited for.

    Args:
        workspace: whose store it is in.
        mount: the name of its folder, and its id.
        blobs: takes the layer.
        compression: of the layer; None for the default.

    Raises:
        CastoffError: it can't be read, or is in use for long.
    """
    name, ident = mount
    path = f"{workspace.store.root}/{FOLDER}/{name}"
    try:
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        _wait_for(lock, ident)
        if not os.path.isdir(path):
            return None
        ownership = cache_ownership(workspace, path)
        changes = [Added(entry) for entry in _entries(path, ownership, workspace.userxattr)]
        top = ownership.of(b"", os.lstat(path))
        if not changes:
            return None
        options = LayerOptions(compression=compression or Compression())
        with blobs.writer() as writer:
            info = write_layer(changes, writer, options)
            digest, size = writer.commit()
    finally:
        os.close(lock)
    layer = LayerRecord(str(info.diff_id), str(digest), size, info.size, info.media_type, info.files)
    return CarriedMount(name, ident, layer, stat.S_IMODE(top.mode), top.uid, top.gid)


def _wait_for(lock: int, ident: str) -> None:
    end = time.monotonic() + _WAIT
    while not try_lock(lock, fcntl.LOCK_EX):
        if time.monotonic() > end:
            raise CastoffError(f"the cache mount {ident} is in use by another build, and stays here")
        time.sleep(_LOOK)


def cache_ownership(workspace: Workspace, folder: str) -> Ownership:
    """Return who owns what in the folder of a cache; a table of it is beside the folder, and named after it."""
    ownership = workspace.ownership(folder)
    return TableOwnership(cache_table(folder)) if ownership.keeps_devices else ownership


def cache_table(folder: str) -> str:
    """Return where the table of who owns what in the folder of a cache is, should there be one."""
    return f"{folder}.owners"


def _entries(path: str, ownership: Ownership, userxattr: bool) -> Iterator[FileEntry]:
    """Yield what a layer can hold of a cache mount; sockets, and names that mark deletions, stay behind."""
    first: dict[tuple[int, int], bytes] = {}
    tree = UnionTree([DirectoryLayer(path, ownership, userxattr)])
    for entry in tree.walk():
        kind = stat.S_IFMT(entry.mode)
        if entry.path and kind != stat.S_IFSOCK and not entry.name.startswith(WHITEOUT_PREFIX):
            known = entry.path if entry.inode is None else first.setdefault(entry.inode, entry.path)
            yield entry if known == entry.path else replace(entry, hardlink=known, source=None)


class CarriedMounts:
    """Cache mounts that came with imported caches. Safe for several threads."""

    def __init__(self, mounts: Mapping[str, CarriedMount], warn: Callable[[str], None]) -> None:
        """Take the mounts by the names of their folders, and who is told of one that can't be had."""
        self._mounts = dict(mounts)
        self._warn = warn

    def take(self, workspace: Workspace, name: str) -> str | None:
        """Return a new folder of the session that holds a mount; None where there is none of that name.

        One that can't be had is a warning: a step must do without its caches.
        """
        mount = self._mounts.get(name)
        if mount is None:
            return None
        folder = workspace.session.new_dir()
        try:
            unpack(workspace, mount, folder)
        except CastoffError as error:
            remove_tree(folder)
            self._warn(f"the cache mount {mount.id} begins empty: {error.message}")
            return None
        return folder


def unpack(workspace: Workspace, mount: CarriedMount, folder: str) -> None:
    """Fill an empty folder with a cache mount that came from elsewhere.

    Args:
        workspace: whose store takes the layer where it is not there yet.
        mount: which one.
        folder: absolute host path.

    Raises:
        CastoffError: it can't be had, is not what it should be, or finds no room.
    """
    descriptor = descriptor_of(mount.layer)
    blobs = workspace.store.blobs
    if workspace.lazy is not None:
        workspace.lazy.ensure(descriptor.digest)
    limits = TarLimits(entries=mount.layer.files + 1, size=mount.layer.uncompressed + _SLACK)
    with blobs.open_(descriptor.digest) as blob, open_decompressed(blob) as stream:
        info = apply_layer(
            stream, folder, UnionTree(), cache_ownership(workspace, folder), workspace.userxattr, limits
        )
    if str(info.diff_id) != mount.layer.diff_id:
        raise DigestMismatchError(
            f"the cache mount {mount.id} unpacks to {info.diff_id}, not to what its cache says",
            expected=mount.layer.diff_id,
            actual=str(info.diff_id),
        )
    os.chmod(folder, mount.mode)
    mode = os.lstat(folder).st_mode
    ownership = cache_ownership(workspace, folder)
    ownership.set_(b"", os.fsencode(folder), Owner(mode, mount.uid, mount.gid, 0))
    ownership.flush()
