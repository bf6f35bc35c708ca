"""The nearest name to one that is unknown."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

_MAX_DISTANCE = 2
_MAX_LENGTH = 100
_MAX_OPTIONS = 200


def nearest(name: str, options: Iterable[str], *, case_sensitive: bool = True) -> str | None:
    """Return the option that is at most two edits away from `name`, the nearest first; None where there is none.

    An option equal to `name` gives None: what is wrong is then something else. Only so many options are looked at as a
    person would have written.
    """
    wanted = name if case_sensitive else name.lower()
    if len(wanted) > _MAX_LENGTH:
        return None
    best, best_distance = None, _MAX_DISTANCE + 1
    for option in islice(options, _MAX_OPTIONS):
        candidate = option if case_sensitive else option.lower()
        if candidate == wanted:
            return None
        if abs(len(candidate) - len(wanted)) >= best_distance:
            continue
        distance = _distance(wanted, candidate)
        if distance < best_distance:
            best, best_distance = option, distance
    if best is not None and not case_sensitive:
        return best.lower() if name == name.lower() else best.upper() if name == name.upper() else best
    return best


def hint(name: str, options: Iterable[str], *, case_sensitive: bool = True) -> str | None:
    """Return ``did you mean X?`` for the nearest option, or None."""
    match = nearest(name, options, case_sensitive=case_sensitive)
    return f"did you mean {match}?" if match else None


def _distance(first: str, second: str) -> int:
    """Return how many edits make one text of the other: one more, one less, another, or two neighbours swapped."""
    before: list[int] = []
    previous = list(range(len(second) + 1))
    for row, left in enumerate(first, 1):
        current = [row]
        for column, right in enumerate(second, 1):
            best = min(previous[column] + 1, current[column - 1] + 1, previous[column - 1] + (left != right))
            if column > 1 and row > 1 and left == second[column - 2] and right == first[row - 2]:
                best = min(best, before[column - 2] + 1)
            current.append(best)
        before, previous = previous, current
    return previous[-1]
