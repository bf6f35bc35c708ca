"""Sources that are not on this machine: URLs and git repositories, for ADD and for build contexts.

A source that says itself what its content is (a checksum, a whole commit) is only fetched where its files are needed: a
cached build never asks for it. Any other is asked about once a build.
"""

from __future__ import annotations

import os
import posixpath
import stat
import threading
import urllib.parse
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from castoff.context.archive import Peeked, unpack_context
from castoff.context.digests import DigestCache
from castoff.context.git import GitCache
from castoff.context.gitprocess import GitSettings
from castoff.context.gitsource import GitSource, hide_password
from castoff.context.http import HttpCache, HttpFile, HttpSource, parse_checksum
from castoff.context.ignore import IgnorePatterns
from castoff.context.local import LocalContext
from castoff.errors import CastoffError, ContextError, StoreError
from castoff.events import VertexState, WarningEvent
from castoff.fs.entry import FileEntry
from castoff.ops.select import Selected, content_digest
from castoff.ops.sources import Fetched, LoadedContext, LookingOp
from castoff.plan.paths import source_kind
from castoff.plan.step import CopyStep
from castoff.solve.cache import CacheRecord
from castoff.solve.cachekey import cache_key
from castoff.solve.progress import VertexProgress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from io import FileIO

    from castoff.context.git import GitCommit
    from castoff.events import Observer
    from castoff.layer.tarreader import Readable
    from castoff.ops.run import SecretGetter
    from castoff.ops.select import Request
    from castoff.ops.sources import Result
    from castoff.ops.sshagent import SshAgents
    from castoff.ops.workspace import Workspace
    from castoff.solve.cachekey import CacheKey
    from castoff.store.directory import DirectoryStore
    from castoff.store.session import Session

_UNNAMED = "__unnamed__"
_MODE = stat.S_IFREG | 0o600
_MAX_DOCKERFILE = 16 << 20
_KINDS = ("http://", "https://", "git://", "ssh://", "github.com/", "git@")


def is_remote(text: str) -> bool:
    """Say whether the value of a context is one that has to be fetched."""
    return text.startswith(_KINDS) or source_kind(text) != "local"


def asks(payload: object) -> bool:
    """Say whether a step has a remote source that does not say itself what its content is."""
    return isinstance(payload, CopyStep) and payload.is_add and next(unpinned(payload), None) is not None


def unpinned(step: CopyStep) -> Iterator[tuple[str, str, bool]]:
    """Yield the remote sources of an ADD that do not say themselves what their content is.

    Each as the step has it, without a password, and whether it is a git repository.
    """
    for source in step.sources:
        kind = source_kind(source)
        if (kind == "http" and not step.checksum) or (kind == "git" and not git_source(step, source).commit):
            yield source, hide_password(source), kind == "git"


@dataclass(frozen=True, slots=True)
class FetchedContext:
    """A build context that was fetched.

    Attributes:
        folder: host path of its files; "" for none.
        dockerfile: the lone Dockerfile that came instead; None for a folder.
        modified: the time of the source in seconds since 1970; None where it has none.
    """

    folder: str
    dockerfile: bytes | None = field(default=None, repr=False)
    modified: int | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """What a build has of its caller for fetching.

    Attributes:
        secrets: by id.
        agents: ssh agents by id; None for none.
        environment: of the caller: proxies, certificates, the home of ssh.
        observer: told of what could not be asked about.
    """

    secrets: SecretGetter
    agents: SshAgents | None
    environment: Mapping[str, str] = field(repr=False)
    observer: Observer


class Remotes:
    """Fetches sources for one build, into the store's cache. Safe for several threads."""

    def __init__(self, store: DirectoryStore, session: Session, caller: Caller) -> None:
        self._folder = f"{store.cache}/remote"
        self._session = session
        self._caller = caller
        self._http = HttpCache(f"{self._folder}/http", self._new_file)
        self._git: GitCache | None = None
        self._lock = threading.Lock()

    def _new_file(self) -> FileIO:
        return self._session.new_file()

    @property
    def git(self) -> GitCache:
        """The repositories."""
        with self._lock:
            if self._git is None:
                environment = dict(self._caller.environment)
                agent = self._caller.agents.socket("default") if self._caller.agents is not None else None
                if agent is not None:
                    environment["SSH_AUTH_SOCK"] = agent
                settings = GitSettings(environment, self._git_header)
                self._git = GitCache(f"{self._folder}/git", self._session.new_dir, settings)
            return self._git

    def file(self, url: str, checksum: str, progress: VertexProgress) -> HttpFile:
        """Return the file at a URL.

        Raises:
            CastoffError: it can't be had, or is not the promised one.
        """
        source = HttpSource(url, checksum)
        source = replace(source, authorization=self._authorization(source.host))

        def tell(current: int, total: int | None) -> None:
            progress.status(f"downloading {source.shown}", current=current, total=total)

        found = self._http.get(source, tell)
        if found.fetched:
            progress.status(f"downloading {source.shown}", current=found.size, total=found.size, done=True)
        self._warn_stale(source.shown, found.stale)
        return found

    def commit(self, source: GitSource) -> GitCommit:
        """Return the commit that a source stands for.

        Raises:
            CastoffError: it can't be had, or is not the promised one.
        """
        commit = self.git.resolve(source)
        self._warn_stale(source.shown, commit.stale)
        return commit

    def context(self, text: str, name: str, main: bool) -> FetchedContext:
        """Fetch a build context: a git repository, an archive, or a single file.

        The single file is the Dockerfile where the context is the `main` one, else the only file of the folder.

        Args:
            text: the URL.
            name: what progress shows.
            main: whether it is the main context.

        Raises:
            CastoffError: it can't be had.
        """
        progress = VertexProgress(self._caller.observer, f"fetch {name}", name)
        progress.state(VertexState.STARTED)
        try:
            found = self._context(text, progress, main)
        except CastoffError as error:
            progress.state(VertexState.FAILED, error.message)
            raise
        progress.state(VertexState.DONE)
        return found

    def _context(self, text: str, progress: VertexProgress, main: bool) -> FetchedContext:
        if source_kind(text) != "http":
            source = GitSource.parse(text)
            commit = self.commit(source)
            folder = self.git.tree(source, commit)
            return FetchedContext(folder, modified=self.git.commit_time(source, commit))
        found = self.file(text, "", progress)
        shown = HttpSource(text).shown
        try:
            with open(found.path, "rb") as file:
                stream = Peeked(file)
                if stream.is_archive:
                    return FetchedContext(self._unpacked(found, stream, shown), modified=found.modified or None)
                if main:
                    data = stream.read(_MAX_DOCKERFILE + 1)
                    if len(data) > _MAX_DOCKERFILE:
                        raise ContextError(f"{shown} is neither an archive nor a Dockerfile")
                    return FetchedContext("", data, found.modified or None)
        except OSError as error:
            raise StoreError(f"{shown} can't be read from {found.path}: {error.strerror}") from error
        folder = self._session.new_dir()
        os.link(found.path, f"{folder}/context")
        return FetchedContext(folder, modified=found.modified or None)

    def _unpacked(self, found: HttpFile, stream: Readable, shown: str) -> str:
        """Return the folder with what an archive holds; it is unpacked once for all builds."""
        path = f"{self._folder}/trees/{found.sha256}"
        if os.path.isdir(path):
            return path
        temporary = self.unpacked(stream, shown)
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.rename(temporary, path)
        except OSError as error:
            if not os.path.isdir(path):
                raise StoreError(f"{shown} can't be kept in {path}: {error.strerror}") from error
        return path

    def unpacked(self, stream: Readable, shown: str) -> str:
        """Unpack an archive into a folder of the session and return its host path.

        Raises:
            InvalidImageError: it is damaged, or holds paths that lead out of it.
            StoreError: it can't be written.
        """
        folder = f"{self._session.new_dir()}/tree"
        os.mkdir(folder, 0o755)
        unpack_context(stream, folder, shown)
        return folder

    def _warn_stale(self, shown: str, reason: str) -> None:
        if reason:
            self._caller.observer.warning(WarningEvent(f"{shown} is taken from the cache: {reason}"))

    def _secret(self, *names: str) -> str:
        """Return the first secret that was given, as the value of a header."""
        for name in names:
            data = self._caller.secrets.get(name)
            if data is not None:
                text = data.decode("latin-1").strip()
                if any(ord(character) < 0x20 or ord(character) == 0x7F for character in text):
                    raise ContextError(f"the secret {name} is no header: it has more than one line")
                return text
        return ""

    def _authorization(self, host: str) -> str:
        """Return the Authorization header that a secret gives for a host; "" for none."""
        hosts = tuple(dict.fromkeys((host, host.partition(":")[0])))
        header = self._secret(*(f"HTTP_AUTH_HEADER_{name}" for name in hosts))
        token = "" if header else self._secret(*(f"HTTP_AUTH_TOKEN_{name}" for name in hosts))
        return header or (f"Bearer {token}" if token else "")

    def _git_header(self, host: str) -> str:
        hosts = tuple(dict.fromkeys((f".{host}", f".{host.partition(':')[0]}", "")))
        header = self._secret(*(f"GIT_AUTH_HEADER{name}" for name in hosts))
        token = "" if header else self._secret(*(f"GIT_AUTH_TOKEN{name}" for name in hosts))
        if not token:
            return header
        import base64

        return "Basic " + base64.b64encode(f"x-access-token:{token}".encode("latin-1")).decode("ascii")


class RemoteOp(LookingOp):
    """Finds out what a remote source of ADD holds; its files are fetched when they are needed."""

    def __init__(self, workspace: Workspace, remotes: Remotes, step: CopyStep, source: str) -> None:
        """Take one source of a step.

        Raises:
            CastoffError: the source, or the step's checksum, is not well formed.
        """
        self._workspace = workspace
        self._remotes = remotes
        self._url = source
        self._git = git_source(step, source) if source_kind(source) == "git" else None
        self._sha256 = parse_checksum(step.checksum) if step.checksum and self._git is None else ""

    def execute(self, key: CacheKey | None, inputs: Sequence[Result], progress: VertexProgress) -> Result:
        """Ask about what does not say itself what it is."""
        del key, inputs
        if self._git is not None:
            commit = self._remotes.commit(self._git)
            return Fetched(_GitTree(self._workspace, self._remotes, self._git, commit))
        if self._sha256:
            return Fetched(
                _RemoteFile(
                    self._workspace,
                    self._url,
                    self._sha256,
                    lambda: self._remotes.file(self._url, self._sha256, progress),
                )
            )
        found = self._remotes.file(self._url, "", progress)
        return Fetched(_RemoteFile(self._workspace, self._url, found.sha256, lambda: found))


class _RemoteFile:
    """A file at a URL as a source: root's, for nobody else to read, named as the URL ends."""

    has_owners = False

    def __init__(self, workspace: Workspace, url: str, sha256: str, fetch: Callable[[], HttpFile]) -> None:
        self._workspace = workspace
        self._name = os.fsencode(file_name(url))
        self._sha256 = sha256
        self._fetch = fetch

    def select(self, request: Request) -> tuple[Selected, ...]:
        """Return the file, fetched."""
        if self._is_excluded(request):
            return ()
        found = self._fetch()
        status = os.lstat(found.path)
        stamp = (status.st_dev, status.st_ino, status.st_ctime_ns)
        entry = replace(
            self._entry(),
            size=found.size,
            mtime_ns=found.modified * 10**9,
            source=os.fsencode(found.path),
            stamp=stamp,
        )
        return (Selected(self._name, entry),)

    def content_digest(self, request: Request, *, owners: bool) -> str:
        """Return the digest of the file with its name, for which it need not be at hand."""
        del owners
        selection = () if self._is_excluded(request) else (Selected(self._name, self._entry()),)
        digest = content_digest(self, selection, owners=False)
        self._workspace.listings.keep(digest, self, selection, owners=False)
        return digest

    def _entry(self) -> FileEntry:
        return FileEntry(self._name, _MODE)

    def _is_excluded(self, request: Request) -> bool:
        return bool(request.excludes) and IgnorePatterns.of(request.excludes).excludes(os.fsdecode(self._name))

    def lstat(self, path: bytes) -> FileEntry | None:
        """Return the file itself."""
        return self._entry() if path == self._name else None

    def listdir(self, path: bytes) -> list[bytes]:
        """Return its name."""
        del path
        return [self._name]

    def walk(self, path: bytes) -> Iterator[FileEntry]:
        """Yield it."""
        del path
        yield self._entry()

    def digest(self, entry: FileEntry) -> bytes:
        """Return the sha256 digest of its content."""
        del entry
        return bytes.fromhex(self._sha256)

    def describe(self, path: bytes) -> str:
        """Return nothing: it is never missing."""
        del path
        return ""


class _GitTree:
    """A commit's tree as a source. It is checked out where its files, or digests not yet known, are needed."""

    has_owners = False

    def __init__(self, workspace: Workspace, remotes: Remotes, source: GitSource, commit: GitCommit) -> None:
        self._workspace = workspace
        self._remotes = remotes
        self._source = source
        self._commit = commit
        self._lock = threading.Lock()
        self._loaded: LoadedContext | None = None

    def _load(self) -> LoadedContext:
        with self._lock:
            if self._loaded is None:
                folder = self._remotes.git.tree(self._source, self._commit)
                self._loaded = LoadedContext(self._workspace, LocalContext(folder, None, DigestCache(None)))
            return self._loaded

    def select(self, request: Request) -> tuple[Selected, ...]:
        """Return what a step selects of it."""
        return self._load().select(request)

    def content_digest(self, request: Request, *, owners: bool) -> str:
        """Return the digest of what a step selects; it is remembered, since a commit never changes."""
        source = self._source
        memo = cache_key(
            "git",
            self._commit.sha,
            source.remote if source.keep_git_dir or source.submodules else "",
            source.subdir,
            source.keep_git_dir,
            source.submodules,
            request.sources,
            request.excludes,
        )
        record = self._workspace.cache.load(memo)
        known = record.facts.get("content") if record is not None else None
        if known is None:
            known = self._load().content_digest(request, owners=owners)
            self._workspace.cache.save(memo, CacheRecord(facts={"content": known}))
        return known


def file_name(url: str) -> str:
    """Return the name that a file gets which ADD fetches: the last part of the URL's path."""
    path = urllib.parse.unquote(urllib.parse.urlsplit(url).path, errors="surrogateescape")
    name = posixpath.basename(path.rstrip("/"))
    return _UNNAMED if name in ("", ".", "..") or "\0" in name else name


def git_source(step: CopyStep, text: str) -> GitSource:
    """Return a git source of a step.

    Raises:
        UsageError: it is not well formed.
    """
    source = GitSource.parse(text)
    if step.checksum:
        source = source.with_checksum(step.checksum)
    if step.keep_git_dir is not None:
        source = replace(source, keep_git_dir=step.keep_git_dir)
    return source
