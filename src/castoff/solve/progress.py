"""What an operation tells of its work while it runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from castoff.events import LogEvent, StatusEvent, VertexEvent, VertexState, WarningEvent

if TYPE_CHECKING:
    from castoff.events import Observer


class VertexProgress:
    """Sends the events of one vertex to an observer. Not to be shared between threads."""

    __slots__ = ("_id", "_name", "_observer", "_visible")

    def __init__(self, observer: Observer, vertex: str, name: str, *, visible: bool = True) -> None:
        self._observer = observer
        self._id = vertex
        self._name = name
        self._visible = visible

    @property
    def vertex(self) -> str:
        """What identifies the vertex."""
        return self._id

    @property
    def name(self) -> str:
        """What progress shows for the vertex."""
        return self._name

    def state(self, state: VertexState, error: str = "") -> None:
        """Tell that the vertex changed its state."""
        if self._visible:
            self._observer.vertex(VertexEvent(self._id, self._name, state, time.time(), error))

    def status(self, name: str, *, current: int | None = None, total: int | None = None, done: bool = False) -> None:
        """Tell how far a part of the work is, in bytes where they are counted."""
        if self._visible:
            self._observer.status(StatusEvent(self._id, name, time.time(), current, total, done))

    def warn(self, message: str) -> None:
        """Tell something that the user should know, which does not stop the build."""
        self._observer.warning(WarningEvent(f"{self._name}: {message}" if self._visible else message))

    def log(self, data: bytes, stream: int) -> None:
        """Tell what the vertex's process printed."""
        self._observer.log(LogEvent(self._id, data, stream, time.time()))
