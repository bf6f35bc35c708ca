"""What a build tells its observers: the only way back from the engine to a person or a program.

Events are display data; nothing of them is ever part of a cache key.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from castoff.location import SourceRange


class VertexState(Enum):
    """Where a vertex is in its life."""

    STARTED = "started"
    CACHED = "cached"
    DONE = "done"
    FAILED = "failed"
    CANCELED = "canceled"


@dataclass(frozen=True, slots=True)
class VertexEvent:
    """A vertex changed its state.

    Attributes:
        vertex: identifies the vertex within one build.
        name: what progress shows, such as ``[builder 2/5] WORKDIR /build``.
        state: the new state. CACHED ends a vertex, as DONE, FAILED and CANCELED do.
        time: seconds since the epoch.
        error: one sentence, for FAILED.
    """

    vertex: str
    name: str
    state: VertexState
    time: float
    error: str = ""


@dataclass(frozen=True, slots=True)
class StatusEvent:
    """A part of a vertex's work, shown below it: a transfer with byte counts, or a named sub-task.

    Attributes:
        vertex: the vertex that it belongs to.
        name: such as ``transferring context:``, ``exporting layers`` or ``writing image sha256:…``.
        time: seconds since the epoch.
        current: bytes done so far; None where bytes are not counted.
        total: bytes in all; None where not known.
        done: whether this part is finished.
    """

    vertex: str
    name: str
    time: float
    current: int | None = None
    total: int | None = None
    done: bool = False


@dataclass(frozen=True, slots=True)
class LogEvent:
    """Bytes that a step printed.

    Attributes:
        vertex: the vertex that printed them.
        data: raw bytes, not necessarily whole lines.
        stream: 1 for standard output, 2 for standard error.
        time: seconds since the epoch.
    """

    vertex: str
    data: bytes
    stream: int
    time: float


@dataclass(frozen=True, slots=True)
class WarningEvent:
    """Something that a user should know and that does not stop the build.

    Attributes:
        message: one sentence.
        rule: the lint rule, such as ``StageNameCasing``; "" for others.
        location: the place in the Dockerfile.
    """

    message: str
    rule: str = ""
    location: SourceRange | None = None


class Observer(Protocol):
    """Receives the events of a build.

    Methods may be called from several threads at once, never two at a time for the same vertex. They must return
    soon and raise nothing.
    """

    def vertex(self, event: VertexEvent) -> None:
        """Note that a vertex changed its state."""

    def status(self, event: StatusEvent) -> None:
        """Note the progress of a part of a vertex."""

    def log(self, event: LogEvent) -> None:
        """Note what a step printed."""

    def warning(self, event: WarningEvent) -> None:
        """Note a warning."""


class NullObserver:
    """An observer that does nothing."""

    def vertex(self, event: VertexEvent) -> None:
        """Do nothing."""

    def status(self, event: StatusEvent) -> None:
        """Do nothing."""

    def log(self, event: LogEvent) -> None:
        """Do nothing."""

    def warning(self, event: WarningEvent) -> None:
        """Do nothing."""
