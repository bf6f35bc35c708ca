"""Machine-readable progress: BuildKit's SolveStatus, one JSON object a line."""

from __future__ import annotations

import base64
import hashlib
import json
import time as clock

from castoff.cli.progress.state import BuildState, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from castoff.cli.progress.state import Record, VertexView


class RawJsonDisplay:
    """Prints every record as one object with the arrays ``vertexes``, ``statuses``, ``logs`` and ``warnings``.

    Bytes are in base64 and times RFC 3339 with nanoseconds, as Go prints them. A vertex' id that is no digest is given
    as the digest of its text. Not thread-safe.
    """

    def __init__(self, write: Callable[[str], object], started: float) -> None:
        self.state = BuildState(started)
        self._write = write

    def apply(self, record: Record) -> None:
        """Print a record."""
        kind = record[0]
        vertex, _ = self.state.apply(record)
        if kind == "w":
            self._print("warnings", _warning(record))
        elif vertex is None:
            return
        elif kind == "v":
            self._print("vertexes", _vertex(vertex))
        elif kind == "l":
            self._print(
                "logs",
                {
                    "vertex": _digest(vertex.id),
                    "stream": record[3],
                    "data": base64.b64encode(record[2]).decode(),
                    "timestamp": timestamp(record[4]),
                },
            )
        else:
            self._print("statuses", _status(vertex, record))

    def tick(self, now: float) -> None:
        """Do nothing: nothing is held back."""

    def finish(self, now: float) -> None:
        """Do nothing: all has been printed."""

    def _print(self, field: str, value: dict[str, Any]) -> None:
        self._write(json.dumps({field: [value]}, ensure_ascii=False, separators=(",", ":")) + "\n")


def timestamp(seconds: float) -> str:
    """Return a time, in seconds since the epoch, in RFC 3339 with nanoseconds, in UTC."""
    # A double holds today's times to a quarter of a microsecond: what it says beyond is noise.
    whole, microseconds = divmod(round(seconds * 1_000_000), 1_000_000)
    return clock.strftime("%Y-%m-%dT%H:%M:%S", clock.gmtime(whole)) + f".{microseconds:06d}000Z"


def _digest(vertex: str) -> str:
    if vertex.startswith("sha256:") and len(vertex) == 71:
        return vertex
    return "sha256:" + hashlib.sha256(vertex.encode("utf-8", "surrogateescape")).hexdigest()


def _vertex(vertex: VertexView) -> dict[str, Any]:
    value: dict[str, Any] = {
        "digest": _digest(vertex.id),
        "name": printable(vertex.name),
        "started": timestamp(vertex.started),
    }
    if vertex.ended is not None:
        value["completed"] = timestamp(vertex.ended)
    if vertex.state == "cached":
        value["cached"] = True
    if vertex.state in ("failed", "canceled"):
        value["error"] = printable(vertex.error) if vertex.state == "failed" and vertex.error else "context canceled"
    return value


def _status(vertex: VertexView, record: Record) -> dict[str, Any]:
    status = vertex.statuses[record[2]]
    name = printable(status.name)
    value: dict[str, Any] = {"id": name, "vertex": _digest(vertex.id), "name": name}
    if status.total:
        value["total"] = status.total
    value["current"] = status.current or 0
    value["timestamp"] = timestamp(record[3])
    value["started"] = timestamp(status.started)
    if status.ended is not None:
        value["completed"] = timestamp(status.ended)
    return value


def _warning(record: Record) -> dict[str, Any]:
    _, message, rule, place = record
    text = (f"{rule}: " if rule else "") + message + (f" ({place})" if place else "")
    value: dict[str, Any] = {"level": 1, "short": base64.b64encode(text.encode("utf-8", "replace")).decode()}
    if rule:
        from castoff.dockerfile.lint.rules import RULES

        for known in RULES:
            if known.name == rule:
                value["detail"] = [base64.b64encode(known.description.encode()).decode()]
                value["url"] = known.url
    return value
