"""The caches that a build takes from elsewhere, and those that it leaves there."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from castoff.buildcache.document import CacheDocument, descriptor_of
from castoff.buildcache.imported import ImportedCacheStore, carried_mounts
from castoff.buildcache.layoutplace import LayoutPlace
from castoff.buildcache.place import inline_annotation
from castoff.buildcache.spec import ALL
from castoff.errors import CastoffError
from castoff.events import VertexState, WarningEvent
from castoff.oci.reference import Reference
from castoff.ops.cacheexport import CacheCollector
from castoff.ops.cachemounts import CarriedMounts, new_blobs, pack
from castoff.ops.workspace import LayerVariant
from castoff.solve.progress import VertexProgress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from castoff.buildcache.document import CarriedMount
    from castoff.buildcache.place import CachePlace, FoundCache
    from castoff.buildcache.spec import CacheSource, CacheTarget
    from castoff.events import Observer
    from castoff.image.mutate import DraftImage
    from castoff.oci.descriptor import Descriptor
    from castoff.oci.platform import Platform
    from castoff.ops.cacheexport import Part
    from castoff.ops.sources import Result
    from castoff.ops.workspace import Storage, Workspace
    from castoff.registry.client import RegistryClient
    from castoff.request import BuildRequest
    from castoff.solve.solver import Solver
    from castoff.store.blobs import BlobStore


_PERIOD = 0.5
"""Seconds between two reports of one transfer."""


class _Told:
    """Tells of transfers, a few times a second of each. Safe for several threads."""

    def __init__(self, progress: VertexProgress) -> None:
        self._progress = progress
        self._last: dict[str, float] = {}

    def __call__(self, name: str, current: int, total: int) -> None:
        """Tell how far a transfer is, unless that was told just now."""
        now = time.monotonic()
        if current == total or now - self._last.get(name, 0.0) > _PERIOD:
            self._last[name] = now
            self._progress.status(name, current=current, total=total, done=current == total)


class BuildCaches:
    """The caches of one build, imported and exported."""

    def __init__(
        self, request: BuildRequest, platform: Platform, observer: Observer, registry: Callable[[], RegistryClient]
    ) -> None:
        """Take the request, the platform that images with a cache are for, who is told, and what gives a client."""
        self._request = request
        self._platform = platform
        self._observer = observer
        self._registry = registry

    def opened(self, storage: Storage) -> Storage:
        """Return where a build keeps things, with what imported caches have; of these only documents are fetched.

        A cache that is not there, or can't be read, is no reason not to build.
        """
        found = [(source, place, cache) for source in self._request.cache_from for place, cache in self._load(source)]
        if not found:
            return storage
        lazy = storage.lazy
        assert lazy is not None
        for _source, place, cache in found:
            for descriptor in cache.blobs:
                lazy.offer([descriptor], place.fetch)
        documents = [cache.document for _source, _place, cache in found]
        mounts = carried_mounts([cache.document for source, _place, cache in found if source.mounts])
        return replace(
            storage,
            cache=ImportedCacheStore(storage.cache, documents),
            mounts=CarriedMounts(mounts, self._warn),
        )

    def _load(self, source: CacheSource) -> list[tuple[CachePlace, FoundCache]]:
        progress = VertexProgress(self._observer, f"import cache {source}", f"importing cache manifest from {source}")
        progress.state(VertexState.STARTED)
        try:
            place = self._place(source)
            cache = place.load()
        except CastoffError as error:
            self._warn(f"the build cache {source} is not used: {error.message}")
            progress.status("it can't be read", done=True)
            progress.state(VertexState.DONE)
            return []
        if cache is None:
            progress.status("there is none yet", done=True)
        progress.state(VertexState.DONE)
        return [] if cache is None else [(place, cache)]

    def annotated(
        self, workspace: Workspace, parts: Sequence[Part], solver: Solver[Result], drafts: Sequence[DraftImage]
    ) -> list[DraftImage]:
        """Return images that have their caches in them, where the request wants that."""
        if all(target.kind != "inline" for target in self._request.cache_to):
            return list(drafts)
        made = []
        for part, draft in zip(parts, drafts, strict=True):
            document = CacheCollector(workspace, [part], solver).collect("min", workspace.variant)
            annotations = dict(draft.annotations) | dict([inline_annotation(document)])
            made.append(replace(draft, annotations=tuple(sorted(annotations.items()))))
        return made

    def export(self, workspace: Workspace, parts: Sequence[Part], solver: Solver[Result]) -> None:
        """Leave what was built at all places that the request names.

        Raises:
            CastoffError: a cache can't be written, and its errors are not to be ignored.
        """
        for target in self._request.cache_to:
            if target.kind == "inline":
                continue
            try:
                self._export(target, workspace, CacheCollector(workspace, parts, solver))
            except CastoffError as error:
                if not target.ignore_error:
                    raise
                self._warn(f"the build cache {target} was not written: {error.message}")

    def _export(self, target: CacheTarget, workspace: Workspace, collector: CacheCollector) -> None:
        with self._vertex(f"export cache {target}", f"exporting cache to {target}") as progress:
            variant = LayerVariant(workspace.variant.epoch, target.compression or workspace.variant.compression)
            progress.status("preparing build cache for export")
            document = collector.collect(target.mode, variant)
            progress.status("preparing build cache for export", done=True)
            packed = new_blobs(workspace.session)
            if target.mounts:
                mounts = self._packed(target, workspace, collector.mounts(), packed)
                document = CacheDocument(document.records, mounts)

            def ensure(descriptor: Descriptor) -> BlobStore:
                if packed.size(descriptor.digest) == descriptor.size:
                    return packed
                if workspace.lazy is not None:
                    workspace.lazy.ensure(descriptor.digest)
                return workspace.store.blobs

            self._place(target).save(document, ensure, _Told(progress))
            progress.status("writing cache manifest", done=True)

    @contextmanager
    def _vertex(self, vertex: str, name: str) -> Iterator[VertexProgress]:
        progress = VertexProgress(self._observer, vertex, name)
        progress.state(VertexState.STARTED)
        try:
            yield progress
        except CastoffError as error:
            progress.state(VertexState.FAILED, error.message)
            raise
        progress.state(VertexState.DONE)

    def _packed(
        self, target: CacheTarget, workspace: Workspace, known: dict[str, str], blobs: BlobStore
    ) -> tuple[CarriedMount, ...]:
        """Return the cache mounts that travel, as far as they fit."""
        every = target.mounts == ALL
        for ident in () if every else target.mounts:
            if ident not in known.values():
                self._warn(f"no step of the build has a cache mount with the id {ident}")
        left = target.mounts_limit
        made = []
        for name, ident in sorted(known.items(), key=lambda item: (item[1], item[0])):
            if not every and ident not in target.mounts:
                continue
            try:
                mount = pack(workspace, (name, ident), blobs, target.compression)
            except CastoffError as error:
                self._warn(error.message)
                continue
            if mount is None:
                continue
            if left is not None and mount.layer.size > left:
                self._warn(f"the cache mount {ident} has {mount.layer.size} bytes, and mounts-limit leaves {left}")
                blobs.delete(descriptor_of(mount.layer).digest)
                continue
            left = None if left is None else left - mount.layer.size
            made.append(mount)
        return tuple(made)

    def _place(self, where: CacheSource | CacheTarget) -> CachePlace:
        if where.kind == "local":
            return LayoutPlace(where.place, where.tag, getattr(where, "digest", ""))
        from castoff.buildcache.registryplace import RegistryPlace

        return RegistryPlace(self._registry(), Reference.parse(where.place), self._platform)

    def _warn(self, message: str) -> None:
        self._observer.warning(WarningEvent(message))
