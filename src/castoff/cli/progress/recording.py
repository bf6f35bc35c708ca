"""The recording of a build, as the next run of the same build would show it: fully cached."""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from castoff.cli.progress.state import BuildState, Record

_BASE = re.compile(r"\[[^\]]*\d+/\d+\] FROM ")
_OWN_WORK = ("[internal] ", "exporting ")


def cached_records(state: BuildState) -> list[Record]:
    """Return records of tuples, text, numbers and bytes alone (`marshal` takes them), all times 0.

    Vertices appear in their order. What loads and exports is done again in a cached build and keeps its parts with
    their last counts; a base is looked at; every other step is cached, and what it printed is left out.
    """
    records: list[Record] = []
    for vertex in state.vertices.values():
        own_work = vertex.name.startswith(_OWN_WORK)
        end = "done" if (own_work or _BASE.match(vertex.name)) and vertex.state != "cached" else "cached"
        records.append(("v", vertex.id, vertex.name, "started", 0.0, ""))
        if own_work:
            records += [
                ("s", vertex.id, status.name, 0.0, status.current, status.total, True)
                for status in vertex.statuses.values()
            ]
        records.append(("v", vertex.id, vertex.name, end, 0.0, ""))
    records += [("w", *warning) for warning in state.warnings]
    return records
