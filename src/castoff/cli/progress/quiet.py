"""No progress at all: only the last lines of the steps that failed, at the end."""

from __future__ import annotations

from castoff.cli.progress.state import BuildState, failure_report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from castoff.cli.progress.state import Record


class QuietDisplay:
    """Keeps the state of a build and prints what failed. Not thread-safe."""

    def __init__(self, write: Callable[[str], object], started: float) -> None:
        self.state = BuildState(started)
        self._write = write

    def apply(self, record: Record) -> None:
        """Take a record in."""
        self.state.apply(record)

    def tick(self, now: float) -> None:
        """Do nothing."""

    def finish(self, now: float) -> None:
        """Print the last lines of the steps that failed."""
        self.state.ended = now
        for line in failure_report(self.state):
            self._write(line + "\n")
