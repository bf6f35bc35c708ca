"""COPY, ADD of local files, WORKDIR: steps whose result is known without a process."""

from __future__ import annotations

import os
import stat
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from castoff.errors import ContextError, UsageError
from castoff.fs.entry import FileEntry, display
from castoff.fs.resolve import clean
from castoff.fs.union import UnionTree
from castoff.image.users import Owner, owner
from castoff.ops import chmod
from castoff.ops.filesystem import FileSystem, Forms, restored
from castoff.ops.select import Request
from castoff.ops.staging import Staging
from castoff.ops.unpack import unpack_archives
from castoff.solve.cachekey import cache_key

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from castoff.fs.changes import Change
    from castoff.ops.select import Selected
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

    def key(self, inputs: Sequence[Result], progress: VertexProgress) -> CacheKey | None:
        """Return the key: the chain so far, the path, the user."""
        del progress
        return cache_key("workdir", _below(inputs).key, self._step.path, self._step.user, self._step.mode)

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
        self._request = Request(step.sources, step.excludes, step.parents)
        self._selection: tuple[Selected, ...] | None = None

    def key(self, inputs: Sequence[Result], progress: VertexProgress) -> CacheKey | None:
        """Return the key: the chain so far (not with ``--link``), the content that is selected, and where it goes."""
        del progress
        step = self._step
        content = ""
        if step.sources:
            source = _source(inputs)
            content = source.content_digest(self._request, owners=source.has_owners and not step.chown)
        return cache_key(
            "add" if step.is_add else "copy",
            None if step.link else _below(inputs).key,
            content,
            tuple((file.name, file.data, file.mode) for file in step.files),
            step.dest,
            step.chown,
            step.chmod,
            step.unpack,
        )

    def restore(self, key: CacheKey, record: CacheRecord, inputs: Sequence[Result]) -> FileSystem | None:
        """Return the recorded result."""
        return restored(self._workspace, _below(inputs), key, record, self._changes(inputs))

    def execute(self, key: CacheKey | None, inputs: Sequence[Result], progress: VertexProgress) -> FileSystem:
        """Put the layer together; files are read when the layer or the snapshot is written."""
        del progress
        assert key is not None
        result = FileSystem(self._workspace, _below(inputs), key, Forms(changes=self._changes(inputs), set_times=True))
        result.changes()
        return result

    def record(self, result: Result) -> CacheRecord | None:
        """Return what to remember."""
        return _record(result)

    def _selected(self, inputs: Sequence[Result]) -> tuple[Selected, ...]:
        if self._selection is None:
            self._selection = _source(inputs).select(self._request) if self._step.sources else ()
        return self._selection

    def _changes(self, inputs: Sequence[Result]) -> Callable[[], tuple[Change, ...]]:
        def make() -> tuple[Change, ...]:
            step = self._step
            tree = _below(inputs).tree()
            staging = Staging(UnionTree() if step.link else tree)
            mover = _Mover(staging, step, owner(tree, step.chown) if step.chown else None)
            selection = self._selected(inputs)
            if step.is_add and step.unpack is not False:
                selection = unpack_archives(selection, self._workspace.session, required=step.unpack is True)
            for item in selection:
                mover.copy(item)
            now = time.time_ns()
            for file in step.files:
                entry = FileEntry(
                    os.fsencode(file.name), stat.S_IFREG | file.mode, size=len(file.data), mtime_ns=now, data=file.data
                )
                mover.copy_file(entry.path, entry)
            return staging.changes()

        return make


class _Mover:
    """Puts selected entries where COPY puts them."""

    def __init__(self, staging: Staging, step: CopyStep, chown: Owner | None) -> None:
        self._staging = staging
        self._step = step
        self._chown = chown
        self._made_by = chown or Owner(0, 0)
        self._dest = os.fsencode(step.dest)
        if step.dest_is_folder or step.parents:
            staging.make_directories(staging.resolve(self._dest), self._made_by)

    def copy(self, item: Selected) -> None:
        """Copy one selected file or directory."""
        if item.path or self._step.parents:
            self._copy_with_parents(item)
        elif item.top.is_dir:
            dest = self._staging.resolve(self._dest)
            self._staging.make_directories(dest, self._made_by)
            self._copy_below(item, dest)
        else:
            self.copy_file(item.name, item.top)

    def copy_file(self, name: bytes, entry: FileEntry) -> None:
        """Copy something that is not a directory to the destination, or into it where that is a directory."""
        dest = self._staging.resolve(self._dest)
        there = self._staging.lstat(dest)
        if there is not None and there.is_dir:
            dest = _join(dest, name)
        self._staging.make_directories(dest.rpartition(b"/")[0], self._made_by)
        self._put(dest, entry)

    def _copy_with_parents(self, item: Selected) -> None:
        dest = self._staging.resolve(self._dest)
        for path, entry in item.parents:
            where = _join(dest, path)
            if self._staging.lstat(where) is None:
                self._put(where, entry)
        where = _join(dest, item.path) if item.path else dest
        if item.top.is_dir:
            if self._staging.lstat(where) is None:
                self._put(where, item.top)
            self._copy_below(item, where)
        else:
            self._put(where, item.top)

    def _copy_below(self, item: Selected, dest: bytes) -> None:
        for path, entry in item.below:
            where = _join(dest, path)
            if item.unpacked:
                folder, _, name = where.rpartition(b"/")
                where = _join(self._staging.resolve(folder), name)
                self._staging.make_directories(where.rpartition(b"/")[0], self._made_by)
            self._put(where, entry)

    def _put(self, path: bytes, entry: FileEntry) -> None:
        if stat.S_IFMT(entry.mode) not in _COPIED:
            raise ContextError(f"{display(entry.path)} is neither a file, a directory nor a link, and can't be copied")
        mode = entry.mode
        if self._step.chmod and not entry.is_symlink:
            mode = chmod.apply(self._step.chmod, mode)
        uid, gid = self._chown or (entry.uid, entry.gid)
        self._staging.put(replace(entry, path=path, mode=mode, uid=uid, gid=gid))


def _join(folder: bytes, name: bytes) -> bytes:
    return clean(folder + b"/" + name)


def _below(inputs: Sequence[Result]) -> FileSystem:
    below = inputs[0]
    assert isinstance(below, FileSystem)
    return below


def _source(inputs: Sequence[Result]) -> StepSource:
    if len(inputs) < 2:
        raise UsageError("there is no build context", hint="name a folder as the last argument")
    source = inputs[1]
    return source.as_source()


def _record(result: Result) -> CacheRecord | None:
    assert isinstance(result, FileSystem)
    return result.record()
