"""The solver: order, parallelism, caching, failure."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from castoff.errors import StepError
from castoff.events import NullObserver, VertexEvent, VertexState
from castoff.location import SourceRange
from castoff.solve.cache import CacheRecord, MemoryCacheStore
from castoff.solve.solver import Solver
from castoff.solve.vertex import Vertex

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from castoff.solve.progress import VertexProgress


@dataclass
class TextOp:
    """An operation whose result is a text; what it remembers of it is a fact."""

    text: str
    runs: list[str] = field(default_factory=list)
    work: Callable[[], None] = lambda: None
    keyed: bool = True
    usable: bool = True
    grown: bool = False

    def key(self, inputs: Sequence[str], progress: VertexProgress) -> str | None:
        return f"{self.text}({','.join(inputs)})" if self.keyed else None

    def restore(self, key: str, record: CacheRecord, inputs: Sequence[str]) -> str | None:
        return record.facts["text"] if self.usable else None

    def execute(self, key: str | None, inputs: Sequence[str], progress: VertexProgress) -> str:
        self.runs.append(self.text)
        self.work()
        return f"{self.text}({','.join(inputs)})"

    def record(self, result: str) -> CacheRecord | None:
        return CacheRecord(facts={"text": result, "grown": str(self.grown)})


class States(NullObserver):
    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self._lock = threading.Lock()

    def vertex(self, event: VertexEvent) -> None:
        with self._lock:
            self.seen.append((event.name, event.state.value))


def vertex(name: str, op: TextOp, *inputs: Vertex[str], ignore: bool = False, visible: bool = True) -> Vertex[str]:
    place = SourceRange("Dockerfile", 3, 3)
    return Vertex(name, name, op, inputs, ignore_cache=ignore, visible=visible, location=place)


def solve(target: Vertex[str], cache: MemoryCacheStore, observer: NullObserver | None = None) -> str:
    solver: Solver[str] = Solver(cache, observer or NullObserver(), lambda: None)
    return solver.solve([target])[0]


def test_a_diamond_runs_each_vertex_once_after_its_inputs() -> None:
    runs: list[str] = []
    top = vertex("top", TextOp("top", runs))
    left, right = vertex("left", TextOp("left", runs), top), vertex("right", TextOp("right", runs), top)
    assert solve(vertex("end", TextOp("end", runs), left, right), MemoryCacheStore()) == "end(left(top()),right(top()))"
    assert runs[0] == "top"
    assert runs[-1] == "end"
    assert sorted(runs) == ["end", "left", "right", "top"]


def test_what_is_recorded_is_not_run_again() -> None:
    cache, runs = MemoryCacheStore(), list[str]()
    target = vertex("b", TextOp("b", runs), vertex("a", TextOp("a", runs)))
    first = solve(target, cache)
    states = States()
    assert solve(target, cache, states) == first
    assert runs == ["a", "b"]
    assert ("b", VertexState.CACHED.value) in states.seen


def test_ignoring_the_cache_of_one_vertex_still_writes_its_record() -> None:
    cache, runs = MemoryCacheStore(), list[str]()
    solve(vertex("a", TextOp("a", runs), ignore=True), cache)
    solve(vertex("a", TextOp("a", runs), ignore=True), cache)
    assert runs == ["a", "a"]
    assert cache.load("a()") is not None


def test_a_record_that_is_no_longer_usable_is_made_anew() -> None:
    cache, runs = MemoryCacheStore(), list[str]()
    solve(vertex("a", TextOp("a", runs)), cache)
    solve(vertex("a", TextOp("a", runs, usable=False)), cache)
    assert runs == ["a", "a"]


def test_a_vertex_without_a_key_always_runs() -> None:
    cache, runs = MemoryCacheStore(), list[str]()
    for _ in range(2):
        solve(vertex("a", TextOp("a", runs, keyed=False)), cache)
    assert runs == ["a", "a"]


def test_independent_vertices_run_at_the_same_time() -> None:
    barrier = threading.Barrier(8, timeout=30)
    parts = [vertex(f"p{n}", TextOp(f"p{n}", work=lambda: (barrier.wait(), None)[1])) for n in range(8)]
    assert solve(vertex("all", TextOp("all"), *parts), MemoryCacheStore()).startswith("all(p0(),p1()")


def test_the_first_failure_ends_the_build_and_cancels_what_runs() -> None:
    canceled, running = threading.Event(), threading.Event()

    def fail() -> None:
        running.wait(30)
        raise StepError("it broke")

    def wait() -> None:
        running.set()
        assert canceled.wait(30)
        raise StepError("killed")

    states = States()
    bad, slow = vertex("bad", TextOp("bad", work=fail)), vertex("slow", TextOp("slow", work=wait))
    solver: Solver[str] = Solver(MemoryCacheStore(), states, canceled.set)
    with pytest.raises(StepError, match="it broke") as caught:
        solver.solve([vertex("end", TextOp("end"), bad, slow)])
    assert caught.value.location == SourceRange("Dockerfile", 3, 3)
    assert ("bad", "failed") in states.seen
    assert ("slow", "canceled") in states.seen
    assert not any(name == "end" for name, _state in states.seen)


def test_an_interruption_ends_what_runs() -> None:
    canceled = threading.Event()
    runs: list[str] = []

    def interrupt() -> None:
        raise KeyboardInterrupt

    solver: Solver[str] = Solver(MemoryCacheStore(), NullObserver(), canceled.set)
    with pytest.raises(KeyboardInterrupt):
        solver.solve([vertex("b", TextOp("b", runs), vertex("a", TextOp("a", runs, work=interrupt)))])
    assert canceled.is_set()
    assert runs == ["a"]


def test_records_that_have_grown_are_saved_again() -> None:
    cache = MemoryCacheStore()
    op = TextOp("a")
    solver: Solver[str] = Solver(cache, NullObserver(), lambda: None)
    solver.solve([vertex("a", op)])
    op.grown = True
    solver.flush()
    record = cache.load("a()")
    assert record is not None
    assert record.facts["grown"] == "True"


def test_a_vertex_that_is_not_visible_is_not_told_of() -> None:
    states = States()
    solve(vertex("b", TextOp("b"), vertex("a", TextOp("a"), visible=False)), MemoryCacheStore(), states)
    assert {name for name, _state in states.seen} == {"b"}
