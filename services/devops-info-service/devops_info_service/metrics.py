"""Counts and times requests, and writes them in the Prometheus text format 0.0.4."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

OTHER = "other"
"""The label of every unknown path and method, so that clients can't add series."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE"})
BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""Upper bounds of the latency buckets, in seconds."""


@dataclass(slots=True)
class Histogram:
    """How many requests took how long; the last bucket has those above every bound."""

    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    total: float = 0.0


class Metrics:
    """The service's numbers. It is used by one thread only, that of the event loop."""

    def __init__(self) -> None:
        self._requests: dict[tuple[str, str, int], int] = {}
        self._latency: dict[tuple[str, str], Histogram] = {}

    def observe(self, method: str, path: str, status: int, seconds: float) -> None:
        """Count a request that was answered; `path` is a known one or OTHER."""
        label = method if method in METHODS else OTHER
        key = (path, label, status)
        self._requests[key] = self._requests.get(key, 0) + 1
        histogram = self._latency.get((path, label))
        if histogram is None:
            histogram = self._latency[path, label] = Histogram()
        histogram.buckets[bisect_left(BOUNDS, seconds)] += 1
        histogram.total += seconds

    def text(self, uptime: float) -> str:
        """Return all numbers, in a fixed order; `uptime` is in seconds."""
        lines = _family("http_requests_total", "counter", "Requests answered, by method, path and status.")
        for (path, method, status), count in sorted(self._requests.items()):
            lines.append(f'http_requests_total{{method="{method}",path="{path}",status="{status}"}} {count}')
        name = "http_request_duration_seconds"
        lines += _family(name, "histogram", "Time to answer a request, by method and path.")
        for (path, method), histogram in sorted(self._latency.items()):
            labels = f'method="{method}",path="{path}"'
            below = 0
            for bound, count in zip((*map(repr, BOUNDS), "+Inf"), histogram.buckets, strict=True):
                below += count
                lines.append(f'{name}_bucket{{{labels},le="{bound}"}} {below}')
            lines.append(f"{name}_sum{{{labels}}} {histogram.total!r}")
            lines.append(f"{name}_count{{{labels}}} {below}")
        lines += _family("process_uptime_seconds", "gauge", "Time since the service started.")
        lines.append(f"process_uptime_seconds {uptime!r}")
        return "\n".join(lines) + "\n"


def _family(name: str, kind: str, meaning: str) -> list[str]:
    return [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]
