"""Heredocs: ``<<NAME``, ``<<-NAME`` and ``<<"NAME"`` in RUN, COPY and ADD."""

from __future__ import annotations

import re
from dataclasses import dataclass

from castoff.dockerfile.words import WordLexer
from castoff.errors import ExpansionError, ParseError

_MARK = re.compile(r"(\d*)<<(-?)[\t\n\f\r ]*([^<]*)\Z", re.ASCII)
_LEADING_TABS = re.compile(r"^\t+", re.MULTILINE)
_PLAIN = WordLexer(keep_unset=True)
_QUOTED = WordLexer(keep_unset=True, raw_quotes=True)
_LINE = WordLexer(keep_unset=True, raw_quotes=True, raw_escapes=True, heredoc_dash=True)


@dataclass(frozen=True, slots=True)
class Heredoc:
    """One heredoc.

    Attributes:
        name: the word that ends it.
        expand: whether variables in it are expanded (its name has no quotes).
        chomp: whether leading tabs are dropped (``<<-``).
        content: the lines up to the name, with their line ends, tabs and all.
        file_descriptor: the number before ``<<``, else 0.
    """

    name: str
    expand: bool
    chomp: bool
    content: str = ""
    file_descriptor: int = 0


def parse_heredoc(word: str) -> Heredoc | None:
    """Read a word such as ``3<<-"EOF"``; None where it is none.

    Raises:
        ParseError: a quote in its name is not closed.
    """
    match = _MARK.match(word)
    if not match or not match[3]:
        return None
    try:
        words = _PLAIN.words(match[3], {})
        raw = _QUOTED.words(match[3], {})
    except ExpansionError as error:
        raise ParseError(error.message) from error
    if len(words) != 1:
        return None
    if len(raw) != 1:
        raise ParseError(f"internal lexing of heredoc produced inconsistent results: {match[3]}")
    descriptor = int(match[1][:19] or "0")
    return Heredoc(words[0], _quotes(words[0]) == _quotes(raw[0]), match[2] == "-", "", descriptor)


def _quotes(word: str) -> int:
    return word.count("'") + word.count('"')


def maybe_heredoc(word: str) -> Heredoc | None:
    """Read a word as `parse_heredoc` does, and return None for a malformed one too."""
    try:
        return parse_heredoc(word)
    except ParseError:
        return None


def heredocs_of(line: str) -> list[Heredoc]:
    """Return the heredocs that a line opens, in order, without their content.

    Raises:
        ParseError: a quote in a name is not closed.
    """
    try:
        words = _LINE.words(line, {})
    except ExpansionError:
        return []
    return [heredoc for heredoc in map(parse_heredoc, words) if heredoc]


def chomp(content: str) -> str:
    """Drop the leading tabs of every line."""
    return _LEADING_TABS.sub("", content)
