"""Vertices: what the solver works on, and the protocol of the operations that they hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from castoff.location import SourceRange
    from castoff.solve.cache import CacheRecord
    from castoff.solve.cachekey import CacheKey
    from castoff.solve.progress import VertexProgress

R = TypeVar("R")


class Op(Protocol[R]):
    """What one vertex does. The solver calls `key` first, then either `restore` or `execute`.

    Methods are called from one thread at a time for one vertex, and from several for different ones.
    """

    def key(self, inputs: Sequence[R], progress: VertexProgress) -> CacheKey | None:
        """Return the cache key, which may need the content of the inputs; None where nothing is worth keeping.

        Idempotent.
        """

    def restore(self, key: CacheKey, record: CacheRecord, inputs: Sequence[R]) -> R | None:
        """Return the recorded result, or None where what it needs is no longer there. Idempotent."""

    def execute(self, key: CacheKey | None, inputs: Sequence[R], progress: VertexProgress) -> R:
        """Do the work. What it leaves in the store appears at once or not at all.

        Raises:
            CastoffError: the work failed; nothing of it is left.
        """

    def record(self, result: R) -> CacheRecord | None:
        """Return what to remember of a result; None as long as nothing of it would outlive this process."""


@dataclass(frozen=True, slots=True, eq=False)
class Vertex(Generic[R]):
    """An operation, and the vertices whose results it needs.

    Attributes:
        id: identifies it within one build.
        name: what progress shows.
        op: what it does.
        inputs: in the order in which the operation expects their results.
        ignore_cache: whether its record is left unread (it is still written).
        visible: whether observers are told of it.
        location: the instruction it comes from.
    """

    id: str
    name: str
    op: Op[R]
    inputs: tuple[Vertex[R], ...] = ()
    ignore_cache: bool = False
    visible: bool = True
    location: SourceRange | None = None
