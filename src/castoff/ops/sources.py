"""Where steps copy from: the result of a vertex, or a build context."""

from __future__ import annotations

import hashlib
import os
import threading
from typing import TYPE_CHECKING, Protocol

from castoff.context.digests import Fingerprint, hash_file
from castoff.errors import ContextError
from castoff.fs.entry import display
from castoff.fs.union import UnionTree
from castoff.image.users import Owner
from castoff.ops.filesystem import FileSystem, Forms
from castoff.ops.select import Request, Selected, content_digest, explain_missing, links_on, select
from castoff.ops.staging import Staging
from castoff.solve.cache import CacheRecord
from castoff.solve.cachekey import cache_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from castoff.context.local import LocalContext
    from castoff.fs.changes import Change
    from castoff.fs.entry import FileEntry
    from castoff.ops.workspace import Workspace
    from castoff.solve.cachekey import CacheKey
    from castoff.solve.progress import VertexProgress


class StepSource(Protocol):
    """What a step reads from. Reading is idempotent; safe for several threads."""

    @property
    def has_owners(self) -> bool:
        """Whether its files have owners that are kept."""

    def select(self, request: Request) -> tuple[Selected, ...]:
        """Return what a step selects of it."""

    def content_digest(self, request: Request, *, owners: bool) -> str:
        """Return the digest of what a step selects of it."""


class _StageTree:
    """The tree of a stage, read for COPY."""

    def __init__(self, tree: UnionTree) -> None:
        self._tree = tree
        self._digests: dict[bytes, bytes] = {}
        self.lstat = tree.lstat
        self.listdir = tree.listdir
        self.walk = tree.walk

    def digest(self, entry: FileEntry) -> bytes:
        """Return the sha256 digest of a file, which is read once."""
        if entry.source is None:
            return hashlib.sha256(entry.data or b"").digest()
        digest = self._digests.get(entry.source)
        if digest is None:
            digest = self._digests[entry.source] = hash_file(entry.source, Fingerprint.of(os.lstat(entry.source)))
        return digest

    def describe(self, path: bytes) -> str:
        """Return what to say of a missing path."""
        folder, _, name = path.rpartition(b"/")
        if not self._tree.is_dir(folder):
            return f" in the source: it has no directory /{display(folder)}"
        close = [other for other in self._tree.listdir(folder) if other.lower() == name.lower()]
        return f" in the source; did you mean {display(close[0])!r}?" if close else " in the source"


def selection_key(snapshot: str, request: Request, owners: bool) -> CacheKey:
    """Return the key under which the digest of what a step selects of a snapshot is remembered."""
    return cache_key("selection", snapshot, request.sources, request.excludes, request.parents, owners)


class FileSystemSource:
    """A stage, or an image, as a source."""

    has_owners = True

    def __init__(self, workspace: Workspace, filesystem: FileSystem) -> None:
        self._workspace = workspace
        self._filesystem = filesystem

    def select(self, request: Request) -> tuple[Selected, ...]:
        """Return what a step selects of it."""
        return select(_StageTree(self._filesystem.tree()), request)

    def content_digest(self, request: Request, *, owners: bool) -> str:
        """Return the digest of what a step selects; it is remembered, since a snapshot never changes."""
        content = self._content_digest(request, owners)
        self._workspace.selections[self._filesystem, request, owners] = content
        return content

    def _content_digest(self, request: Request, owners: bool) -> str:
        memo = selection_key(self._filesystem.name, request, owners)
        record = self._workspace.cache.load(memo)
        known = record.facts.get("content") if record is not None else None
        if known is not None:
            return known
        tree = _StageTree(self._filesystem.tree())
        selection = select(tree, request)
        content = content_digest(tree, selection, owners=owners)
        self._workspace.listings.keep(content, tree, selection, owners=owners)
        self._workspace.cache.save(memo, CacheRecord(facts={"content": content}))
        return content


class _ContextTree:
    """A build context, read for COPY."""

    def __init__(self, context: LocalContext) -> None:
        self._context = context
        self.lstat = context.lstat
        self.listdir = context.listdir
        self.walk = context.walk
        self.digest = context.digest

    def describe(self, path: bytes) -> str:
        """Return what to say of a missing path."""
        ignored = self._context.excludes(path)
        folder = path.rpartition(b"/")[0]
        try:
            siblings = self._context.listdir(folder)
        except ContextError:
            siblings = []
        return explain_missing(path, ignored, siblings)


class LoadedContext:
    """A build context as the result of a vertex. Safe for several threads."""

    has_owners = False

    def __init__(self, workspace: Workspace, context: LocalContext) -> None:
        self._workspace = workspace
        self._context = context
        self._tree = _ContextTree(context)
        self._lock = threading.Lock()
        self._selected: dict[Request, tuple[Selected, ...]] = {}
        self._digests: dict[Request, str] = {}

    @property
    def context(self) -> LocalContext:
        """The folder."""
        return self._context

    def is_readable(self) -> bool:
        """Tell that its files are at hand."""
        return True

    def as_source(self) -> StepSource:
        """Return itself."""
        return self

    def as_filesystem(self, request: Request) -> FileSystem:
        """Return a file system that holds what is asked for, at its own path, to be mounted; with the links to it."""
        content = self.content_digest(request, owners=False)
        with self._lock:
            links = [link for source in request.sources for link in links_on(self._tree, os.fsencode(source))]
        where = [(link.path, link.link) for link in links]
        key = cache_key("context", content, request.sources, tuple(where))

        def changes() -> tuple[Change, ...]:
            staging = Staging(UnionTree())
            for link in links:
                staging.make_directories(link.parent, Owner(0, 0))
                staging.put(link)
            for item in self.select(request):
                staging.make_directories(item.top.parent, Owner(0, 0))
                for entry in (item.top, *(entry for _path, entry in item.below)):
                    if entry.path:
                        staging.put(entry)
            return staging.changes()

        return FileSystem(self._workspace, FileSystem.empty(self._workspace, ""), key, Forms(changes=changes))

    def select(self, request: Request) -> tuple[Selected, ...]:
        """Return what a step selects of it."""
        with self._lock:
            return self._select(request)

    def _select(self, request: Request) -> tuple[Selected, ...]:
        selected = self._selected.get(request)
        if selected is None:
            selected = self._selected[request] = select(self._tree, request)
        return selected

    def content_digest(self, request: Request, *, owners: bool) -> str:
        """Return the digest of what a step selects of it."""
        del owners
        with self._lock:
            digest = self._digests.get(request)
            if digest is None:
                digest = content_digest(self._tree, self._select(request), owners=False)
                self._workspace.listings.keep(digest, self._tree, self._select(request), owners=False)
                self._digests[request] = digest
            return digest


class Fetched:
    """What ADD fetches from elsewhere, as the result of a vertex. Nothing but ADD has one as an input."""

    def __init__(self, source: StepSource) -> None:
        self._source = source

    def is_readable(self) -> bool:
        """Tell that its files have to be fetched, or at least looked for."""
        return False

    def as_source(self) -> StepSource:
        """Return what reads it."""
        return self._source

    def as_filesystem(self, request: Request) -> FileSystem:
        """Refuse.

        Raises:
            ContextError: always.
        """
        raise ContextError(f"what ADD fetches can't be mounted: {' '.join(request.sources)}")


Result = FileSystem | LoadedContext | Fetched
"""What a vertex leaves."""


class LookingOp:
    """An operation that only looks: nothing of it is remembered, and it is done each time."""

    def key(self, inputs: Sequence[Result], progress: VertexProgress) -> CacheKey | None:
        """Return None."""
        del inputs, progress
        return None

    def restore(self, key: CacheKey, record: CacheRecord, inputs: Sequence[Result]) -> Result | None:
        """Return None."""
        del key, record, inputs
        return None

    def record(self, result: Result) -> CacheRecord | None:
        """Return None."""
        del result
        return None


class ContextOp(LookingOp):
    """Looks at what the steps will ask of a build context, and reads what has changed since it was last read."""

    def __init__(self, workspace: Workspace, context: LocalContext, requests: Sequence[Request]) -> None:
        self._workspace = workspace
        self._context = context
        self._requests = requests

    def execute(self, key: CacheKey | None, inputs: Sequence[Result], progress: VertexProgress) -> Result:
        """Read the context; what is missing in it is the error of the step that asks for it."""
        del key, inputs
        loaded = LoadedContext(self._workspace, self._context)
        for request in self._requests:
            try:
                loaded.content_digest(request, owners=False)
            except ContextError:
                continue
        self._context.save()
        self._context.close()
        progress.status("transferring context:", current=self._context.bytes_read, done=True)
        return loaded


class BaseOp(LookingOp):
    """The file system of an image, or the empty one: nothing is unpacked before a step needs its files."""

    def __init__(self, make: FileSystem) -> None:
        self._make = make

    def execute(self, key: CacheKey | None, inputs: Sequence[Result], progress: VertexProgress) -> Result:
        """Return the file system, whose unpacking will be shown as work of this vertex."""
        del key, inputs
        self._make.show_in(progress)
        return self._make


class ContextBaseOp(LookingOp):
    """A build context as what a stage starts from: all of its files. The file system has a key of its own."""

    def execute(self, key: CacheKey | None, inputs: Sequence[Result], progress: VertexProgress) -> Result:
        """Return the file system."""
        del key, progress
        return inputs[0].as_filesystem(Request(("/",)))
