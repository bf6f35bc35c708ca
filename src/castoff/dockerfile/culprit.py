"""The word that an error is about, so that a message can point at it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from castoff.location import SourceRange

if TYPE_CHECKING:
    from castoff.errors import CastoffError

_WORDS = re.compile(
    r"\"([^\"]+)\"|(?<!\w)'([^']+)'|: ([^\s():'\"]+)(?=$|:| )|(--[a-z][a-z-]*)|(?:expression|index|value) ([^\s'\"]+)"
)
_MAX_WORD = 200
_INSIDE = r"[\w.-]"


def point_at(error: CastoffError, lines: Sequence[str]) -> None:
    """Narrow the place of an error down to the word that its message quotes, if that is in the lines it names.

    Args:
        error: an error whose place may be whole lines.
        lines: those of the Dockerfile.
    """
    where = error.location
    if where is None or where.start_column is not None:
        return
    for word in _candidates(error.message):
        pattern = _whole_word(word)
        for number in range(where.start_line, min(where.end_line, len(lines)) + 1):
            match = pattern.search(lines[number - 1])
            if match is not None:
                error.location = SourceRange(where.file, number, number, match.start(), match.end())
                return


def _candidates(message: str) -> Iterator[str]:
    for match in _WORDS.finditer(message):
        word = next(filter(None, match.groups()), "")
        if word and len(word) <= _MAX_WORD:
            yield word


def _whole_word(word: str) -> re.Pattern[str]:
    before = rf"(?<!{_INSIDE})" if re.match(_INSIDE, word[0]) else ""
    after = rf"(?!{_INSIDE})" if re.match(_INSIDE, word[-1]) else ""
    return re.compile(before + re.escape(word) + after)
