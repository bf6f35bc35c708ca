"""What a build gets from elsewhere: contexts that are not folders, remote sources of ADD, secrets and ssh agents."""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from castoff.context.archive import Peeked, read_inside
from castoff.errors import ContextError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from castoff.events import Observer
    from castoff.ops.lazyblobs import LazyBlobs
    from castoff.ops.registrybases import RegistryBases
    from castoff.ops.remote import FetchedContext, Remotes
    from castoff.ops.sshagent import SshAgents
    from castoff.plan.graph import StageGraph
    from castoff.registry.client import RegistryClient
    from castoff.request import BuildRequest, SecretSource
    from castoff.store.directory import DirectoryStore

MAX_FILE = 16 << 20
"""The largest Dockerfile or ignore file that is read, in bytes."""
_MAX_SECRET = 500 << 10
_STDIN = "the archive on standard input"


@dataclass(frozen=True, slots=True)
class Gathered:
    """A request whose context is a folder of this machine.

    Attributes:
        request: with the folder and the Dockerfile.
        ignore: the ignore file; None where there is none.
        modified: the time of the context in seconds since 1970; None where it has none.
    """

    request: BuildRequest
    ignore: bytes | None
    modified: int | None = None


def is_fetched(request: BuildRequest) -> bool:
    """Say whether the context of a request has to be fetched or unpacked."""
    if request.context_stream is not None:
        return True
    return may_be_remote(request.context)


def may_be_remote(text: str) -> bool:
    """Say whether the value of a context is one that has to be fetched."""
    if "://" not in text and "@" not in text and not text.startswith("github.com/"):
        return False
    from castoff.ops.remote import is_remote

    return is_remote(text)


def gather(request: BuildRequest, remotes: Remotes) -> Gathered:
    """Fetch or unpack the context of a request, and read its Dockerfile and ignore file, neither out of it.

    Raises:
        CastoffError: the context can't be had, or has no Dockerfile.
    """
    found = _context(request, remotes)
    if found.dockerfile is not None:
        if request.dockerfile:
            raise UsageError(
                "-f names a file of the build context, and the URL is itself a Dockerfile", hint="leave -f out"
            )
        made = replace(request, context="", dockerfile_data=found.dockerfile, context_stream=None)
        return Gathered(_told(made), None, found.modified)
    name = request.dockerfile or "Dockerfile"
    data = request.dockerfile_data
    candidates = [".dockerignore"]
    if data is None and os.path.isabs(name):
        data = _host_file(name)
    elif data is None:
        data = read_inside(found.folder, name, MAX_FILE)
        candidates.insert(0, f"{name}.dockerignore")
        if data is None:
            raise ContextError(f"the build context has no file {name}", hint="name the Dockerfile in it with -f")
    contents = (read_inside(found.folder, path, MAX_FILE) for path in candidates)
    ignore = next((content for content in contents if content is not None), None)
    made = replace(request, context=found.folder, dockerfile="", dockerfile_data=data, context_stream=None)
    return Gathered(_told(made), ignore, found.modified)


@contextlib.contextmanager
def fetched_dockerfile(request: BuildRequest) -> Iterator[BuildRequest]:
    """Give a request that has its Dockerfile, for looking at it only; a context that was fetched is left out of it.

    Raises:
        CastoffError: the context can't be had, or has no Dockerfile.
    """
    if not is_fetched(request):
        yield request
        return
    from castoff.events import NullObserver
    from castoff.store.directory import DirectoryStore

    with DirectoryStore.open_(request.store) as store, contextlib.ExitStack() as stack:
        remotes = Fetcher(request, store, NullObserver(), stack).remotes()
        found = replace(gather(request, remotes).request, context="")
    yield found


def _context(request: BuildRequest, remotes: Remotes) -> FetchedContext:
    if request.context_stream is None:
        return remotes.context(request.context, "[internal] load remote build context", main=True)
    from castoff.ops.remote import FetchedContext

    stream = request.context_stream
    if not isinstance(stream, Peeked):
        stream = Peeked(stream)
    return FetchedContext(remotes.unpacked(stream, _STDIN))


def _told(request: BuildRequest) -> BuildRequest:
    if request.on_dockerfile is not None:
        assert request.dockerfile_data is not None
        request.on_dockerfile(request.dockerfile_data)
    return request


def _host_file(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise ContextError(f"{path} can't be read: {error.strerror}") from error
    if len(data) > MAX_FILE:
        raise ContextError(f"{path} has more than {MAX_FILE >> 20} MiB")
    return data


class Fetcher:
    """What fetches for a build, made when something has to be fetched; and the ssh agents, likewise."""

    def __init__(
        self, request: BuildRequest, store: DirectoryStore, observer: Observer, stack: contextlib.ExitStack
    ) -> None:
        self._request = request
        self._store = store
        self._observer = observer
        self._stack = stack
        self._lock = threading.Lock()
        self._remotes: Remotes | None = None
        self._agents: SshAgents | None = None
        self._registry: RegistryClient | None = None
        self._fetched: dict[str, FetchedContext] = {}

    def agents(self) -> SshAgents | None:
        """Return the agents that were given; None for none."""
        if self._agents is None and self._request.ssh:
            from castoff.ops.sshagent import SshAgents

            sources = {source.id: source.paths for source in self._request.ssh}
            new_dir = self._store.session().new_dir
            self._agents = SshAgents(sources, dict(self._request.environment), new_dir)
            self._stack.callback(self._agents.close)
        return self._agents

    def remotes(self) -> Remotes:
        """Return what fetches."""
        with self._lock:
            if self._remotes is None:
                from castoff.ops.remote import Caller, Remotes

                environment = dict(self._request.environment)
                caller = Caller(Secrets(self._request.secrets), self.agents(), environment, self._observer)
                self._remotes = Remotes(self._store, self._store.session(), caller)
            return self._remotes

    def registry(self) -> RegistryClient:
        """Return what speaks to registries."""
        with self._lock:
            if self._registry is None:
                from castoff.registry.client import RegistryClient

                request = self._request
                client = RegistryClient.open_(dict(request.environment), request.registries)
                self._registry = self._stack.enter_context(client)
            return self._registry

    def cancel(self) -> None:
        """Make what is being transferred from or to registries fail soon. Idempotent."""
        if self._registry is not None:
            self._registry.cancel()

    def bases(self, lazy: LazyBlobs) -> RegistryBases:
        """Return what asks registries for bases, whose layers are left to `lazy`."""
        from castoff.ops.registrybases import Access, RegistryBases

        return RegistryBases(self._store, Access(self.registry, self._request.pull, lazy, self._observer))

    def folder(self, text: str, name: str) -> str:
        """Return the folder of a named context, fetched once."""
        return self._get(text, f"[context {name}] load from elsewhere").folder

    def time(self, name: str) -> int | None:
        """Return the time of a named context or a URL in seconds since 1970; None where it has none."""
        values = [value for key, value in self._request.build_contexts if key.lower() == name.lower()]
        text = values[-1] if values else name
        if not may_be_remote(text):
            return None
        return self._get(text, f"[context {name}] load from elsewhere").modified

    def _get(self, text: str, title: str) -> FetchedContext:
        found = self._fetched.get(text)
        if found is None:
            found = self._fetched[text] = self.remotes().context(text, title, main=False)
        return found

    def has(self, folder: str) -> bool:
        """Say whether a folder was fetched."""
        return any(folder == os.path.abspath(found.folder) for found in self._fetched.values() if found.folder)

    def read(self, folder: str, name: str) -> bytes | None:
        """Return the content of a file of a folder that was fetched; None where there is none."""
        if not self.has(folder):
            return None
        return read_inside(folder, name, MAX_FILE)

    def must_ask(self, graph: StageGraph, *, locked: bool = False) -> bool:
        """Say whether the next build has to ask elsewhere whether something changed; what is locked can't have."""
        if self._fetched:
            return True
        if self._remotes is None or locked:
            return False
        from castoff.ops.remote import asks

        return any(asks(step.payload) for stage in graph.stages for step in stage.steps)


class Secrets:
    """The secrets of a request by id, each read when a step asks for it."""

    def __init__(self, sources: Iterable[SecretSource]) -> None:
        self._sources = {source.id: source for source in sources}

    def get(self, name: str) -> bytes | None:
        """Return the content of a secret; None where it was not given.

        Raises:
            ContextError: its file can't be read, or is larger than 500 KiB.
        """
        source = self._sources.get(name)
        if source is None:
            return None
        if source.path is None:
            return source.value
        try:
            with open(source.path, "rb") as file:
                data = file.read(_MAX_SECRET + 1)
        except OSError as error:
            raise ContextError(f"the secret {name} can't be read from {source.path}: {error.strerror}") from error
        if len(data) > _MAX_SECRET:
            raise ContextError(f"the secret {name} has more than {_MAX_SECRET >> 10} KiB")
        return data
