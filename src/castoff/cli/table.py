"""Tables and times for people, in the form of Docker's lists."""

from __future__ import annotations

from collections.abc import Sequence

_MIN_WIDTH = 10
_GAP = 3


def table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Return rows as text with aligned columns; those whose index is in `right` are aligned to the right."""
    if not rows:
        return ""
    columns = len(rows[0])
    widths = [max(len(row[column]) for row in rows) for column in range(columns)]
    lines = []
    for row in rows:
        cells = []
        for column, cell in enumerate(row):
            if column in right:
                cells.append(cell.rjust(widths[column]) + " " * _GAP)
            else:
                cells.append(cell.ljust(max(widths[column] + _GAP, _MIN_WIDTH)))
        lines.append("".join(cells).rstrip() + "\n")
    return "".join(lines)


_HOUR = 3600
_DAY = 24 * _HOUR
_SCALE = (
    # below this many seconds: the unit, and its length; None where words say it
    (1, "Less than a second", None),
    (2, "1 second", None),
    (60, "seconds", 1),
    (120, "About a minute", None),
    (46 * 60, "minutes", 60),
    (1.5 * _HOUR, "About an hour", None),
    (48 * _HOUR, "hours", _HOUR),
    (14 * _DAY, "days", _DAY),
    (60 * _DAY, "weeks", 7 * _DAY),
    (730 * _DAY, "months", 30 * _DAY),
)


def human_duration(seconds: float) -> str:
    """Return a length of time, given in seconds, in words: ``3 minutes``, ``About an hour``, ``2 weeks``."""
    for limit, unit, length in _SCALE:
        if seconds < limit:
            return unit if length is None else f"{int(seconds // length)} {unit}"
    return f"{int(seconds // (365 * _DAY))} years"


def ago(seconds: float) -> str:
    """Return how long ago something was: ``3 minutes ago``."""
    return f"{human_duration(max(0.0, seconds))} ago"
