"""Finds out what the names of a Dockerfile stand for, to be locked."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from castoff.checks import dockerfile_of, dockerfile_path, plan_request
from castoff.dockerfile.instructions import From
from castoff.dockerfile.parser import read
from castoff.errors import ContextError, UsageError
from castoff.events import NullObserver
from castoff.fetching import Fetcher, is_fetched
from castoff.oci.config import ImageConfig
from castoff.oci.platform import Platform
from castoff.ops.lazyblobs import LazyBlobs
from castoff.ops.resolver import Elsewhere, StoreResolver
from castoff.plan.lock import SUFFIX, Lock
from castoff.plan.planner import plan
from castoff.plan.step import CopyStep
from castoff.store.directory import DirectoryStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import ExitStack

    from castoff.dockerfile.parser import Dockerfile
    from castoff.events import Observer
    from castoff.oci.digest import Digest
    from castoff.plan.graph import StageGraph
    from castoff.request import BuildRequest


def lock_path(request: BuildRequest) -> str:
    """Return the host path of the lock of a request's Dockerfile, whether or not it exists.

    Raises:
        UsageError: the Dockerfile is no file of this machine.
    """
    if request.dockerfile_data is not None or is_fetched(request):
        raise UsageError("a lock stands beside its Dockerfile, and this one is no file of this machine")
    return dockerfile_path(request) + SUFFIX


def read_lock(path: str) -> Lock | None:
    """Return the lock in a file; None where there is none.

    Raises:
        ContextError: it can't be read.
        PlanError: it is not well formed.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ContextError(f"{path} can't be read: {error.strerror}") from error
    return Lock.parse(data, os.path.basename(path))


def make_lock(request: BuildRequest, known: Lock | None, observer: Observer | None = None) -> Lock:
    """Return the lock of a Dockerfile, for its target and platforms; without a target for all of its stages.

    Args:
        request: what would be built; its Dockerfile is a file.
        known: entries that stay as they are where the Dockerfile still has their names; None asks for all anew. A
            request whose `pull` is ``always`` asks registries, and not the store, what is new.
        observer: told of what could not be asked about.

    Raises:
        CastoffError: a name stands for nothing that can be found.
    """
    with DirectoryStore.open_(request.store) as store, contextlib.ExitStack() as stack:
        return _Locking(request, store, observer or NullObserver(), stack).lock(known)


class _Locking:
    """One lock in the making."""

    def __init__(self, request: BuildRequest, store: DirectoryStore, observer: Observer, stack: ExitStack) -> None:
        self._request = request
        self._store = store
        self._observer = observer
        self._fetcher = Fetcher(request, store, observer, stack)
        self._lazy = LazyBlobs(store.blobs, observer, self._fetcher.cancel)

    def lock(self, known: Lock | None) -> Lock:
        name, data = dockerfile_of(self._request)
        reading = read(data, name)
        if reading.error is not None:
            raise reading.error
        images: dict[str, Digest] = {}
        sources: dict[str, tuple[CopyStep, str, bool]] = {}
        for resolver, graph in self._plans(reading.dockerfile, known):
            for reference, descriptor in resolver.consulted.items():
                tagged = replace(reference, digest=None)
                if reference.digest is None:
                    images[str(reference)] = descriptor.digest
                elif known is not None and known.images.get(str(tagged)) == reference.digest:
                    images[str(tagged)] = reference.digest
            sources |= dict(_sources(graph))
        urls: dict[str, Digest] = {}
        git: dict[str, str] = {}
        for shown, (step, source, is_git) in sources.items():
            if is_git:
                kept = known.git.get(shown) if known is not None else None
                git[shown] = kept or self._commit(step, source)
            else:
                digest = known.urls.get(shown) if known is not None else None
                urls[shown] = digest or self._file(source)
        return Lock(images, urls, git, name + SUFFIX)

    def _plans(self, dockerfile: Dockerfile, known: Lock | None) -> Iterator[tuple[StoreResolver, StageGraph]]:
        """Yield the plans of all targets on all platforms."""
        targets = [self._request.target]
        if not self._request.target:
            stages = sum(1 for item in dockerfile.instructions if isinstance(item, From))
            targets += [str(index) for index in range(stages - 1)]
        platforms = [Platform.parse(text) for text in self._request.platforms] or [Platform.host()]
        for platform in platforms:
            config = ImageConfig(platform)
            contexts = self._request.build_contexts
            elsewhere = Elsewhere(self._fetcher.folder, self._fetcher.bases(self._lazy))
            resolver = StoreResolver(self._store, contexts, config, self._observer, elsewhere)
            if known is not None:
                resolver.pin = lambda reference: known.images.get(str(reference))
            asked = plan_request(self._request, platform)
            for target in targets:
                yield resolver, plan(dockerfile, replace(asked, target=target), resolver)

    def _commit(self, step: CopyStep, source: str) -> str:
        from castoff.ops.remote import git_source

        return self._fetcher.remotes().commit(git_source(step, source)).sha

    def _file(self, source: str) -> Digest:
        from castoff.oci.digest import Digest
        from castoff.solve.progress import VertexProgress

        progress = VertexProgress(self._observer, f"lock {source}", source, visible=False)
        return Digest("sha256", self._fetcher.remotes().file(source, "", progress).sha256)


def _sources(graph: StageGraph) -> Iterator[tuple[str, tuple[CopyStep, str, bool]]]:
    """Yield the remote sources that do not say themselves what they hold, by the name that a lock has for them."""
    from castoff.ops.remote import unpinned

    for stage in graph.stages:
        for step in stage.steps:
            payload = step.payload
            if isinstance(payload, CopyStep) and payload.is_add:
                for source, shown, is_git in unpinned(payload):
                    yield shown, (payload, source, is_git)
