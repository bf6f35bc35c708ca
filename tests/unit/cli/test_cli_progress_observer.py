"""The observer of the command line: threads, cut-short builds, streams that break."""

from __future__ import annotations

import threading
import time

import pytest

from castoff.cli.progress.observer import ProgressObserver
from castoff.cli.progress.plain import PlainDisplay
from castoff.cli.progress.quiet import QuietDisplay
from castoff.events import LogEvent, StatusEvent, VertexEvent, VertexState, WarningEvent
from castoff.location import SourceRange


def event(vertex: str, state: VertexState) -> VertexEvent:
    return VertexEvent(vertex, f"[{vertex}] RUN x", state, time.time())


def test_events_of_several_threads_all_arrive() -> None:
    parts: list[str] = []
    with ProgressObserver(PlainDisplay(parts.append, time.time()), period=0.01) as observer:

        def work(name: str) -> None:
            observer.vertex(event(name, VertexState.STARTED))
            for number in range(200):
                observer.log(LogEvent(name, b"%s %d\n" % (name.encode(), number), 1, time.time()))
            observer.vertex(event(name, VertexState.DONE))

        threads = [threading.Thread(target=work, args=(f"t{number}",)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    text = "".join(parts)
    for name in ("t0", "t1", "t2", "t3"):
        logged = [line.split()[-1] for line in text.splitlines() if f" {name} " in line]
        assert logged == [str(number) for number in range(200)]
    assert text.count("DONE") == 4
    assert observer.state.counts == (4, 4)


def test_what_an_error_cuts_short_is_canceled() -> None:
    parts: list[str] = []
    with pytest.raises(KeyboardInterrupt), ProgressObserver(PlainDisplay(parts.append, 0.0), period=1) as observer:
        observer.vertex(event("a", VertexState.STARTED))
        observer.status(StatusEvent("a", "transferring", time.time(), 5, 10))
        observer.warning(WarningEvent("odd", "Rule", SourceRange("Dockerfile", 3, 3)))
        raise KeyboardInterrupt
    assert "".join(parts) == (
        "#1 [a] RUN x\n#1 transferring 5B / 10B\n#1 CANCELED\n\n 1 warning found:\n - Rule: odd (Dockerfile:3)\n"
    )


def test_stream_that_breaks_does_not_stop_the_build() -> None:
    def write(_: str) -> None:
        raise BrokenPipeError

    with ProgressObserver(PlainDisplay(write, 0.0), period=0.01) as observer:
        observer.vertex(event("a", VertexState.STARTED))
        observer.vertex(event("a", VertexState.DONE))
    assert isinstance(observer.broken, BrokenPipeError)


def test_quiet_shows_failures_only() -> None:
    parts: list[str] = []
    with ProgressObserver(QuietDisplay(parts.append, 0.0), period=1) as observer:
        observer.vertex(VertexEvent("a", "[a] RUN x", VertexState.STARTED, 1.0))
        observer.log(LogEvent("a", b"boom\n", 2, 1.5))
        observer.vertex(VertexEvent("b", "[b] RUN y", VertexState.STARTED, 1.0))
        observer.vertex(VertexEvent("b", "[b] RUN y", VertexState.DONE, 1.0))
        observer.vertex(VertexEvent("a", "[a] RUN x", VertexState.FAILED, 2.0, "no"))
    assert "".join(parts) == "------\n > [a] RUN x:\n0.500 boom\n------\n"
