"""Cache keys: hashes over everything that decides a step's result, and nothing else."""

from __future__ import annotations

import hashlib

_TAGS = {str: b"s", bytes: b"b", int: b"i", bool: b"?", type(None): b"n", tuple: b"("}

CacheKey = str
"""64 lower-case hexadecimal digits."""


def _encode(value: object, out: list[bytes]) -> None:
    tag = _TAGS.get(type(value))
    if tag is None:
        raise TypeError(f"a cache key can't hold a {type(value).__name__}")
    if isinstance(value, tuple):
        out.append(b"(%d:" % len(value))
        for item in value:
            _encode(item, out)
        return
    if isinstance(value, str):
        data = value.encode("utf-8", "surrogateescape")
    elif isinstance(value, bytes):
        data = value
    else:
        data = b"" if value is None else b"%d" % int(value)  # type: ignore[call-overload]
    out.append(tag + b"%d:" % len(data))
    out.append(data)


def cache_key(kind: str, *parts: object) -> CacheKey:
    """Return the key of a step of some `kind` from its parts.

    Parts are str, bytes, int, bool, None, and tuples of these; the encoding tells them apart and is unambiguous.
    """
    out: list[bytes] = []
    _encode((kind, *parts), out)
    return hashlib.sha256(b"".join(out)).hexdigest()
