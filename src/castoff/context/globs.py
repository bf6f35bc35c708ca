"""Shell patterns for names and paths, as Go's path matching defines them: ``*``, ``?``, ``[a-z]`` and a backslash.

Matching takes time linear in the name for each star: the regular expressions that are made never backtrack over a
choice that can't matter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from castoff.errors import ContextError

_META = frozenset("*?[\\")


def has_wildcards(text: str) -> bool:
    """Say whether `text` has an unescaped ``*``, ``?`` or ``[``."""
    position = 0
    while position < len(text):
        character = text[position]
        if character in "*?[":
            return True
        position += 2 if character == "\\" else 1
    return False


def match_component(pattern: str, name: str) -> bool:
    """Say whether a whole name matches a pattern; ``*`` and ``?`` match no slash.

    Raises:
        ContextError: the pattern is malformed.
    """
    return Glob.compile(pattern).matches(name)


@dataclass(frozen=True, slots=True)
class Glob:
    """A compiled pattern."""

    pattern: str
    _regex: re.Pattern[str]

    @classmethod
    def compile(cls, pattern: str) -> Glob:
        """Compile a pattern.

        Raises:
            ContextError: the pattern is malformed.
        """
        chunks = _chunks(pattern)
        first, rest = chunks[0], chunks[1:]
        text = first
        for index, chunk in enumerate(rest):
            if index == len(rest) - 1:
                text += f"[^/]*{chunk}"
            else:
                text += f"(?>[^/]*?{chunk})"
        return cls(pattern, re.compile(text, re.DOTALL))

    def matches(self, name: str) -> bool:
        """Say whether the whole of `name` matches."""
        return self._regex.fullmatch(name) is not None


def check_pattern(pattern: str) -> None:
    """Refuse a malformed pattern.

    Raises:
        ContextError: it is malformed.
    """
    if _META.isdisjoint(pattern):
        return
    _chunks(pattern)


def _chunks(pattern: str) -> list[str]:
    """Return regular expressions for the pieces between stars; each matches text of one fixed length."""
    chunks = [""]
    position = 0
    while position < len(pattern):
        character = pattern[position]
        position += 1
        if character == "*":
            chunks.append("")
        elif character == "?":
            chunks[-1] += "[^/]"
        elif character == "[":
            text, position = _bracket(pattern, position)
            chunks[-1] += text
        elif character == "\\":
            if position == len(pattern):
                raise bad_pattern(pattern)
            chunks[-1] += re.escape(pattern[position])
            position += 1
        else:
            chunks[-1] += re.escape(character)
    return chunks


def _bracket(pattern: str, position: int) -> tuple[str, int]:
    """Read a bracket expression from behind its ``[``; return its regular expression and where it ends."""
    negated = pattern.startswith("^", position)
    position += negated
    items: list[str] = []
    while not (items and pattern.startswith("]", position)):
        low, position = _bracket_character(pattern, position)
        high = low
        if pattern.startswith("-", position):
            high, position = _bracket_character(pattern, position + 1)
        if low <= high:
            items.append(f"{re.escape(low)}-{re.escape(high)}")
        else:
            items.append("")
    body = "".join(items)
    if not body:
        return ("." if negated else "(?!)"), position + 1
    return f"[{'^' if negated else ''}{body}]", position + 1


def _bracket_character(pattern: str, position: int) -> tuple[str, int]:
    character = pattern[position : position + 1]
    if character in ("", "-", "]"):
        raise bad_pattern(pattern)
    if character == "\\":
        position += 1
        character = pattern[position : position + 1]
    if not character or position + 1 >= len(pattern):
        raise bad_pattern(pattern)
    return character, position + 1


def bad_pattern(pattern: str) -> ContextError:
    """Return the error for a malformed pattern."""
    return ContextError(
        f"the pattern {pattern!r} is malformed", hint="a [ needs its ], and a backslash something after it"
    )
