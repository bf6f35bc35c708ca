"""The sources of COPY and ADD in their order, told apart by where they come from."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from castoff.ops.select import Request
from castoff.plan.paths import source_kind

if TYPE_CHECKING:
    from castoff.plan.step import CopyStep

_ALL = ("/",)


@dataclass(frozen=True, slots=True)
class SourcePart:
    """Sources that follow one another and come from one place.

    Attributes:
        request: what is asked of that place.
        unpack: whether archives are unpacked.
        remote: the URL of a file or a git repository; "" for the step's own source.
    """

    request: Request
    unpack: bool = False
    remote: str = ""


def source_parts(step: CopyStep) -> tuple[SourcePart, ...]:
    """Return where the sources of a step come from; each part is one input of its vertex."""
    if not step.is_add:
        return (SourcePart(Request(step.sources, step.excludes, step.parents)),) if step.sources else ()
    parts: list[SourcePart] = []
    for is_local, sources in groupby(step.sources, lambda source: source_kind(source) == "local"):
        if is_local:
            parts.append(SourcePart(Request(tuple(sources), step.excludes), step.unpack is not False))
        else:
            whole = Request(_ALL, step.excludes)
            parts += (SourcePart(whole, step.unpack is True, source) for source in sources)
    return tuple(parts)
