"""Layers that are not in the store yet, and come when something needs their bytes.

A build that finds all its steps cached needs no byte of the bases of its builder stages, and fetches none.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol

from castoff.errors import CastoffError
from castoff.events import VertexState
from castoff.image.pull import ByteCounter
from castoff.registry.parallel import run_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from castoff.events import Observer
    from castoff.oci.descriptor import Descriptor
    from castoff.oci.digest import Digest
    from castoff.solve.progress import VertexProgress
    from castoff.store.blobs import BlobStore


class BlobFetcher(Protocol):
    """Brings one blob into a store, verified. Atomic, idempotent; called from several threads."""

    def __call__(self, descriptor: Descriptor, blobs: BlobStore, moved: Callable[[int], None]) -> None:
        """Fetch a blob; `moved` is told of the bytes.

        Raises:
            CastoffError: it can't be had.
        """


class _Group:
    """Layers that are wanted together, as those of one base are: the first one asked for brings them all."""

    def __init__(self, layers: tuple[Descriptor, ...], fetch: BlobFetcher) -> None:
        self.layers = layers
        self.fetch = fetch
        self.lock = threading.Lock()


class LazyBlobs:
    """What can be fetched if it is needed. Safe for several threads."""

    def __init__(self, blobs: BlobStore, observer: Observer, give_up: Callable[[], None]) -> None:
        """Take the store, who is told of the bytes, and what makes transfers that are under way fail soon."""
        self._blobs = blobs
        self._observer = observer
        self._give_up = give_up
        self._lock = threading.Lock()
        self._offers: dict[Digest, _Group] = {}

    def offer(self, layers: Iterable[Descriptor], fetch: BlobFetcher) -> None:
        """Note where some layers can be fetched, those that the store has left out; an earlier offer stays."""
        missing = tuple(layer for layer in dict.fromkeys(layers) if not self._is_present(layer))
        group = _Group(missing, fetch)
        with self._lock:
            for layer in missing:
                self._offers.setdefault(layer.digest, group)

    def has(self, digest: Digest) -> bool:
        """Tell whether a blob can be fetched."""
        with self._lock:
            return digest in self._offers

    def ensure(self, digest: Digest, progress: VertexProgress | None = None) -> bool:
        """Fetch a blob, with those that were offered with it, unless the store has it. Idempotent.

        Returns whether the store has it now; it has not where nothing was offered.

        Raises:
            CastoffError: it can't be had.
        """
        with self._lock:
            group = self._offers.get(digest)
        if group is None:
            return self._blobs.size(digest) is not None
        with group.lock:
            missing = [layer for layer in group.layers if not self._is_present(layer)]
            if missing:
                self._fetch(group, missing, progress)
        return True

    def _is_present(self, layer: Descriptor) -> bool:
        return self._blobs.size(layer.digest) == layer.size

    def _fetch(self, group: _Group, missing: list[Descriptor], progress: VertexProgress | None) -> None:
        vertex = progress.vertex if progress is not None else ""
        if progress is not None:
            progress.state(VertexState.STARTED)  # again: nobody needed the bytes before

        def one(layer: Descriptor) -> None:
            counter = ByteCounter(self._observer, vertex, str(layer.digest), layer.size)
            group.fetch(layer, self._blobs, counter)
            if progress is not None:
                counter.finish()

        try:
            run_all([lambda layer=layer: one(layer) for layer in missing], self._give_up)  # type: ignore[misc]
        except CastoffError as error:
            if progress is not None:
                progress.state(VertexState.FAILED, error.message)
            raise
        if progress is not None:
            progress.state(VertexState.DONE)
