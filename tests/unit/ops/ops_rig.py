"""Trees in memory, and COPY, ADD and WORKDIR run on them without a process."""

from __future__ import annotations

import io
import stat
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from castoff.context.digests import DigestCache
from castoff.context.ignore import IgnorePatterns
from castoff.context.local import LocalContext
from castoff.events import NullObserver, WarningEvent
from castoff.fs.changes import Added, Opaque
from castoff.fs.entry import FileEntry
from castoff.fs.union import EntryLayer, UnionTree
from castoff.ops.copy import CopyOp, WorkdirOp
from castoff.ops.filesystem import FileSystem, Forms
from castoff.ops.sources import LoadedContext, Result
from castoff.ops.workspace import LayerVariant, Storage, Workspace
from castoff.plan.step import CopyStep, WorkdirStep
from castoff.snapshot.overlay import OverlaySnapshotter
from castoff.solve.cache import DirectoryCacheStore
from castoff.solve.progress import VertexProgress
from castoff.store.directory import DirectoryStore

if TYPE_CHECKING:
    from castoff.sandbox.executor import Executor

Tree = dict[str, FileEntry]


def file_(path: str, data: bytes = b"x", mode: int = 0o644, uid: int = 0, gid: int = 0) -> FileEntry:
    """Return a file that is held in memory."""
    return FileEntry(path.encode(), stat.S_IFREG | mode, uid, gid, size=len(data), data=data)


def folder(path: str, mode: int = 0o755, uid: int = 0, gid: int = 0) -> FileEntry:
    """Return a directory."""
    return FileEntry(path.encode(), stat.S_IFDIR | mode, uid, gid)


def link(path: str, target: str) -> FileEntry:
    """Return a symbolic link."""
    return FileEntry(path.encode(), stat.S_IFLNK | 0o777, link=target.encode())


def union(*entries: FileEntry) -> UnionTree:
    """Return a tree of entries."""
    return UnionTree([EntryLayer(entries)])


def tar_of(*members: tuple[str, Any], **kwargs: Any) -> bytes:
    """Return an archive: each member a name and bytes, or a name and the attributes of its header."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=kwargs.get("mode", "w"), format=tarfile.PAX_FORMAT) as archive:
        for name, what in members:
            info = tarfile.TarInfo(name)
            data = what if isinstance(what, bytes) else b""
            info.size = len(data)
            for key, value in (what if isinstance(what, dict) else {}).items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def directory(**attributes: Any) -> dict[str, Any]:
    """Return what makes an archive's member a directory."""
    return {"type": tarfile.DIRTYPE, "mode": 0o755, **attributes}


def symlink(target: str) -> dict[str, Any]:
    """Return what makes an archive's member a symbolic link."""
    return {"type": tarfile.SYMTYPE, "linkname": target}


def hard_link(target: str) -> dict[str, Any]:
    """Return what makes an archive's member a hard link."""
    return {"type": tarfile.LNKTYPE, "linkname": target}


class _Warnings(NullObserver):
    """Keeps the warnings that operations give."""

    def __init__(self, messages: list[str]) -> None:
        self._messages = messages

    def warning(self, event: WarningEvent) -> None:
        self._messages.append(event.message)


class OpsRig:
    """A store in a folder, and operations on it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = DirectoryStore.open_(str(path / "store"))
        session = self.store.session()
        snapshotter = OverlaySnapshotter(self.store.snapshots, session, userxattr=True)
        cache = DirectoryCacheStore(f"{self.store.cache}/records")
        storage = Storage(self.store, session, snapshotter, cache, True)
        self.workspace = Workspace(storage, LayerVariant(), _no_executor)
        self.warnings: list[str] = []
        self.progress = VertexProgress(_Warnings(self.warnings), "v", "step")
        self._made = 0

    def filesystem(self, *entries: FileEntry) -> FileSystem:
        """Return a file system that holds entries."""
        self._made += 1
        below = FileSystem.empty(self.workspace, "empty")
        changes = tuple(Added(entry) for entry in sorted(entries, key=lambda entry: entry.path.split(b"/")))
        return FileSystem(self.workspace, below, f"made {self._made}", Forms(changes=lambda: changes))

    def context(self, ignore: bytes = b"") -> LoadedContext:
        """Return the folder `context` below the rig's as a build context."""
        root = self.path / "context"
        root.mkdir(exist_ok=True)
        patterns = IgnorePatterns.parse(ignore) if ignore else None
        return LoadedContext(self.workspace, LocalContext(str(root), patterns, DigestCache(None)))

    def copy(self, source: Result | None, below: FileSystem | None = None, **step: Any) -> FileSystem:
        """Run a COPY (or with ``is_add`` an ADD) and return its result."""
        op = CopyOp(self.workspace, CopyStep(**step))
        inputs = [below or self.filesystem(), *([source] if source is not None else [])]
        return op.execute(op.key(inputs, self.progress), inputs, self.progress)

    def workdir(self, below: FileSystem, path: str, user: str = "") -> FileSystem:
        """Run a WORKDIR and return its result."""
        op = WorkdirOp(self.workspace, WorkdirStep(path, user))
        return op.execute(op.key([below], self.progress), [below], self.progress)

    def key(self, inputs: Iterable[Result], **step: Any) -> str | None:
        """Return the cache key of a COPY."""
        return CopyOp(self.workspace, CopyStep(**step)).key(list(inputs), self.progress)


def _no_executor() -> Executor:
    raise AssertionError("no process is wanted")


def layer_of(filesystem: FileSystem) -> Tree:
    """Return the entries of a result's layer by path."""
    return {change.path.decode(): change.entry for change in filesystem.changes() if isinstance(change, Added)}


def opaques_of(filesystem: FileSystem) -> list[str]:
    """Return the opaque directories of a result's layer."""
    return [change.path.decode() for change in filesystem.changes() if isinstance(change, Opaque)]


def rows(tree: Tree, describe: Callable[[FileEntry], str] | None = None) -> list[str]:
    """Return a short description of each entry."""
    return [f"{path} {(describe or _describe)(entry)}" for path, entry in tree.items()]


def _describe(entry: FileEntry) -> str:
    owner = f"{entry.uid}:{entry.gid}"
    if entry.is_symlink:
        return f"-> {entry.link.decode()} {owner}"
    return f"{'d' if entry.is_dir else 'f'}{entry.permissions:04o} {owner}"
