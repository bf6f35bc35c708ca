"""Parser directives: ``# syntax=``, ``# escape=`` and ``# check=`` at the top of a Dockerfile."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from castoff.dockerfile.text import SPACE
from castoff.errors import ParseError

KNOWN = frozenset({"syntax", "escape", "check"})

_BLANKS = "\t\n\f\r "
_DIRECTIVE = re.compile(r"([a-zA-Z][a-zA-Z0-9]*)[\t\n\f\r ]*=(.+)\Z")


@dataclass(frozen=True, slots=True)
class Directive:
    """A directive: its name in lower case, its value, its line from 1."""

    name: str
    value: str
    line: int


class DirectiveReader:
    """Reads directives line by line until the first line that is none."""

    def __init__(self, comment: str = "#", line: int = 0) -> None:
        self._comment = comment
        self._line = line
        self._seen: set[str] = set()
        self.done = False

    def read(self, line: str) -> Directive | None:
        """Return the directive on `line`; None where it is none, and for every line after that.

        Raises:
            ParseError: a directive is given twice.
        """
        self._line += 1
        if self.done:
            return None
        match = None
        if line.startswith(self._comment):
            match = _DIRECTIVE.match(line[len(self._comment) :].lstrip(SPACE))
        name = match[1].lower() if match else ""
        if match is None or name not in KNOWN:
            self.done = True
            return None
        if name in self._seen:
            raise ParseError(f"only one {name} parser directive can be used")
        self._seen.add(name)
        written = match[2]
        return Directive(name, written.strip(_BLANKS) or written[-1], self._line)


def read_all(text: str, comment: str = "#", line: int = 0) -> list[Directive]:
    """Return the directives at the top of `text`, up to the first line that is none or repeats one."""
    reader = DirectiveReader(comment, line)
    found = []
    for row in text.split("\n"):
        try:
            directive = reader.read(row.removesuffix("\r"))
        except ParseError:
            break
        if reader.done:
            break
        if directive:
            found.append(directive)
    return found


def find_directive(data: bytes, name: str) -> Directive | None:
    """Return a directive of a Dockerfile; a byte-order mark and a ``#!`` line before it are skipped."""
    text, line = _body(data)
    return next((directive for directive in read_all(text, line=line) if directive.name == name), None)


def detect_syntax(data: bytes) -> Directive | None:
    """Return the syntax directive of a source in whichever form: ``# syntax=``, ``// syntax=`` or a JSON member."""
    text, line = _body(data)
    for comment in ("#", "//"):
        for directive in read_all(text, comment, line):
            if directive.name == "syntax":
                return directive
    if not text.lstrip().startswith("{"):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    syntax = value.get("syntax") if isinstance(value, dict) else None
    return Directive("syntax", syntax, line) if isinstance(syntax, str) else None


def _body(data: bytes) -> tuple[str, int]:
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    if text.startswith("#!"):
        return text.partition("\n")[2], 1
    return text, 0
