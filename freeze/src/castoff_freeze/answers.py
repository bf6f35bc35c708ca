"""Compare answers: what the unshrunk service said twice, and what the frozen one says.

Answers hold times, identifiers and addresses that are never the same twice. What differs between two recordings of the
unshrunk service is such, and may differ in the frozen one too; everything else must be the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from castoff_freeze.smoke import Command, Request

if TYPE_CHECKING:
    from castoff_freeze.session import Answer

Step = str | int
# A point in time is one word, as its parts change together.
_WORDS = re.compile(r"\d+(?:[-:.,T+]\d+)*Z?|\w+|[^\w\s]|\s+")
_SHOWN = 160


def volatile(first: Answer, second: Answer) -> frozenset[tuple[Step, ...]]:
    """Return where two answers to the same request differ: paths into JSON, or indexes of words."""
    return frozenset(path for path, _, _ in _differences(_parsed(first), _parsed(second)))


def difference(
    asked: Request | Command, expected: Answer, given: Answer, may_differ: frozenset[tuple[Step, ...]]
) -> str:
    """Return in words how an answer is not what was expected, or "" where it is."""
    if given.error:
        return f"no answer ({given.error})"
    if given.status != expected.status:
        what = "exit code" if isinstance(asked, Command) else "status"
        return f"{what} {given.status} instead of {expected.status}{_beginning(given.body)}"
    if _type(given) != _type(expected):
        return f"content type {_type(given) or 'none'} instead of {_type(expected) or 'none'}"
    if not asked.whole:
        return ""
    ignored = [tuple(path.split(".")) for path in asked.ignore] if isinstance(asked, Request) else []
    for path, old, new in _differences(_parsed(expected), _parsed(given)):
        if _covered(path, may_differ) and type(old) is type(new):
            continue
        if not any(_matches(path, pattern) for pattern in ignored):
            where = ".".join(map(str, path)) or "the body"
            return f"{where} is {_short(new)} instead of {_short(old)}"
    return ""


def expectation(asked: Request | Command, given: Answer) -> str:
    """Return in words how the unshrunk service's own answer is not what the smoke description says, or ""."""
    if given.error:
        return f"no answer ({given.error})"
    if isinstance(asked, Command):
        if given.status != asked.exit:
            return f"exit code {given.status} instead of {asked.exit}"
    elif given.status != asked.status:
        return f"status {given.status} instead of {asked.status}{_beginning(given.body)}"
    return ""


def _type(answer: Answer) -> str:
    return answer.kind.lower().replace(" ", "")


def _parsed(answer: Answer) -> Any:
    """Return a body as JSON, else as a list of words, else as bytes."""
    if "json" in answer.kind or answer.body[:1] in (b"{", b"["):
        try:
            return json.loads(answer.body)
        except ValueError:
            pass
    try:
        return _WORDS.findall(answer.body.decode())
    except UnicodeDecodeError:
        return answer.body


def _differences(old: Any, new: Any, path: tuple[Step, ...] = ()) -> Iterable[tuple[tuple[Step, ...], Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
        for name in old:
            yield from _differences(old[name], new[name], (*path, name))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (left, right) in enumerate(zip(old, new, strict=True)):
            yield from _differences(left, right, (*path, index))
    elif old != new or type(old) is not type(new):
        yield path, old, new


def _covered(path: tuple[Step, ...], may_differ: frozenset[tuple[Step, ...]]) -> bool:
    return any(path[:length] in may_differ for length in range(len(path) + 1))


def _matches(path: tuple[Step, ...], pattern: Sequence[str]) -> bool:
    """Tell whether a path lies at or below a pattern."""
    return len(path) >= len(pattern) and all(
        want in ("*", str(have)) for want, have in zip(pattern, path, strict=False)
    )


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value) if isinstance(value, bytes) else json.dumps(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _beginning(body: bytes) -> str:
    text = " ".join(body[:_SHOWN].decode(errors="replace").split())
    return f" ({text})" if text else ""
