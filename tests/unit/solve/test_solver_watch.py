"""What the solver tells of its decisions, and equal vertices of one build."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from castoff.errors import StepError
from castoff.events import NullObserver
from castoff.solve.cache import CacheRecord, MemoryCacheStore
from castoff.solve.cachekey import cache_key
from castoff.solve.explain import Decision, Explanation, Outcome, Reason, key_of
from castoff.solve.solver import Solver
from castoff.solve.vertex import Vertex

if TYPE_CHECKING:
    from castoff.solve.progress import VertexProgress


@dataclass
class NamedOp:
    """An operation whose key is its name."""

    name: str
    runs: list[str] = field(default_factory=list)
    usable: bool = True
    work: Callable[[], None] = lambda: None

    def key(self, inputs: Sequence[str], progress: VertexProgress) -> str | None:
        return self.name or None

    def restore(self, key: str, record: CacheRecord, inputs: Sequence[str]) -> str | None:
        return record.facts["name"] if self.usable else None

    def execute(self, key: str | None, inputs: Sequence[str], progress: VertexProgress) -> str:
        self.work()
        self.runs.append(self.name)
        return self.name

    def record(self, result: str) -> CacheRecord | None:
        return CacheRecord(facts={"name": result})


class Decisions:
    """Keeps the decisions that it is told of."""

    def __init__(self) -> None:
        self.made: list[Decision[str]] = []

    def decided(self, decision: Decision[str]) -> None:
        self.made.append(decision)

    @property
    def outcomes(self) -> list[tuple[str, Outcome]]:
        return [(decision.vertex.id, decision.outcome) for decision in self.made]


def solve(targets: list[Vertex[str]], cache: MemoryCacheStore) -> list[tuple[str, Outcome]]:
    watcher = Decisions()
    Solver[str](cache, NullObserver(), lambda: None, watcher).solve(targets)
    return watcher.outcomes


def test_every_kind_of_decision() -> None:
    cache = MemoryCacheStore()
    good = Vertex("good", "good", NamedOp("g"))
    assert solve([good], cache) == [("good", Outcome.MISSING)]
    assert solve([good], cache) == [("good", Outcome.CACHED)]
    assert solve([Vertex("x", "x", NamedOp("g", usable=False))], cache) == [("x", Outcome.LOST)]
    assert solve([Vertex("x", "x", NamedOp("g"), ignore_cache=True)], cache) == [("x", Outcome.IGNORED)]
    assert solve([Vertex("x", "x", NamedOp(""))], cache) == []


def test_a_decision_is_told_before_the_work_and_after_those_of_the_inputs() -> None:
    seen: list[str] = []
    watcher = Decisions()
    below = Vertex("below", "below", NamedOp("b", work=lambda: seen.append(watcher.made[-1].vertex.id)))
    top = Vertex("top", "top", NamedOp("t", work=lambda: seen.append(watcher.made[-1].vertex.id)), (below,))
    solver: Solver[str] = Solver(MemoryCacheStore(), NullObserver(), lambda: None, watcher)
    solver.solve([top])
    assert seen == ["below", "top"]
    assert watcher.made[1].inputs == ["b"]
    assert solver.has_result(top)


def test_a_step_that_failed_has_no_result() -> None:
    def fail() -> None:
        raise StepError("no")

    solver: Solver[str] = Solver(MemoryCacheStore(), NullObserver(), lambda: None)
    vertex = Vertex("v", "v", NamedOp("v", work=fail))
    with pytest.raises(StepError):
        solver.solve([vertex])
    assert not solver.has_result(vertex)


@pytest.mark.parametrize("ignore", [False, True])
def test_equal_vertices_are_worked_on_once(ignore: bool) -> None:
    runs: list[str] = []
    started = threading.Event()

    def work() -> None:
        started.set()
        time.sleep(0.05)  # time for the others to come, which changes nothing for those that are right

    vertices = [Vertex(f"v{n}", "v", NamedOp("same", runs, work=work), ignore_cache=ignore) for n in range(4)]
    cache = MemoryCacheStore()
    if ignore:
        cache.save("same", CacheRecord(facts={"name": "old"}))
    watcher = Decisions()
    results = Solver[str](cache, NullObserver(), lambda: None, watcher).solve(vertices)
    assert results == ["same"] * 4
    assert runs == ["same"]
    assert sorted(outcome.value for _id, outcome in watcher.outcomes) == sorted(
        ["ignored" if ignore else "missing", "cached", "cached", "cached"]
    )


def test_one_that_waits_for_an_equal_one_ends_with_it() -> None:
    def fail() -> None:
        raise StepError("no")

    vertices = [Vertex(f"v{n}", "v", NamedOp("same", work=fail)) for n in range(3)]
    with pytest.raises(StepError, match="no"):
        Solver[str](MemoryCacheStore(), NullObserver(), lambda: None).solve(vertices)


def test_names_of_parts_are_no_part_of_a_key() -> None:
    assert key_of("run", (("a", "1"), ("b", ("x", 2)))) == cache_key("run", "1", ("x", 2))


def test_an_explanation_is_one_line() -> None:
    reasons = (Reason("file", "a", "", "", "a is new"), Reason("step", "", "", "", "the step before it ran"))
    assert str(Explanation(0, "v", "[1/2] COPY a .", Outcome.MISSING, reasons)) == (
        "[1/2] COPY a . ran: a is new; the step before it ran"
    )
    assert str(Explanation(0, "v", "[1/2] COPY a .", Outcome.CACHED)) == "[1/2] COPY a . was cached"
