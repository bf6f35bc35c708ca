"""Text as Go sees it: its white space, quoted strings and durations, which the dialect takes over."""

from __future__ import annotations

import re

from castoff.errors import ParseError

SPACE = (
    " \t\n\v\f\r\x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
"""Every character that counts as white space; Python's own set holds four control characters more."""

_SPACES = frozenset(SPACE)
_SURROGATES = re.compile("[\ud800-\udfff]")
_ESCAPES = {
    "\a": r"\a",
    "\b": r"\b",
    "\f": r"\f",
    "\n": r"\n",
    "\r": r"\r",
    "\t": r"\t",
    "\v": r"\v",
    "\\": r"\\",
    '"': r"\"",
}
_PLAIN = re.compile(r"[ !#-\[\]-~]*\Z")
_UNITS = {
    "ns": 1,
    "us": 1_000,
    "\u00b5s": 1_000,
    "\u03bcs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_DURATION_PART = re.compile(r"([0-9]*)(\.[0-9]*)?([^0-9.]+)")
_MAX_INT64 = (1 << 63) - 1


def is_space(character: str) -> bool:
    """Say whether one character is white space."""
    return character in _SPACES


def replace_invalid(text: str) -> str:
    """Return `text` with every byte that was not UTF-8 (kept as a lone surrogate) as U+FFFD."""
    return text if text.isascii() else _SURROGATES.sub("\ufffd", text)


def quote(text: str) -> str:
    """Return `text` in double quotes, escaped the way the reference's dumps and history are."""
    if _PLAIN.match(text):
        return f'"{text}"'
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if character.isprintable():
        return character
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    return f"\\U{code:08x}" if code > 0xFFFF else f"\\u{code:04x}"


def quote_all(texts: tuple[str, ...] | list[str]) -> str:
    """Return a list of strings as ``["a" "b"]``."""
    return "[" + " ".join(map(quote, texts)) + "]"


def parse_duration(text: str) -> int:
    """Read a duration such as ``1h30m`` or ``1.5s``.

    Returns:
        Nanoseconds.

    Raises:
        ParseError: it is not a duration, or does not fit in 64 bits.
    """
    rest = text[1:] if text[:1] in ("+", "-") else text
    if rest == "0":
        return 0
    total = 0
    position = 0
    while position < len(rest):
        match = _DURATION_PART.match(rest, position)
        if not match or not (match[1] or (match[2] or ".")[1:]):
            break
        unit = _UNITS.get(match[3])
        if unit is None:
            raise ParseError(f"unknown unit {match[3]!r} in duration {text!r}", hint="units are ns, us, ms, s, m and h")
        digits = (match[2] or ".")[1:][:18]
        total += int(match[1] or "0") * unit + (int(digits) * unit // 10 ** len(digits) if digits else 0)
        position = match.end()
    if position < len(rest) or not rest:
        raise ParseError(f"invalid duration {text!r}", hint="a duration looks like 30s, 1m30s or 500ms")
    if total > _MAX_INT64:
        raise ParseError(f"invalid duration {text!r}: it is longer than 292 years")
    return -total if text[0] == "-" else total


def format_duration(nanoseconds: int) -> str:
    """Return a duration in its shortest usual form (``1m30s``, ``500ms``, ``0s``)."""
    sign, rest = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    if rest == 0:
        return "0s"
    if rest < 1_000_000_000:
        for unit, size in (("ms", 1_000_000), ("µs", 1_000), ("ns", 1)):
            if rest >= size:
                return sign + _decimal(rest, size) + unit
    minutes, rest = divmod(rest, 60_000_000_000)
    hours, minutes = divmod(minutes, 60)
    text = _decimal(rest, 1_000_000_000) + "s"
    if hours:
        return f"{sign}{hours}h{minutes}m{text}"
    return f"{sign}{minutes}m{text}" if minutes else sign + text


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    if not rest:
        return str(whole)
    return f"{whole}.{rest:0{len(str(unit)) - 1}d}".rstrip("0")
