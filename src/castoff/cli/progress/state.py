"""The state of a build as its observers know it, kept from records.

A record is a plain tuple, so that it can be kept with `marshal` and shown again by the fast path, which imports this
module and may not pay for dataclasses or enums:

- ``("v", vertex, name, state, time, error)``: a vertex changed its state; the states are the values of `VertexState`.
- ``("s", vertex, name, time, current, total, done)``: the progress of a part of a vertex.
- ``("l", vertex, data, stream, time)``: bytes that a step printed.
- ``("w", message, rule, place)``: a warning; `place` is ``file:line`` or "".

Times are seconds since the epoch.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Record = tuple[Any, ...]

TAIL_LINES = 10
"""How many of a step's last lines are kept for the report of its failure."""
_MAX_LINE = 16384


class Status:
    """A part of a vertex's work. `started` and `ended` are times; `current` and `total` bytes, None where unknown."""

    __slots__ = ("current", "ended", "name", "printed", "printed_at", "started", "total", "updated")

    def __init__(self, name: str, time: float) -> None:
        self.name = name
        self.started = time
        self.updated = time
        self.ended: float | None = None
        self.current: int | None = None
        self.total: int | None = None
        self.printed: int | None = None
        self.printed_at: float | None = None


class VertexView:
    """What is known of a vertex.

    Attributes:
        number: its number, from 1, in the order of appearance.
        state: the value of its `VertexState`.
        started: when it began last.
        ended: when it ended; None while it runs.
        spent: seconds of earlier runs, where it ran more than once.
        statuses: its parts by name, in the order of appearance.
        lines: the last lines that it printed, each with the seconds since it began.
        partial: what it printed after the last line feed.
        printed: bytes that it printed in all.
    """

    __slots__ = (
        "ended",
        "error",
        "id",
        "lines",
        "name",
        "number",
        "partial",
        "printed",
        "spent",
        "started",
        "state",
        "statuses",
    )

    def __init__(self, vertex: str, name: str, number: int, time: float) -> None:
        self.id = vertex
        self.name = name
        self.number = number
        self.state = "started"
        self.started = time
        self.ended: float | None = None
        self.spent = 0.0
        self.error = ""
        self.statuses: dict[str, Status] = {}
        self.lines: list[tuple[float, bytes]] = []
        self.partial = b""
        self.printed = 0

    def seconds(self, now: float) -> float:
        """Return how long it ran until it ended, or runs at the time `now`."""
        end = now if self.ended is None else self.ended
        return max(0.0, self.spent + end - self.started)

    def take_output(self, data: bytes, time: float) -> list[tuple[float, bytes]]:
        """Take output in, and return the lines that it completes."""
        self.printed += len(data)
        since = max(0.0, time - self.started)
        *whole, rest = (self.partial + data).split(b"\n")
        if len(rest) > _MAX_LINE:
            whole.append(rest)
            rest = b""
        self.partial = rest
        lines = [(since, line.removesuffix(b"\r")) for line in whole]
        if lines:
            self.lines = [*self.lines, *lines][-TAIL_LINES:]
        return lines

    def end_output(self, time: float) -> list[tuple[float, bytes]]:
        """End the line that has no line feed, and return it."""
        return self.take_output(b"\n", time) if self.partial else []


class BuildState:
    """All that is known of a build.

    Attributes:
        started: when it began.
        vertices: by id, in the order of appearance.
        warnings: (message, rule, place) in the order of appearance, each once.
        canceled: whether it was interrupted.
    """

    __slots__ = ("canceled", "ended", "started", "vertices", "warnings")

    def __init__(self, started: float) -> None:
        self.started = started
        self.ended: float | None = None
        self.vertices: dict[str, VertexView] = {}
        self.warnings: dict[tuple[str, str, str], None] = {}
        self.canceled = False

    def apply(self, record: Record) -> tuple[VertexView | None, list[tuple[float, bytes]]]:
        """Take a record in.

        Returns:
            The vertex that it is about (None for a warning, and for a vertex that never started), and the lines of
            output that became complete, each with the seconds since the vertex began.
        """
        kind = record[0]
        if kind == "v":
            return self._vertex(record)
        if kind == "w":
            self.warnings[record[1:4]] = None
            return None, []
        vertex = self.vertices.get(record[1])
        if vertex is None:
            return None, []
        if kind == "l":
            return vertex, vertex.take_output(record[2], record[4])
        _, _, name, time, current, total, done = record
        status = vertex.statuses.get(name)
        if status is None:
            status = vertex.statuses[name] = Status(name, time)
        status.updated = time
        if current is not None:
            status.current = current
        if total is not None:
            status.total = total
        status.ended = time if done else None
        return vertex, []

    def _vertex(self, record: Record) -> tuple[VertexView, list[tuple[float, bytes]]]:
        _, key, name, state, time, error = record
        vertex = self.vertices.get(key)
        if vertex is None:
            vertex = self.vertices[key] = VertexView(key, name, len(self.vertices) + 1, time)
        elif state == "started" and vertex.ended is not None:
            vertex.spent += max(0.0, vertex.ended - vertex.started)
            vertex.started = time
        vertex.state = state
        if state == "started":
            vertex.ended = None
            return vertex, []
        vertex.ended = time
        vertex.error = error
        if state == "canceled":
            self.canceled = True
        for status in vertex.statuses.values():
            if status.ended is None:
                status.ended = time
        return vertex, vertex.end_output(time)

    @property
    def counts(self) -> tuple[int, int]:
        """The number of vertices that have ended, and of all that have appeared."""
        return sum(1 for vertex in self.vertices.values() if vertex.ended is not None), len(self.vertices)

    def failed(self) -> Iterator[VertexView]:
        """Yield the vertices that failed, in the order of appearance."""
        for vertex in self.vertices.values():
            if vertex.state == "failed":
                yield vertex


def elapsed_stamp(seconds: float) -> str:
    """Return seconds in five characters, as they stand before a line of output: ``0.213``, ``12.34``, ``1234``."""
    return f"{seconds:.3f}"[:5].rstrip(".")


def failure_report(state: BuildState) -> list[str]:
    """Return the names of the failed vertices with the last lines that each printed, between rules."""
    lines = []
    for vertex in state.failed():
        lines += ["------", f" > {printable(vertex.name)}:"]
        lines += [f"{elapsed_stamp(since)} {line.decode('utf-8', 'replace')}".rstrip() for since, line in vertex.lines]
        lines.append("------")
    return lines


def warning_report(state: BuildState) -> list[str]:
    """Return the warnings, one a line, below a heading; nothing where there are none."""
    if not state.warnings:
        return []
    count = len(state.warnings)
    lines = ["", f" {count} warning{'s' if count > 1 else ''} found:"]
    for message, rule, place in state.warnings:
        lines.append(" - " + (f"{rule}: " if rule else "") + printable(message) + (f" ({place})" if place else ""))
    return lines


def printable(text: str) -> str:
    """Return text on one line without control characters, which could rewrite the screen."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in text)
