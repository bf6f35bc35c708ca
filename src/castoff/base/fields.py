"""Checked reading of TOML tables: every error names the file, the line, the table and the key."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from typing import Any

from castoff.errors import UsageError
from castoff.location import SourceRange

MAX_TEXT = 8 << 20
"""The largest recipe or lock file that is read, in bytes."""


class Table:
    """A TOML table whose keys are taken one by one; what is left over in the end is an error.

    Args:
        value: the table as tomllib gives it.
        name: its name in the file, "" for the top level.
        text: the file's text, to find lines in.
        file: the file's name, for messages.
    """

    __slots__ = ("_file", "_name", "_rest", "_text")

    def __init__(self, value: Mapping[str, Any], name: str, text: str, file: str) -> None:
        self._rest = dict(value)
        self._name = name
        self._text = text
        self._file = file

    @classmethod
    def parse(cls, data: bytes, file: str) -> Table:
        """Read a TOML document.

        Raises:
            UsageError: it is too large, or not TOML.
        """
        if len(data) > MAX_TEXT:
            raise UsageError(f"{file} has {len(data)} bytes, more than the {MAX_TEXT} that are read")
        try:
            text = data.decode("utf-8")
            value = tomllib.loads(text)
        except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
            line = re.search(r"at line (\d+)", str(error))
            location = SourceRange(file, int(line[1]), int(line[1])) if line else None
            raise UsageError(f"{file} is not TOML: {error}", location=location) from error
        return cls(value, "", text, file)

    def error(self, key: str, problem: str, *, hint: str | None = None) -> UsageError:
        """Return an error about one key, with the line where the key stands, as near as that can be told."""
        line = self._line(key)
        where = f"{self._file}:{line}" if line else self._file
        table = f" of [{self._name}]" if self._name else ""
        location = SourceRange(self._file, line, line) if line else None
        return UsageError(f"{where}: the key {key!r}{table} {problem}", hint=hint, location=location)

    def _line(self, key: str) -> int | None:
        form = re.compile(rf"""^\s*(?:\[+\s*(?:[^\]]*\.)?)?["']?{re.escape(key)}["']?\s*(?:[=.]|\]+)""", re.MULTILINE)
        start = self._text.find(f"[{self._name}]") if self._name else 0
        found = form.search(self._text, max(start, 0)) or form.search(self._text)
        return self._text.count("\n", 0, found.start()) + 1 + found[0].count("\n") if found else None

    def _take(self, key: str, kind: type, default: Any) -> Any:
        value = self._rest.pop(key, None)
        if value is None:
            if default is ...:
                raise self.error(key, "is missing")
            return default
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            names = {str: "a string", int: "an integer", bool: "true or false", list: "an array", dict: "a table"}
            raise self.error(key, f"is not {names.get(kind, kind.__name__)}")
        return value

    def text(self, key: str, default: Any = ...) -> str:
        """Take a string; without a default the key must be there."""
        value = self._take(key, str, default)
        if isinstance(value, str) and "\0" in value:
            raise self.error(key, "holds a NUL character")
        return str(value)

    def integer(self, key: str, default: Any = ..., *, least: int = 0, most: int = (1 << 63) - 1) -> int:
        """Take an integer in a range."""
        value = int(self._take(key, int, default))
        if not least <= value <= most:
            raise self.error(key, f"is {value}, outside {least} to {most}")
        return value

    def boolean(self, key: str, default: Any = ...) -> bool:
        """Take a boolean."""
        return bool(self._take(key, bool, default))

    def texts(self, key: str, default: Any = ...) -> tuple[str, ...]:
        """Take an array of strings."""
        value = self._take(key, list, default)
        if not all(isinstance(item, str) and "\0" not in item for item in value):
            raise self.error(key, "holds something that is not a string")
        return tuple(value)

    def optional_texts(self, key: str) -> tuple[str, ...] | None:
        """Take an array of strings; None where it is absent."""
        return self.texts(key) if key in self._rest else None

    def text_map(self, key: str) -> tuple[tuple[str, str], ...]:
        """Take a table of strings, in its order; empty where it is absent."""
        value = self._take(key, dict, {})
        for name, item in value.items():
            if not isinstance(item, str) or "\0" in item:
                raise self.error(name, "is not a string")
        return tuple(value.items())

    def table(self, key: str) -> Table:
        """Take a table; an empty one where it is absent."""
        name = f"{self._name}.{key}" if self._name else key
        return Table(self._take(key, dict, {}), name, self._text, self._file)

    def tables(self, key: str) -> tuple[Table, ...]:
        """Take an array of tables; empty where it is absent."""
        value = self._take(key, list, [])
        if not all(isinstance(item, dict) for item in value):
            raise self.error(key, "is not an array of tables")
        return tuple(Table(item, f"[{key}]", self._text, self._file) for item in value)

    def finish(self, known: str = "") -> None:
        """Check that no key is left.

        Raises:
            UsageError: a key is not known; it is named with its line.
        """
        for key in self._rest:
            raise self.error(key, "is not known", hint=f"known keys are {known}" if known else None)
