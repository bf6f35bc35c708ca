"""The patterns of ``${x#p}``, ``${x%p}`` and ``${x/p/r}``: ``*`` and ``?``, matched in linear time.

As in the reference, neither matches a line feed, and there are no bracket expressions.
"""

from __future__ import annotations

import re

from castoff.errors import ExpansionError

_TEMPLATE = re.compile(r"\$(\$|\{\w+\}|\w+)")


class ShellPattern:
    """A pattern, as an automaton whose states are the bits of one integer (shift-and).

    State i stands for the first i single characters being matched; a star gives a state a loop to itself.
    """

    __slots__ = ("_any", "_length", "_literals", "_loops", "_tokens")

    def __init__(self, pattern: str) -> None:
        self._tokens: list[str | None] = []
        self._loops = 0
        self._any = 0
        self._literals: dict[str, int] = {}
        self._parse(pattern)
        self._length = len(self._tokens)
        for index, token in enumerate(self._tokens):
            if token is None:
                self._any |= 1 << index
            else:
                self._literals[token] = self._literals.get(token, 0) | 1 << index

    def _parse(self, pattern: str) -> None:
        position = 1 if pattern.startswith("\ufeff") else 0
        while position < len(pattern):
            character = pattern[position]
            position += 1
            if character == "*":
                self._loops |= 1 << len(self._tokens)
                continue
            if character == "?":
                self._tokens.append(None)
                continue
            if character == "\\":
                following = pattern[position : position + 1]
                if following in ("}", "/"):
                    continue  # the escape was for the ${} around it
                if following not in ("*", "?", "\\") or not following:
                    raise ExpansionError(f"invalid pattern ({pattern}) in substitution: invalid escape '\\{following}'")
                position += 1
                character = following
            self._tokens.append(character)

    def _step(self, states: int, character: str) -> int:
        moves = self._literals.get(character, 0)
        if character != "\n":
            return (states & (moves | self._any)) << 1 | states & self._loops
        return (states & moves) << 1

    def prefix_end(self, text: str, start: int = 0, *, longest: bool) -> int | None:
        """Return where the shortest or longest match that begins at `start` ends; None where there is none."""
        accept = 1 << self._length
        states = 1
        found = None
        position = start
        while states:
            if states & accept:
                found = position
                if not longest:
                    break
            if position == len(text):
                break
            states = self._step(states, text[position])
            position += 1
        return found

    def _starts(self, text: str) -> list[bool]:
        """Return for every position whether a match can begin there (the automaton, run backwards)."""
        starts = [False] * (len(text) + 1)
        accept = 1 << self._length
        states = accept
        starts[len(text)] = bool(states & 1)
        for position in range(len(text) - 1, -1, -1):
            character = text[position]
            moves = self._literals.get(character, 0)
            if character != "\n":
                states = (states >> 1 & (moves | self._any)) | states & self._loops | accept
            else:
                states = states >> 1 & moves | accept
            starts[position] = bool(states & 1)
        return starts

    def replace(self, text: str, replacement: str, *, every: bool) -> str:
        """Return `text` with the leftmost longest match, or every one, replaced.

        With `every`, ``$0`` and ``$name`` in the replacement are a template, as in the reference.
        """
        starts = self._starts(text)
        pieces: list[str] = []
        position = copied = 0
        while position <= len(text):
            begin = next((index for index in range(position, len(starts)) if starts[index]), None)
            if begin is None:
                break
            end = self.prefix_end(text, begin, longest=True)
            if end is None:
                break
            if not every:
                return text[:begin] + replacement + text[end:]
            pieces.append(text[copied:begin])
            if end > copied or begin == 0:
                pieces.append(_fill(replacement, text[begin:end]))
            copied = end
            position = max(position + 1, end)
        pieces.append(text[copied:])
        return "".join(pieces)


def _fill(template: str, matched: str) -> str:
    if "$" not in template:
        return template

    def value(match: re.Match[str]) -> str:
        name = match[1].strip("{}")
        return {"$": "$", "0": matched}.get(name, "")

    return _TEMPLATE.sub(value, template)


def trim_prefix(pattern: str, value: str, *, longest: bool) -> str:
    """Return `value` without the shortest or longest prefix that matches.

    Raises:
        ExpansionError: the pattern has an escape that it must not have.
    """
    end = ShellPattern(pattern).prefix_end(value, longest=longest)
    return value if end is None else value[end:]


def trim_suffix(pattern: str, value: str, *, longest: bool) -> str:
    """Return `value` without the shortest or longest suffix that matches.

    Raises:
        ExpansionError: the pattern has an escape that it must not have.
    """
    return trim_prefix(_reversed_pattern(pattern), value[::-1], longest=longest)[::-1]


def _reversed_pattern(pattern: str) -> str:
    """Turn a pattern round, each escape staying before what it escapes."""
    parts = []
    position = 0
    while position < len(pattern):
        width = 2 if pattern[position] == "\\" and position + 1 < len(pattern) else 1
        parts.append(pattern[position : position + width])
        position += width
    return "".join(reversed(parts))
