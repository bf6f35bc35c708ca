"""The observer of the command line: events in, one display, and a recording of the build for the fast path."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from castoff.cli.progress.state import BuildState, Record
    from castoff.events import LogEvent, StatusEvent, VertexEvent, WarningEvent

TTY_PERIOD = 0.1
PLAIN_PERIOD = 1.0


class Stream(Protocol):
    """What is asked of the text stream that a build is shown on."""

    def write(self, text: str, /) -> object:
        """Write text."""

    def flush(self) -> None:
        """Pass on what was written."""

    def isatty(self) -> bool:
        """Tell whether it is a terminal."""

    def fileno(self) -> int:
        """Return its descriptor."""


class Display(Protocol):
    """Shows a build. One call at a time."""

    state: BuildState

    def apply(self, record: Record) -> None:
        """Take one record in."""

    def tick(self, now: float) -> None:
        """Note that time has passed: show what was held back."""

    def finish(self, now: float) -> None:
        """Show how the build ended. Called once, last."""


class ProgressObserver:
    """Shows the events of a build on a display. Safe for several threads.

    A context manager: entering it starts the clock of the display, a thread that ticks every `period` seconds; leaving
    it stops the clock and shows how the build ended. A display that can't be written to any more (a closed pipe) is
    left alone, so that the build goes on; `broken` tells.
    """

    def __init__(self, display: Display, *, period: float) -> None:
        self._display = display
        self._period = period
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.broken: OSError | None = None

    @property
    def state(self) -> BuildState:
        """All that was observed."""
        return self._display.state

    def vertex(self, event: VertexEvent) -> None:
        """Note that a vertex changed its state."""
        self._apply(("v", event.vertex, event.name, event.state.value, event.time, event.error))

    def status(self, event: StatusEvent) -> None:
        """Note the progress of a part of a vertex."""
        self._apply(("s", event.vertex, event.name, event.time, event.current, event.total, event.done))

    def log(self, event: LogEvent) -> None:
        """Note what a step printed."""
        self._apply(("l", event.vertex, event.data, event.stream, event.time))

    def warning(self, event: WarningEvent) -> None:
        """Note a warning."""
        self._apply(("w", event.message, event.rule, "" if event.location is None else str(event.location)))

    def _apply(self, record: Record) -> None:
        with self._lock:
            try:
                self._display.apply(record)
            except OSError as error:
                self.broken = error

    def _tick(self) -> None:
        while not self._stop.wait(self._period):
            with self._lock:
                try:
                    self._display.tick(time.time())
                except OSError as error:
                    self.broken = error
                    return

    def __enter__(self) -> Self:
        """Start the clock."""
        self._thread = threading.Thread(target=self._tick, name="progress", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the clock and show how the build ended."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        now = time.time()
        # What an error cut short is not running any more, whether or not anybody said so.
        open_ones = [vertex for vertex in self.state.vertices.values() if vertex.ended is None] if error else []
        for vertex in open_ones:
            self._apply(("v", vertex.id, vertex.name, "canceled", now, ""))
        with self._lock:
            try:
                self._display.finish(now)
            except OSError as broken:
                self.broken = broken
