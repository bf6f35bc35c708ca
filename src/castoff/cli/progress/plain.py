"""Plain progress: lines that are never rewritten, numbered by vertex, as users of BuildKit read them.

One vertex has the floor at a time. What the others have to say is held back until it ends, until one of them ends, or
until it has had the floor for `_FLOOR` seconds; a change of the floor closes the block with ``#N ...`` and begins the
next with the vertex' name again.
"""

from __future__ import annotations

from castoff.cli.progress.state import BuildState, elapsed_stamp, failure_report, printable, warning_report
from castoff.cli.sizes import transfer_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from castoff.cli.progress.state import Record, Status, VertexView

_FLOOR = 5.0
_STATUS_PERIOD = 5.0
_STATUS_SHARE = 0.05


class PlainDisplay:
    """Prints the records of a build as plain lines. Not thread-safe."""

    def __init__(self, write: Callable[[str], object], started: float) -> None:
        self.state = BuildState(started)
        self._write = write
        self._current: VertexView | None = None
        self._since = started
        self._first = True
        self._waiting: dict[str, list[str]] = {}

    def apply(self, record: Record) -> None:
        """Print what a record has to say, or hold it back."""
        vertex, output = self.state.apply(record)
        if vertex is None:
            return
        lines = [f"{elapsed_stamp(since)} {line.decode('utf-8', 'replace')}".rstrip() for since, line in output]
        kind = record[0]
        if kind == "s" and (line := _status_line(vertex.statuses[record[2]], record[3])):
            lines.append(line)
        if kind == "v" and vertex.ended is not None:
            lines.append(_end_line(vertex))
        elif kind != "v" and not lines:
            return
        self._waiting.setdefault(vertex.id, []).extend(lines)
        self._print(vertex, record[4] if kind != "s" else record[3])

    def tick(self, now: float) -> None:
        """Give the floor to a vertex that has waited long enough."""
        if self._waiting and now - self._since >= _FLOOR:
            self._switch(self.state.vertices[next(iter(self._waiting))], now)

    def finish(self, now: float) -> None:
        """Print what was held back, and the reports of failures and warnings."""
        while self._waiting:
            self._switch(self.state.vertices[next(iter(self._waiting))], now)
        for line in warning_report(self.state) + failure_report(self.state):
            self._write(line + "\n")

    def _print(self, vertex: VertexView, now: float) -> None:
        current = self._current
        if current is None or vertex is current or vertex.ended is not None or now - self._since >= _FLOOR:
            self._switch(vertex, now)
        if self._current is None and self._waiting:
            self._switch(self.state.vertices[next(iter(self._waiting))], now)

    def _switch(self, vertex: VertexView, now: float) -> None:
        """Give the floor to a vertex and print what it has to say."""
        text = ""
        if vertex is not self._current:
            text = f"#{self._current.number} ...\n" if self._current else ""
            text += "" if self._first else "\n"
            text += f"#{vertex.number} {printable(vertex.name)}\n"
            self._first = False
            self._current = vertex
            self._since = now
        prefix = f"#{vertex.number} "
        text += "".join([f"{prefix}{line}\n" for line in self._waiting.pop(vertex.id, ())])
        if text:
            self._write(text)
        if vertex.ended is not None:
            self._current = None


def _end_line(vertex: VertexView) -> str:
    if vertex.state == "cached":
        return "CACHED"
    if vertex.state == "canceled":
        return "CANCELED"
    if vertex.state == "failed":
        return f"ERROR: {printable(vertex.error)}"
    return f"DONE {vertex.seconds(0):.1f}s"


def _status_line(status: Status, now: float) -> str:
    """Return the line for an update of a part, or "" where it says too little that is new."""
    if status.ended is None and status.printed_at is not None:
        progress = (status.current or 0) - (status.printed or 0)
        enough = status.total and progress >= _STATUS_SHARE * status.total
        if not enough and now - status.printed_at < _STATUS_PERIOD:
            return ""
    status.printed_at, status.printed = now, status.current
    line = printable(status.name)
    if status.total:
        line += f" {transfer_size(status.current or 0)}"
        if status.ended is None or status.current != status.total:
            line += f" / {transfer_size(status.total)}"
    elif status.current is not None:
        line += f" {transfer_size(status.current)}"
    spent = (status.ended if status.ended is not None else now) - status.started
    if spent > 0.01:
        line += f" {spent:.1f}s"
    return line + (" done" if status.ended is not None else "")
