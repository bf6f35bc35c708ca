"""Tells an observer about the phases of making a base."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from castoff.errors import CastoffError
from castoff.events import Observer, StatusEvent, VertexEvent, VertexState


class Phases:
    """Turns phases of work into vertices, and downloads into their statuses.

    Args:
        observer: is told.
    """

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._current = ""
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def phase(self, vertex: str, name: str) -> Iterator[None]:
        """Note the beginning and the end of a phase; failures are noted and go on."""
        self._current = vertex
        self._observer.vertex(VertexEvent(vertex, name, VertexState.STARTED, time.time()))
        try:
            yield
        except BaseException as error:
            state = VertexState.FAILED if isinstance(error, CastoffError) else VertexState.CANCELED
            self._observer.vertex(VertexEvent(vertex, name, state, time.time(), str(error)))
            raise
        self._observer.vertex(VertexEvent(vertex, name, VertexState.DONE, time.time()))

    def cached(self, vertex: str, name: str) -> None:
        """Note a phase that was not needed."""
        self._observer.vertex(VertexEvent(vertex, name, VertexState.CACHED, time.time()))

    def download(self, name: str, current: int, total: int | None) -> None:
        """Note the progress of a download, as part of the phase that runs. Safe for several threads."""
        done = total is not None and current >= total
        with self._lock:
            self._observer.status(StatusEvent(self._current, name, time.time(), current, total, done))
