"""One logical line of a Dockerfile: keyword, flags, and the arguments in the form that the keyword wants."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from castoff.dockerfile.text import SPACE, is_space, quote, replace_invalid
from castoff.errors import ParseError

BLANKS = re.compile(r"[\t\v\f\r ]+")
"""What separates arguments; other white space does not."""

_MAX_FLOAT = 1.7976931348623157e308


@dataclass(frozen=True, slots=True)
class SplitLine:
    """A line taken apart: `flags` are the leading ``--words``, `rest` is what follows them."""

    keyword: str
    flags: tuple[str, ...]
    rest: str


def split_line(line: str) -> SplitLine:
    """Split a line into keyword and rest, without reading flags."""
    keyword, *rest = BLANKS.split(line.strip(SPACE), maxsplit=1)
    return SplitLine(keyword, (), rest[0] if rest else "")


def split_command(line: str, escape: str) -> SplitLine:
    """Split a line into keyword, flags and rest."""
    split = split_line(line)
    if "--" not in split.rest:
        return SplitLine(split.keyword, (), split.rest.strip(SPACE))
    rest, flags = _take_flags(split.rest, escape)
    return SplitLine(split.keyword, flags, rest.strip(SPACE))


def _take_flags(line: str, escape: str) -> tuple[str, tuple[str, ...]]:
    """Take the leading words that begin with ``--``; quotes and escapes in them are processed.

    The reference reads flags byte by byte as if they were Latin-1, and so does this.
    """
    if not line.isascii():
        data = line.encode("utf-8", "surrogateescape").decode("latin-1")
        rest, flags = _take_ascii_flags(data, escape)
        return rest.encode("latin-1").decode("utf-8", "surrogateescape"), flags
    return _take_ascii_flags(line, escape)


def _take_ascii_flags(line: str, escape: str) -> tuple[str, tuple[str, ...]]:
    flags: list[str] = []
    position = 0
    end = len(line)
    while True:
        while position < end and is_space(line[position]):
            position += 1
        if position == end:
            return "", tuple(flags)
        if not line.startswith("--", position):
            return line[position:], tuple(flags)
        word, blank_allowed, position = _flag_word(line, position, escape)
        if word == "--":
            return line[position:], tuple(flags)
        if word or blank_allowed:
            flags.append(word)


def _flag_word(line: str, position: int, escape: str) -> tuple[str, bool, int]:
    """Read one word from `position`; return it, whether it had quotes, and where it ends."""
    word: list[str] = []
    quote_mark = ""
    quoted = False
    while position < len(line):
        character = line[position]
        if not quote_mark and is_space(character):
            break
        if character == quote_mark:
            quote_mark = ""
        elif not quote_mark and character in "'\"":
            quote_mark = character
            quoted = True
        elif character == escape:
            position += 1
            if position == len(line):
                break
            word.append(line[position])
        else:
            word.append(character)
        position += 1
    return "".join(word), quoted, position


def split_words(text: str, escape: str) -> list[str]:
    """Split at white space, with quotes and escapes kept in the words."""
    words: list[str] = []
    word: list[str] = []
    quote_mark = ""
    started = False
    quoted = False
    position = 0
    end = len(text)
    while position < end:
        character = text[position]
        position += 1
        if not quote_mark and is_space(character):
            if started and (word or quoted):
                words.append("".join(word))
            word, started, quoted = [], False, False
            continue
        started = True
        if quote_mark:
            if character == quote_mark:
                quote_mark = ""
            escapes = character == escape and quote_mark != "'"
        else:
            if character in "'\"":
                quote_mark = character
                quoted = True
            escapes = character == escape
        if escapes:
            if position == end:
                quote_mark = ""
                break
            word.append(character)
            character = text[position]
            position += 1
        word.append(character)
    if started and (word or quoted):
        words.append("".join(word))
    return [replace_invalid(item) for item in words]


def split_blanks(text: str) -> list[str]:
    """Split at blanks, quotes meaning nothing."""
    return BLANKS.split(text) if text else []


def name_values(text: str, keyword: str, escape: str) -> list[str]:
    """Read ``name=value …`` or the old ``name value`` of ENV and LABEL.

    Returns:
        Triples in one list: name, value, and ``=`` or, in the old form, "".

    Raises:
        ParseError: a value is missing.
    """
    words = split_words(text, escape)
    if not words:
        return []
    if "=" not in words[0]:
        parts = BLANKS.split(text, maxsplit=1)
        if len(parts) < 2:
            raise ParseError(
                f"{keyword} must have two arguments", hint=f"write {keyword} {parts[0]}=value, with no space around ="
            )
        return [parts[0], parts[1], ""]
    triples: list[str] = []
    for word in words:
        name, separator, value = word.partition("=")
        if not separator:
            raise ParseError(
                f"Syntax error - can't find = in {quote(word)}. Must be of the form: name=value",
                hint="a value with spaces needs quotes",
            )
        triples += (name, value, "=")
    return triples


def json_strings(text: str) -> list[str] | None:
    """Read a JSON array of strings; None where `text` is not a JSON array, which is then taken as plain text.

    Raises:
        ParseError: it is a JSON array that holds something else than strings.
    """
    text = text.lstrip(SPACE)
    if not text.startswith("["):
        return None
    try:
        value = json.loads(text, parse_constant=_refuse, parse_float=_number, parse_int=_number)
    except RecursionError:
        value = [None]
    except ValueError:
        return None
    if not all(isinstance(item, str) for item in value):
        raise ParseError(
            "when using JSON array syntax, arrays must be comprised of strings only",
            hint="put each argument into double quotes",
        )
    return [replace_invalid(item) for item in value]


def _refuse(text: str) -> Any:
    raise ValueError(text)


def _number(text: str) -> float:
    value = float(text)
    if abs(value) > _MAX_FLOAT:
        raise ValueError(text)
    return value
