"""One pattern of the .dockerignore language, compiled to something that matches in linear time.

The reference turns a pattern into a regular expression of its own, and some of that shows: a backslash before a
letter may make a character class, and bracket expressions follow the rules of regular expressions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from castoff.context.globs import bad_pattern

_CLASS_ESCAPES = {"d": "0-9", "w": "0-9A-Za-z_", "s": "\\t\\n\\f\\r "}
_CONTROL_ESCAPES = {"a": "\a", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_POSIX = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "ascii": "\\x00-\\x7f",
    "blank": "\\t ",
    "cntrl": "\\x00-\\x1f\\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": "!-/:-@\\[-`{-~",
    "space": "\\t-\\r ",
    "upper": "A-Z",
    "word": "0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
}
_MAX_PLAIN_LOOPS = 2

TokenKind = Literal["one", "loop", "folders"]


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of a pattern: one character of a set, any number of them, or ``(.*/)?``."""

    kind: TokenKind
    charset: str


@dataclass(frozen=True, slots=True)
class PathPattern:
    """A compiled pattern without its ``!``.

    Attributes:
        pattern: as given.
        regex: a regular expression for whole paths that needs no more than quadratic time; "" where there is none, and
            the automaton does the work.
    """

    pattern: str
    regex: str
    _compiled: re.Pattern[str] | None
    _automaton: Automaton | None
    _parts: tuple[re.Pattern[str] | None, ...]

    @classmethod
    def compile(cls, pattern: str) -> PathPattern:
        """Compile a pattern.

        Raises:
            ContextError: it is malformed.
        """
        shape, tokens = _tokens(pattern)
        automaton = None
        if shape == "exact":
            regex = re.escape(pattern)
        elif shape == "prefix":
            regex = re.escape(pattern[:-2]) + "(?s:.*)"
        elif shape == "suffix":
            regex = "(?s:.*)" + re.escape(pattern[2:])
            if pattern[2:3] == "/":
                regex += "|" + re.escape(pattern[3:])
        else:
            regex = _regex(tokens)
            if not regex:
                automaton = Automaton(tokens)
        compiled = re.compile(regex) if regex else None
        return cls(pattern, regex, compiled, automaton, _part_patterns(pattern))

    def matches(self, path: str) -> bool:
        """Say whether the whole of `path` matches."""
        if self._compiled is not None:
            return self._compiled.fullmatch(path) is not None
        return self._automaton is not None and self._automaton.matches(path)

    def may_match_below(self, parts: list[str]) -> bool:
        """Say whether something below the folder made of `parts` may match; True where it can't be told."""
        for index, part in enumerate(self._parts):
            if part is None or index >= len(parts):
                return True
            if not part.fullmatch(parts[index]):
                return False
        return True


class Automaton:
    """Runs tokens over a text, all possible states at once as the bits of one integer.

    State i stands for the tokens before i being matched.
    """

    __slots__ = ("_accept", "_folders", "_loops", "_masks", "_ones", "_sets")

    def __init__(self, tokens: list[Token]) -> None:
        unfolded = _unfolded(tokens)
        self._sets = [re.compile(token.charset) for token in unfolded]
        self._accept = 1 << len(unfolded)
        self._masks: dict[str, int] = {}
        self._ones, self._loops, self._folders = (
            sum(1 << index for index, token in enumerate(unfolded) if token.kind == kind)
            for kind in ("one", "loop", "folders")
        )

    def matches(self, text: str) -> bool:
        """Say whether the whole of `text` matches."""
        states = self._closed(1)
        for character in text:
            mask = self._masks.get(character)
            if mask is None:
                mask = sum(1 << index for index, charset in enumerate(self._sets) if charset.fullmatch(character))
                self._masks[character] = mask
            states &= mask
            if not states:
                return False
            states = self._closed((states & self._ones) << 1 | states & self._loops)
        return bool(states & self._accept)

    def _closed(self, states: int) -> int:
        """Add the states that can be reached without a character: a loop may be left, a group of folders skipped."""
        while True:
            folders = states & self._folders
            more = states | (states & self._loops) << 1 | folders << 1 | folders << 3
            if more == states:
                return states
            states = more


def _unfolded(tokens: list[Token]) -> list[Token]:
    """Return tokens with ``(.*/)?`` as three: a marker that may be skipped with what follows, a loop, a slash."""
    result: list[Token] = []
    for token in tokens:
        if token.kind == "folders":
            result += (Token("folders", "(?!)"), Token("loop", "."), Token("one", "/"))
        else:
            result.append(token)
    return result


def _regex(tokens: list[Token]) -> str:
    """Return a regular expression for tokens, or "" where one might take too long.

    A star that is followed by another one within the same folder need not be tried again once what lies between them
    was found: its group is atomic. What is left tries at most two loops against one another.
    """
    loops = [index for index, token in enumerate(tokens) if token.kind != "one"]
    if len(loops) <= _MAX_PLAIN_LOOPS:
        return "".join(map(_token_regex, tokens))
    if any(tokens[index].charset not in ("[^/]", "folders") for index in loops):
        return ""
    if sum(1 for index in loops if tokens[index].kind == "folders") > _MAX_PLAIN_LOOPS:
        return ""
    text = "".join(map(_token_regex, tokens[: loops[0]]))
    for place, index in enumerate(loops):
        end = loops[place + 1] if place + 1 < len(loops) else len(tokens)
        between = tokens[index + 1 : end]
        crosses = any(token.charset == "/" for token in between)
        fixed = "".join(map(_token_regex, between))
        following = tokens[end].kind if end < len(tokens) else None
        if tokens[index].kind == "folders":
            text += _token_regex(tokens[index]) + fixed
        elif following == "loop" and not crosses:
            text += f"(?>[^/]*?{fixed})"
        elif crosses or following is None:
            text += f"[^/]*{fixed}"
        else:
            return ""
    return text


def _token_regex(token: Token) -> str:
    if token.kind == "folders":
        return "(?:.*/)?"
    return token.charset + ("*" if token.kind == "loop" else "")


def _tokens(pattern: str) -> tuple[Literal["exact", "prefix", "suffix", "regex"], list[Token]]:
    """Take a pattern apart, and say which simple shape it has."""
    text, shape = _as_regex(pattern)
    return shape, _parse_regex(text, pattern) if shape == "regex" else []


def _as_regex(pattern: str) -> tuple[str, Literal["exact", "prefix", "suffix", "regex"]]:
    """Return the regular expression that the reference makes, without its anchors, and the shape it sees."""
    shape: Literal["exact", "prefix", "suffix", "regex"] = "exact"
    text = ""
    position = 0
    while position < len(pattern):
        character = pattern[position]
        first = position == 0
        position += 1
        if pattern.startswith("**", position - 1):
            position += 1
            if pattern.startswith("/", position):
                position += 1
            if position < len(pattern):
                text, shape = text + "(.*/)?", "regex"
            elif shape == "exact":
                shape = "prefix"
            else:
                text, shape = text + ".*", "regex"
            if first:
                shape = "suffix"
        elif character in "*?":
            text, shape = text + ("[^/]*" if character == "*" else "[^/]"), "regex"
        elif character in ".+()|{}$":
            text += "\\" + character
        elif character == "\\":
            following = pattern[position : position + 1]
            position += 1
            text += "\\" + following
            shape = "regex" if following else shape
        else:
            text += character
            shape = "regex" if character in "[]" else shape
    return text, shape


def _parse_regex(text: str, pattern: str) -> list[Token]:
    tokens: list[Token] = []
    position = 0
    while position < len(text):
        character = text[position]
        if text.startswith("(.*/)?", position):
            tokens.append(Token("folders", "folders"))
            position += 6
            continue
        if character == "[":
            charset, position = _class(text, position + 1, pattern)
        elif character == "\\":
            charset, position = _escape(text, position + 1, pattern)
            charset = f"[{charset}]" if not charset.startswith("[") else charset
        elif character == ".":
            charset, position = ".", position + 1
        elif character == "^":
            charset, position = "(?!)", position + 1  # an anchor that can't hold here
        else:
            charset, position = re.escape(character), position + 1
        loop = text.startswith("*", position)
        position += loop
        tokens.append(Token("loop" if loop else "one", charset))
    return tokens


def _escape(text: str, position: int, pattern: str) -> tuple[str, int]:
    """Read an escape from behind its backslash; return what it stands for as the inside of a set."""
    character = text[position : position + 1]
    if not character:
        raise bad_pattern(pattern)
    if character in _CLASS_ESCAPES:
        return _CLASS_ESCAPES[character], position + 1
    if character.lower() in _CLASS_ESCAPES:
        return f"[^{_CLASS_ESCAPES[character.lower()]}]", position + 1
    if character in _CONTROL_ESCAPES:
        return re.escape(_CONTROL_ESCAPES[character]), position + 1
    if character.isascii() and (character.isalnum() or character == "_"):
        raise bad_pattern(pattern)
    return re.escape(character), position + 1


def _class(text: str, position: int, pattern: str) -> tuple[str, int]:
    """Read a bracket expression from behind its ``[``, by the rules of Go's regular expressions."""
    negated = text.startswith("^", position)
    position += negated
    items: list[str] = []
    first = True
    while first or not text.startswith("]", position):
        first = False
        if position >= len(text):
            raise bad_pattern(pattern)
        posix = re.compile(r"\[:(\^?)(\w+):\]").match(text, position)
        if posix:
            if posix[2] not in _POSIX or posix[1]:
                raise bad_pattern(pattern)
            items.append(_POSIX[posix[2]])
            position = posix.end()
            continue
        low, position = _class_item(text, position, pattern)
        if text.startswith("-", position) and not text.startswith("-]", position) and len(low) <= 2:
            high, position = _class_item(text, position + 1, pattern)
            if len(high) > 2 or low[-1] > high[-1]:
                raise bad_pattern(pattern)
            low = f"{low}-{high}"
        items.append(low)
    return f"[{'^' if negated else ''}{''.join(items)}]", position + 1


def _class_item(text: str, position: int, pattern: str) -> tuple[str, int]:
    if position >= len(text):
        raise bad_pattern(pattern)
    if text[position] == "\\":
        item, position = _escape(text, position + 1, pattern)
        if item.startswith("[^"):
            raise bad_pattern(pattern)
        return item, position
    character = text[position]
    return ("\\" + character if character in "\\[]^-&~|" else character), position + 1


def _part_patterns(pattern: str) -> tuple[re.Pattern[str] | None, ...]:
    """Return an expression for each folder of a pattern; None from the first one on that ``**`` may stretch."""
    parts: list[re.Pattern[str] | None] = []
    for part in pattern.split("/"):
        shape, tokens = _tokens(part) if "**" not in part and not _META_IN_CLASS.search(part) else ("exact", None)
        if tokens is None:
            parts.append(None)
            break
        regex = re.escape(part) if shape == "exact" else _regex(tokens)
        parts.append(re.compile(regex) if regex else None)
    return tuple(parts)


_META_IN_CLASS = re.compile(r"[\[\]\\]")
