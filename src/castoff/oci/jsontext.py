"""JSON as castoff writes and reads it: one deterministic form out, checked field types in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from castoff.errors import InvalidImageError

MAX_DOCUMENT = 4 << 20
"""The largest manifest, index or config that is read, in bytes."""


def dump(value: object) -> bytes:
    """Return the one form in which castoff writes JSON: compact, UTF-8, keys in the order given."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def load_object(data: bytes, what: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        InvalidImageError: it is too large, not JSON, or not an object.
    """
    if len(data) > MAX_DOCUMENT:
        raise InvalidImageError(f"the {what} has {len(data)} bytes, more than the {MAX_DOCUMENT} that are read")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidImageError(f"the {what} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidImageError(f"the {what} is not a JSON object")
    return value


class Fields:
    """Reads the fields of a JSON object by type, and names the field that is wrong."""

    __slots__ = ("_object", "_what")

    def __init__(self, value: Mapping[str, Any], what: str) -> None:
        self._object = value
        self._what = what

    def _get(self, key: str, kind: type, required: bool) -> Any:
        value = self._object.get(key)
        if value is None:
            if required:
                raise InvalidImageError(f"the {self._what} lacks the field {key!r}")
            return None
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise InvalidImageError(f"the field {key!r} of the {self._what} is not of type {kind.__name__}")
        return value

    def text(self, key: str, *, required: bool = False) -> str:
        """Return a string field; "" where it is absent."""
        value = self._get(key, str, required)
        return "" if value is None else str(value)

    def integer(self, key: str, *, required: bool = False) -> int:
        """Return an integer field; 0 where it is absent."""
        value = self._get(key, int, required)
        return 0 if value is None else int(value)

    def boolean(self, key: str) -> bool:
        """Return a boolean field; False where it is absent."""
        return bool(self._get(key, bool, False))

    def object_(self, key: str, *, required: bool = False) -> dict[str, Any] | None:
        """Return an object field; None where it is absent."""
        value = self._get(key, dict, required)
        return None if value is None else dict(value)

    def array(self, key: str, *, required: bool = False) -> list[Any] | None:
        """Return an array field; None where it is absent."""
        value = self._get(key, list, required)
        return None if value is None else list(value)

    def texts(self, key: str, *, required: bool = False) -> tuple[str, ...] | None:
        """Return an array of strings; None where it is absent."""
        value = self._get(key, list, required)
        if value is None:
            return None
        if not all(isinstance(item, str) for item in value):
            raise InvalidImageError(f"the field {key!r} of the {self._what} holds something that is not a string")
        return tuple(value)

    def text_map(self, key: str) -> dict[str, str] | None:
        """Return an object whose values are strings; None where it is absent."""
        value = self._get(key, dict, False)
        if value is None:
            return None
        if not all(isinstance(item, str) for item in value.values()):
            raise InvalidImageError(f"the field {key!r} of the {self._what} has a value that is not a string")
        return dict(value)

    def names(self, key: str) -> tuple[str, ...] | None:
        """Return the sorted keys of an object whose values are objects (Go's set of strings); None where absent."""
        value = self._get(key, dict, False)
        if value is None:
            return None
        if not all(isinstance(item, dict) for item in value.values()):
            raise InvalidImageError(f"the field {key!r} of the {self._what} has a value that is not an object")
        return tuple(sorted(value))
