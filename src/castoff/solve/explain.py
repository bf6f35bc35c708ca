"""Why a vertex ran or was cached: the parts that its key is made of, and what the solver made of its record."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar, runtime_checkable

from castoff.solve.cachekey import cache_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from castoff.solve.cache import CacheRecord
    from castoff.solve.cachekey import CacheKey
    from castoff.solve.vertex import Vertex

R = TypeVar("R")

KeyParts = tuple[tuple[str, object], ...]
"""What a cache key is made of, in order: names, for people, and values as `cache_key` takes them."""


def key_of(kind: str, parts: KeyParts) -> CacheKey:
    """Return the cache key of a step of some `kind` from its named parts; the names are no part of the key."""
    return cache_key(kind, *(value for _name, value in parts))


@runtime_checkable
class HasParts(Protocol):
    """An operation that remembers what its key was made of."""

    parts: KeyParts
    """The parts of the last key that it gave; empty before."""


class Outcome(Enum):
    """What the solver made of a vertex' record."""

    CACHED = "cached"
    """The recorded result was taken."""
    MISSING = "missing"
    """There was no record of its key."""
    LOST = "lost"
    """There was one, and what it needs was gone."""
    IGNORED = "ignored"
    """It was not looked for: the vertex was to run in any case."""


@dataclass(frozen=True, slots=True)
class Decision(Generic[R]):
    """What was decided about a vertex that has a key, right before it is executed, or instead of that.

    Attributes:
        vertex: the vertex.
        key: its cache key.
        inputs: the results of its inputs.
        outcome: what was decided.
        record: the record, for CACHED and LOST.
    """

    vertex: Vertex[R]
    key: CacheKey
    inputs: Sequence[R]
    outcome: Outcome
    record: CacheRecord | None = None


class Watcher(Protocol[R]):
    """Is told of the decisions of a solver."""

    def decided(self, decision: Decision[R]) -> None:
        """Note a decision. Called from several threads, after those of the vertex' inputs. It raises nothing."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that was different.

    Attributes:
        kind: what it is: ``file``, ``argument``, ``variable``, ``command``, ``mount``, ``base``, ``step`` (the one
            before), ``option``, ``heredoc``, ``first-build``, ``instruction``, ``no-cache``, ``failed``, ``lost``.
        subject: what it is called: a path, the name of a variable, an image.
        before: what it was; "" where it was not there, or is not shown.
        after: what it is; "" where it is gone, or is not shown.
        text: all that in words.
    """

    kind: str
    subject: str
    before: str
    after: str
    text: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a step ran, or that it was cached.

    Attributes:
        index: its place among the steps of the build.
        vertex: identifies it within the build, as in the events of its observer.
        name: what progress shows.
        outcome: what was decided.
        reasons: why it ran, most telling first; empty for a step that was cached.
    """

    index: int
    vertex: str
    name: str
    outcome: Outcome
    reasons: tuple[Reason, ...] = ()

    @property
    def ran(self) -> bool:
        """Whether it was executed."""
        return self.outcome is not Outcome.CACHED

    def __str__(self) -> str:
        """Return one line, such as ``[2/3] COPY main.go . ran: main.go changed (sha256 ab12… → cd34…)``."""
        if not self.ran:
            return f"{self.name} was cached"
        return f"{self.name} ran: {'; '.join(reason.text for reason in self.reasons)}"
