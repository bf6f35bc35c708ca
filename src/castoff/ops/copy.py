"""COPY, ADD, WORKDIR: steps whose result is known without a process."""

from __future__ import annotations

import os
import stat
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from castoff.errors import ContextError, InvalidImageError, UsageError
from castoff.fs.entry import FileEntry, display
from castoff.fs.resolve import clean
from castoff.fs.treelayer import join
from castoff.fs.union import UnionTree
from castoff.image.users import Owner, has_names, owner, unknown_names
from castoff.ops import chmod
from castoff.ops.filesystem import FileSystem, Forms, restored
from castoff.ops.parts import source_parts
from castoff.ops.select import Selected
from castoff.ops.staging import Staging
from castoff.ops.unpack import unpack_archives
from castoff.solve.explain import KeyParts, key_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from castoff.fs.changes import Change
    from castoff.ops.parts import SourcePart
    from castoff.ops.sources import Result, StepSource
    from castoff.ops.workspace import Workspace
    from castoff.plan.step import CopyStep, WorkdirStep
    from castoff.solve.cache import CacheRecord
    from castoff.solve.cachekey import CacheKey
    from castoff.solve.progress import VertexProgress

_COPIED = stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO


class WorkdirOp:
    """Makes a directory and its missing parents, owned by the user of the moment. It always makes a layer."""

    def __init__(self, workspace: Workspace, step: WorkdirStep) -> None:
        self._workspace = workspace
        self._step = step
        self.parts: KeyParts = ()

    def key(self, inputs: Sequence[Result], progress: VertexProgress) -> CacheKey | None:
        """Return the key: the chain so far, the path, the user."""
        del progress
        step = self._step
        self.parts = (("below", _below(inputs).key), ("path", step.path), ("user", step.user), ("mode", step.mode))
        return key_of("workdir", self.parts)

    def restore(self, key: CacheKey, record: CacheRecord, inputs: Sequence[Result]) -> FileSystem | None:
        """Return the recorded result."""
        below = _below(inputs)
        return restored(self._workspace, below, key, record, self._changes(below))

    def execute(self, key: CacheKey | None, inputs: Sequence[Result], progress: VertexProgress) -> FileSystem:
        """Make the directory."""
        del progress
        assert key is not None
        below = _below(inputs)
        result = FileSystem(self._workspace, below, key, Forms(changes=self._changes(below), set_times=True))
        result.changes()
        return result

    def record(self, result: Result) -> CacheRecord | None:
        """Return what to remember."""
        return _record(result)

    def _changes(self, below: FileSystem) -> Callable[[], tuple[Change, ...]]:
        def make() -> tuple[Change, ...]:
            tree = below.tree()
            staging = Staging(tree)
            path = staging.resolve(os.fsencode(self._step.path))
            staging.make_directories(path, owner(tree, self._step.user), self._step.mode)
            staging.touch(path)
            return staging.changes()

        return make


class CopyOp:
    """Copies what a source holds, or what the Dockerfile itself holds, into the file system of a stage."""

    def __init__(self, workspace: Workspace, step: CopyStep) -> None:
        self._workspace = workspace
        self._step = step
        self._sources = source_parts(step)
        self._selections: list[tuple[Selected, ...]] | None = None
        self.parts: KeyParts = ()

    def key(self, inputs: Sequence[Result], progress: VertexProgress) -> CacheKey | None:
        """Return the key: the chain so far (not with ``--link``), the content that is selected, and where it goes."""
        del progress
        step = self._step
        content = ",".join(
            source.content_digest(part.request, owners=source.has_owners and not step.chown)
            for part, source in self._located(inputs)
        )
        self.parts = (
            ("below", None if step.link else _below(inputs).key),
            ("files", content),
            ("heredocs", tuple((file.name, file.data, file.mode) for file in step.files)),
            ("destination", step.dest),
            ("--chown", self._chown_key(inputs)),
            ("--chmod", step.chmod),
            ("--unpack", step.unpack),
        )
        return key_of("add" if step.is_add else "copy", self.parts)

    def _chown_key(self, inputs: Sequence[Result]) -> str:
        """Return the owner for the key: with ``--link``, whose key knows nothing of the parent, names are looked up."""
        chown = self._step.chown
        if not self._step.link or not has_names(chown):
            return chown
        uid, gid = owner(_below(inputs).tree(), chown)
        return f"{uid}:{gid}"

    def restore(self, key: CacheKey, record: CacheRecord, inputs: Sequence[Result]) -> FileSystem | None:
        """Return the recorded result."""

        def ready() -> bool:
            return all(source.is_readable() for source in inputs[1:])

        return restored(self._workspace, _below(inputs), key, record, self._changes(inputs), ready)

    def execute(self, key: CacheKey | None, inputs: Sequence[Result], progress: VertexProgress) -> FileSystem:
        """Put the layer together; files are read when the layer or the snapshot is written."""
        assert key is not None
        if has_names(self._step.chown):
            for name in unknown_names(_below(inputs).tree(), self._step.chown):
                progress.warn(f"--chown={self._step.chown}: there is no {name}, so root is taken")
        result = FileSystem(self._workspace, _below(inputs), key, Forms(changes=self._changes(inputs), set_times=True))
        result.changes()
        return result

    def record(self, result: Result) -> CacheRecord | None:
        """Return what to remember."""
        return _record(result)

    def _located(self, inputs: Sequence[Result]) -> list[tuple[SourcePart, StepSource]]:
        """Return the parts of the step's sources, each with what it is read from."""
        if len(inputs) <= len(self._sources):
            raise UsageError("there is no build context", hint="name a folder as the last argument")
        return [(part, source.as_source()) for part, source in zip(self._sources, inputs[1:], strict=True)]

    def _selected(self, inputs: Sequence[Result]) -> list[tuple[Selected, ...]]:
        if self._selections is None:
            self._selections = [source.select(part.request) for part, source in self._located(inputs)]
        return self._selections

    def _changes(self, inputs: Sequence[Result]) -> Callable[[], tuple[Change, ...]]:
        def make() -> tuple[Change, ...]:
            step = self._step
            tree = _below(inputs).tree()
            staging = Staging(UnionTree() if step.link else tree)
            mover = _Mover(staging, step, self._owner(tree))
            for part, selection in zip(self._sources, self._selected(inputs), strict=True):
                items = unpack_archives(selection, self._workspace.session) if part.unpack else selection
                for item in items:
                    mover.copy(item)
            now = time.time_ns()
            for file in step.files:
                path = clean(os.fsencode(file.name))
                if not path:
                    raise ContextError(f"a file can't be named {file.name!r}")
                mode = stat.S_IFREG | file.mode
                entry = FileEntry(path, mode, size=len(file.data), mtime_ns=now, data=file.data)
                mover.copy(Selected(entry.name, entry))
            return staging.changes()

        return make

    def _owner(self, tree: UnionTree) -> Owner | None:
        return owner(tree, self._step.chown) if self._step.chown else None


class _Mover:
    """Puts selected entries where COPY puts them, source by source, as BuildKit's file operations do."""

    def __init__(self, staging: Staging, step: CopyStep, chown: Owner | None) -> None:
        self._staging = staging
        self._chmod = step.chmod
        self._chown = chown
        self._made_by = chown or Owner(0, 0)
        octal = chmod.octal(step.chmod)
        self._made_mode = 0o755 if octal is None else octal & 0o777
        self._dest = os.fsencode(step.dest)
        self._is_folder = step.dest_is_folder
        self._inodes: dict[tuple[int, int], tuple[int, int]] = {}

    def copy(self, item: Selected) -> None:
        """Copy one selected file or directory, or what is in an archive."""
        if item.unpacked:
            self._unpack(item)
            return
        self._inodes.clear()  # What one source has linked stays linked; nothing is across sources.
        folder = self._dest if self._is_folder else self._dest.rpartition(b"/")[0]
        self._make(self._staging.resolve(folder))
        dest = self._staging.resolve(self._dest)
        if item.top.is_dir:
            self._make(dest)
            for path, entry in item.below:
                where = join(dest, path)
                if path in item.implied:
                    self._imply(where, entry)
                else:
                    self._put(where, entry)
            return
        there = self._staging.lstat(dest)
        if there is not None and there.is_dir:
            dest = join(dest, item.name)
        self._make(dest.rpartition(b"/")[0])
        self._put(dest, item.top)

    def _make(self, path: bytes) -> None:
        self._staging.make_directories(path, self._made_by, self._made_mode)

    def _imply(self, path: bytes, entry: FileEntry) -> None:
        """Make a directory that is wanted for what is below it; one that is there gets its permissions only."""
        there = self._staging.lstat(path)
        if there is not None and there.is_dir:
            self._staging.put(replace(there, mode=entry.mode))
        else:
            self._put(path, entry)

    def _put(self, path: bytes, entry: FileEntry) -> None:
        if stat.S_IFMT(entry.mode) not in _COPIED:
            raise ContextError(f"{display(entry.path)} is neither a file, a directory nor a link, and can't be copied")
        mode = entry.mode
        if self._chmod and not entry.is_symlink:
            mode = chmod.apply(self._chmod, mode)
        uid, gid = self._chown or (entry.uid, entry.gid)
        inode = entry.inode
        if inode is not None:
            inode = self._inodes.get(inode) or self._inodes.setdefault(inode, self._staging.new_inode())
        self._staging.put(replace(entry, path=path, mode=mode, uid=uid, gid=gid, inode=inode))

    def _unpack(self, item: Selected) -> None:
        """Unpack an archive into the destination, entry by entry, as if that were the root of all: no link leads out.

        What is in the way is replaced. ``--chmod`` does not count, missing parents belong to root.
        """
        staging = self._staging
        root = staging.resolve(self._dest)
        staging.make_directories(root, self._made_by)
        for path, entry in item.below:
            folder, _, name = path.rpartition(b"/")
            parent = staging.resolve(folder, root)
            staging.make_directories(parent, Owner(0, 0))
            where = join(parent, name)
            if entry.hardlink is not None:
                self._link(where, entry, root)
                continue
            uid, gid = self._chown or (entry.uid, entry.gid)
            staging.replace(replace(entry, path=where, uid=uid, gid=gid))

    def _link(self, where: bytes, entry: FileEntry, root: bytes) -> None:
        folder, _, name = (entry.hardlink or b"").rpartition(b"/")
        if not self._staging.link(where, join(self._staging.resolve(folder, root), name)):
            raise InvalidImageError(f"the hard link {display(entry.path)} leads to nothing that came before it")


def _below(inputs: Sequence[Result]) -> FileSystem:
    below = inputs[0]
    assert isinstance(below, FileSystem)
    return below


def _record(result: Result) -> CacheRecord | None:
    assert isinstance(result, FileSystem)
    return result.record()
