"""Work that is cut short when a build is given up."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from castoff.errors import StepError
from castoff.events import NullObserver
from castoff.linux.threads import interrupt
from castoff.solve.cache import CacheRecord, MemoryCacheStore
from castoff.solve.solver import Solver
from castoff.solve.vertex import Vertex

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from castoff.solve.cachekey import CacheKey
    from castoff.solve.progress import VertexProgress


class Work:
    """An operation that is a function."""

    def __init__(self, work: Callable[[], str]) -> None:
        self._work = work

    def key(self, inputs: Sequence[str], progress: VertexProgress) -> CacheKey | None:
        return None

    def restore(self, key: CacheKey, record: CacheRecord, inputs: Sequence[str]) -> str | None:
        return None

    def execute(self, key: CacheKey | None, inputs: Sequence[str], progress: VertexProgress) -> str:
        return self._work()

    def record(self, result: str) -> CacheRecord | None:
        return None


def vertex(name: str, work: Callable[[], str], *inputs: Vertex[str]) -> Vertex[str]:
    return Vertex(name, name, Work(work), inputs)


def test_endless_work_ends_with_the_step_that_fails() -> None:
    begun, tidied = threading.Event(), threading.Event()

    def spin() -> str:
        try:
            begun.set()
            number = 0
            while True:
                number += 1
        finally:
            tidied.set()

    def fail() -> str:
        begun.wait()
        raise StepError("this step failed")

    endless, failing = vertex("endless", spin), vertex("failing", fail)
    target = vertex("target", lambda: "never", endless, failing)
    ended: list[bool] = []
    solver: Solver[str] = Solver(MemoryCacheStore(), NullObserver(), lambda: ended.append(True))
    with pytest.raises(StepError, match="this step failed"):
        solver.solve([target])
    assert ended == [True]
    assert tidied.is_set()
    assert not any(thread.name == "castoff-solver" for thread in threading.enumerate())


def test_a_thread_that_has_ended_is_not_interrupted() -> None:
    thread = threading.Thread(target=lambda: None)
    interrupt(thread)
    thread.start()
    thread.join()
    interrupt(thread)
