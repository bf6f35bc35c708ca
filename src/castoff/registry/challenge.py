"""The challenges of a WWW-Authenticate header.

References: RFC 9110, section 11.6.1; OCI distribution specification; Docker's token authentication.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*(?=\s*(?:,|$))")
_MAX_HEADER = 16 << 10


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge.

    Attributes:
        scheme: ``basic``, ``bearer`` or another, in lower case.
        parameters: names in lower case, and values.
    """

    scheme: str
    parameters: tuple[tuple[str, str], ...] = ()

    def get(self, name: str) -> str:
        """Return the value of a parameter; "" where there is none."""
        return dict(self.parameters).get(name, "")


def parse_challenges(header: str) -> tuple[Challenge, ...]:
    """Return the challenges of a header, as far as it can be read; what follows something malformed is left out."""
    text = header[:_MAX_HEADER]
    found: list[Challenge] = []
    position = _skip(text, 0)
    while match := _TOKEN.match(text, position):
        scheme, position = match[0].lower(), match.end()
        parameters: dict[str, str] = {}
        start = _spaces(text, position)
        if start > position and (lone := _TOKEN68.match(text, start)) and not _parameter(text, start):
            position = lone.end()
        else:
            position = start
            while item := _parameter(text, position):
                name, value, position = item
                parameters.setdefault(name, value)
                following = _skip(text, position)
                if following == position or not _parameter(text, following):
                    break
                position = following
        found.append(Challenge(scheme, tuple(parameters.items())))
        following = _skip(text, position)
        if following == position:
            break
        position = following
    return tuple(found)


def _spaces(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t":
        position += 1
    return position


def _skip(text: str, position: int) -> int:
    """Return the place after commas and spaces."""
    while position < len(text) and text[position] in " \t,":
        position += 1
    return position


def _parameter(text: str, position: int) -> tuple[str, str, int] | None:
    """Return name, value and end of a parameter that begins at a position; None where none does."""
    name = _TOKEN.match(text, position)
    if name is None:
        return None
    place = _spaces(text, name.end())
    if text[place : place + 1] != "=":
        return None
    place = _spaces(text, place + 1)
    if quoted := _QUOTED.match(text, place):
        return name[0].lower(), re.sub(r"\\(.)", r"\1", quoted[1]), quoted.end()
    if plain := _TOKEN.match(text, place):
        return name[0].lower(), plain[0], plain.end()
    return None
