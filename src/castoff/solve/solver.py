"""Solves a graph of vertices: finds out what is cached, runs the rest, independent vertices at the same time."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import nullcontext
from typing import TYPE_CHECKING, Generic, TypeVar

from castoff.errors import CastoffError
from castoff.events import VertexState
from castoff.linux.threads import interrupt
from castoff.solve.explain import Decision, Outcome
from castoff.solve.progress import VertexProgress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractContextManager

    from castoff.events import Observer
    from castoff.solve.cache import CacheRecord, CacheStore
    from castoff.solve.cachekey import CacheKey
    from castoff.solve.explain import Watcher
    from castoff.solve.vertex import Vertex

R = TypeVar("R")

MAX_PARALLEL = 32
"""How many vertices run at the same time at most."""
_GRACE = 0.5
"""Seconds that a vertex has to end by itself when the build is given up."""
_LOOK = 0.3
"""Seconds after which the main thread looks for signals."""


class Canceled(CastoffError):  # noqa: N818  (the field's own word, as in VertexState.CANCELED)
    """The build ended before this vertex did."""


class Solver(Generic[R]):
    """Solves one graph once. `solve` blocks; everything else happens in threads that end with it."""

    def __init__(
        self,
        cache: CacheStore,
        observer: Observer,
        on_cancel: Callable[[], None],
        watcher: Watcher[R] | None = None,
    ) -> None:
        """Take the cache, the observer, what ends all running work when the build is given up, and who is told why."""
        self._cache = cache
        self._observer = observer
        self._watcher = watcher
        self._on_cancel = on_cancel
        self._changed = threading.Condition()
        self._ready: deque[Vertex[R]] = deque()
        self._waiting: dict[str, int] = {}
        self._dependants: dict[str, list[Vertex[R]]] = {}
        self._results: dict[str, R] = {}
        self._turns: dict[CacheKey, threading.Lock] = {}
        self._made: set[CacheKey] = set()
        self._records: dict[CacheKey, tuple[Vertex[R], CacheRecord | None]] = {}
        self._left = 0
        self._idle = 0
        self._error: BaseException | None = None
        self._stopped = False
        self._threads: list[threading.Thread] = []

    def solve(self, targets: Sequence[Vertex[R]]) -> list[R]:
        """Return the results of some vertices, in their order.

        Raises:
            CastoffError: the first error of any vertex, after everything else was ended.
            KeyboardInterrupt: the process was interrupted; everything was ended before.
        """
        self._enter(targets)
        try:
            with self._changed:
                self._spawn()
                while self._left and self._error is None:
                    # Not without end: a signal that comes just before this thread sleeps does not wake it.
                    self._changed.wait(_LOOK)
        except BaseException as error:  # noqa: BLE001  (raised again below)
            self._fail(error)
        finally:
            self._join()
        if self._error is not None:
            raise self._error
        return [self._results[target.id] for target in targets]

    def result(self, vertex: Vertex[R]) -> R:
        """Return the result of a vertex that was solved."""
        return self._results[vertex.id]

    def has_result(self, vertex: Vertex[R]) -> bool:
        """Tell whether a vertex was solved."""
        return vertex.id in self._results

    def keyed(self) -> list[tuple[CacheKey, Vertex[R]]]:
        """Return the vertices that were solved and have a key, each with it."""
        return [(key, vertex) for key, (vertex, _record) in self._records.items() if vertex.id in self._results]

    def flush(self) -> None:
        """Save the records that have grown since their vertices were solved, such as by a layer that was made."""
        for key, (vertex, saved) in self._records.items():
            result = self._results.get(vertex.id)
            if result is None:
                continue  # Its vertex was stopped between its work and its end.
            record = vertex.op.record(result)
            if record is not None and record != saved:
                self._cache.save(key, record)
                self._records[key] = (vertex, record)

    def _enter(self, targets: Iterable[Vertex[R]]) -> None:
        """Count, for every vertex that a target needs, the inputs that it waits for."""
        pending = list(targets)
        while pending:
            vertex = pending.pop()
            if vertex.id in self._waiting:
                continue
            inputs = {item.id: item for item in vertex.inputs}
            self._waiting[vertex.id] = len(inputs)
            for item in inputs.values():
                self._dependants.setdefault(item.id, []).append(vertex)
                pending.append(item)
            if not inputs:
                self._ready.appendleft(vertex)
        self._left = len(self._waiting)

    def _spawn(self) -> None:
        """Start as many threads as there is ready work for; the lock is held."""
        wanted = min(len(self._ready) - self._idle, MAX_PARALLEL - len(self._threads))
        for _ in range(wanted):
            thread = threading.Thread(target=self._work, name="castoff-solver", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self) -> None:
        try:
            self._take_vertices()
        except BaseException as error:  # noqa: BLE001  (it was cut short, or is raised again by solve)
            self._fail(error)

    def _take_vertices(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                while not self._ready and self._left and not self._stopped:
                    self._changed.wait()
                self._idle -= 1
                if self._stopped or not self._left:
                    return
                vertex = self._ready.popleft()
            try:
                result = self._one(vertex)
            except BaseException as error:  # noqa: BLE001  (it is raised again by solve)
                self._fail(error)
                return
            self._finish(vertex, result)

    def _finish(self, vertex: Vertex[R], result: R) -> None:
        with self._changed:
            self._results[vertex.id] = result
            self._left -= 1
            for dependant in self._dependants.get(vertex.id, ()):
                self._waiting[dependant.id] -= 1
                if not self._waiting[dependant.id]:
                    self._ready.append(dependant)
            # This thread takes one of them itself: a chain of steps needs no other.
            if len(self._ready) > 1:
                self._spawn()
            if not self._left or len(self._ready) > 1:
                self._changed.notify_all()

    def _turn(self, key: CacheKey | None) -> AbstractContextManager[object]:
        """Return what is held while the vertex of a key is worked on: that of an equal one waits, and finds its record.

        Builds for several platforms have equal vertices where a stage runs for the platform that builds.
        """
        if key is None:
            return nullcontext()
        with self._changed:
            return self._turns.setdefault(key, threading.Lock())

    def _one(self, vertex: Vertex[R]) -> R:
        progress = VertexProgress(self._observer, vertex.id, vertex.name, visible=vertex.visible)
        inputs = [self._results[item.id] for item in vertex.inputs]
        progress.state(VertexState.STARTED)
        try:
            key = vertex.op.key(inputs, progress)
            with self._turn(key):
                result, cached = self._restore_or_execute(vertex, key, inputs, progress)
        except BaseException as error:
            if self._stopped:
                progress.state(VertexState.CANCELED)
                raise Canceled(f"{vertex.name} was canceled") from error
            if isinstance(error, CastoffError) and error.location is None:
                error.location = vertex.location
            message = error.message if isinstance(error, CastoffError) else str(error)
            progress.state(VertexState.FAILED, message)
            raise
        progress.state(VertexState.CACHED if cached else VertexState.DONE)
        return result

    def _restore_or_execute(
        self, vertex: Vertex[R], key: CacheKey | None, inputs: Sequence[R], progress: VertexProgress
    ) -> tuple[R, bool]:
        """Return the result of a vertex, and whether it came from the cache."""
        if self._stopped:
            raise Canceled(f"{vertex.name} was canceled")
        if key is None:
            return vertex.op.execute(None, inputs, progress), False
        outcome, record = Outcome.IGNORED, None
        # What this very build has done need not be done again, whatever is to be ignored.
        if not vertex.ignore_cache or key in self._made:
            record = self._cache.load(key)
            result = None if record is None else vertex.op.restore(key, record, inputs)
            known = record
            for other in () if result is not None else self._cache.others(key):
                result = vertex.op.restore(key, other, inputs)
                if result is not None:
                    record, known = other, None
                    break
            if result is not None:
                self._records[key] = (vertex, known)
                self._tell(vertex, key, inputs, Outcome.CACHED, record)
                return result, True
            outcome = Outcome.MISSING if record is None else Outcome.LOST
        self._tell(vertex, key, inputs, outcome, record)
        result = vertex.op.execute(key, inputs, progress)
        made = vertex.op.record(result)
        if made is not None:
            self._cache.save(key, made)
        self._records[key] = (vertex, made)
        self._made.add(key)
        return result, False

    def _tell(
        self, vertex: Vertex[R], key: CacheKey, inputs: Sequence[R], outcome: Outcome, record: CacheRecord | None
    ) -> None:
        if self._watcher is not None:
            self._watcher.decided(Decision(vertex, key, inputs, outcome, record))

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            first = not self._stopped
            if self._error is None and not isinstance(error, Canceled):
                self._error = error
            self._stopped = True
            self._changed.notify_all()
        if first:
            self._on_cancel()

    def _join(self) -> None:
        with self._changed:
            self._stopped = self._stopped or self._error is not None
            self._changed.notify_all()
        for thread in self._threads:
            if not thread.is_alive():
                continue  # An interrupt may have come before it began; it will find nothing to do.
            if self._stopped:
                # Its process is dead; reading or unpacking what may be gigabytes is cut short.
                thread.join(_GRACE)
                interrupt(thread)
            thread.join()
