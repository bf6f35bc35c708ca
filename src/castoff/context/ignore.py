"""The pattern language of .dockerignore, which ``COPY --exclude`` shares.

The last pattern that matches a path, or a folder above it, decides; ``!`` takes it back in. ``**`` stands for any
number of folders.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from castoff.context.globs import check_pattern
from castoff.context.pathpattern import PathPattern
from castoff.dockerfile.text import SPACE
from castoff.errors import ContextError

MAX_LINE = 65536
"""The longest line of a .dockerignore, in bytes with its line feed."""

_BOM = b"\xef\xbb\xbf"


def read_patterns(data: bytes) -> list[str]:
    """Return the patterns of a .dockerignore: comments and blank lines gone, paths cleaned, a leading slash dropped.

    Raises:
        ContextError: a line is too long.
    """
    return [pattern for _line, pattern in number_patterns(data)]


def number_patterns(data: bytes) -> list[tuple[int, str]]:
    """Return the patterns of a .dockerignore, each with the line, from 1, that it is on.

    Raises:
        ContextError: a line is too long.
    """
    patterns = []
    for number, line in enumerate(data.removeprefix(_BOM).split(b"\n"), 1):
        if len(line) >= MAX_LINE:
            raise ContextError(f"line {number} of the ignore file is longer than {MAX_LINE - 1} bytes")
        text = line.decode("utf-8", "surrogateescape")
        pattern = text.strip(SPACE)
        if text.startswith("#") or not pattern:
            continue
        inverted = pattern.startswith("!")
        if inverted:
            pattern = pattern[1:].strip(SPACE)
        if pattern:
            pattern = _clean(pattern)
            if len(pattern) > 1 and pattern.startswith("/"):
                pattern = pattern[1:]
        patterns.append((number, "!" + pattern if inverted else pattern))
    return patterns


@dataclass(frozen=True, slots=True)
class IgnoreState:
    """What a folder's parents have matched, to be handed to the entries of the folder."""

    matched: int = 0


@dataclass(frozen=True, slots=True)
class IgnorePatterns:
    """A list of patterns, compiled.

    Attributes:
        patterns: as given, cleaned, with their ``!``.
    """

    patterns: tuple[str, ...] = ()
    _rules: tuple[tuple[bool, PathPattern], ...] = ()
    _any: re.Pattern[str] | None = field(default=None)
    _slow: tuple[PathPattern, ...] = ()
    _has_exceptions: bool = False

    @classmethod
    def parse(cls, data: bytes) -> IgnorePatterns:
        """Read a .dockerignore file.

        Raises:
            ContextError: a pattern is malformed, or a line is too long.
        """
        return cls.of(read_patterns(data))

    @classmethod
    def of(cls, patterns: Iterable[str]) -> IgnorePatterns:
        """Compile patterns, such as those of ``--exclude``.

        Raises:
            ContextError: a pattern is malformed.
        """
        texts = tuple(_clean(text) for text in map(_stripped, patterns) if text)
        rules = tuple(map(_rule, texts))
        has_exceptions = any(exception for exception, _ in rules)
        fast = [rule.regex for _, rule in rules if rule.regex]
        combined = re.compile("|".join(f"(?:{text})" for text in fast)) if fast and not has_exceptions else None
        slow = tuple(rule for _, rule in rules if not rule.regex)
        return cls(texts, rules, combined, slow, has_exceptions)

    def __bool__(self) -> bool:
        """Say whether there is any pattern."""
        return bool(self._rules)

    @property
    def has_exceptions(self) -> bool:
        """Whether a pattern begins with ``!``."""
        return self._has_exceptions

    def excludes(self, path: str) -> bool:
        """Say whether a path, relative and with slashes, is excluded, by itself or with a folder above it.

        Raises:
            ContextError: a pattern turns out to be malformed.
        """
        parents = _parents(path)
        if not self._has_exceptions:
            return self._matches_any(path) or any(map(self._matches_any, parents))
        excluded = False
        for exception, rule in self._rules:
            if exception != excluded:
                continue
            if rule.matches(path) or any(rule.matches(parent) for parent in parents):
                excluded = not exception
        return excluded

    def match(self, path: str, parent: IgnoreState | None = None) -> tuple[bool, IgnoreState]:
        """Say whether an entry is excluded, given the state of its folder.

        For a walk from the top: entries of the root get no state, entries of a folder the state that this returned for
        the folder. The verdict is that of `excludes`.

        Raises:
            ContextError: a pattern turns out to be malformed.
        """
        matched = parent.matched if parent else 0
        if not self._has_exceptions:
            if not matched and self._matches_any(path):
                matched = 1
            return bool(matched), IgnoreState(matched)
        excluded = False
        bit = 1
        for exception, rule in self._rules:
            if not matched & bit and rule.matches(path):
                matched |= bit
            if matched & bit:
                excluded = not exception
            bit <<= 1
        return excluded, IgnoreState(matched)

    def _matches_any(self, path: str) -> bool:
        if self._any is not None and self._any.fullmatch(path):
            return True
        return any(rule.matches(path) for rule in self._slow)

    def may_descend(self, path: str) -> bool:
        """Say whether an excluded folder must be looked into: a ``!`` pattern could match something below it."""
        if not self._has_exceptions:
            return False
        parts = path.split("/")
        return any(rule.may_match_below(parts) for exception, rule in self._rules if exception)

    def deciding(self, path: str) -> str:
        """Return the pattern that decides about a path; "" where none matches.

        Raises:
            ContextError: a pattern turns out to be malformed.
        """
        index = self.deciding_index(path)
        return "" if index is None else self.patterns[index]

    def deciding_index(self, path: str) -> int | None:
        """Return the place in `patterns` of the one that decides about a path; None where none matches.

        Raises:
            ContextError: a pattern turns out to be malformed.
        """
        chain = [*_parents(path), path]
        for index in range(len(self._rules) - 1, -1, -1):
            if any(self._rules[index][1].matches(item) for item in chain):
                return index
        return None


def _stripped(text: str) -> str:
    return text.strip(SPACE)


def _rule(text: str) -> tuple[bool, PathPattern]:
    if text == "!":
        raise ContextError('illegal exclusion pattern: "!"', hint="write the path to keep after the !")
    exception = text.startswith("!")
    pattern = text[exception:]
    check_pattern(pattern)
    return exception, PathPattern.compile(pattern)


def _parents(path: str) -> list[str]:
    folder = _clean(path.rpartition("/")[0]) if "/" in path else "."
    if path.startswith("/") and "/" not in path[1:]:
        folder = "/"
    if folder == ".":
        return []
    parts = folder.split("/")
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _clean(path: str) -> str:
    """Clean a path as Go does: no empty parts, no ``.``, ``..`` folded where it can be; "." for nothing."""
    rooted = path.startswith("/")
    parts: list[str] = []
    for part in path.split("/"):
        if part in ("", "."):
            continue
        if part == "..":
            if parts and parts[-1] != "..":
                parts.pop()
                continue
            if rooted:
                continue
        parts.append(part)
    text = "/".join(parts)
    return "/" + text if rooted else text or "."
