"""The values of ``--cache-to`` and ``--cache-from``, in the form that docker buildx reads."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from castoff.errors import UsageError
from castoff.layer.compression import Compression
from castoff.oci.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Callable

Kind = Literal["inline", "local", "registry"]
Mode = Literal["min", "max"]

ALL = ("all",)
"""As the mounts of a target: every cache mount that the build's steps have."""
DEFAULT_TAG = "latest"

_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_MAKING = frozenset({"mode", "ignore-error", "compression", "compression-level", "mounts", "mounts-limit"})
_TO: dict[Kind, frozenset[str]] = {
    "local": _MAKING | {"dest", "tag"},
    "registry": _MAKING | {"ref"},
    "inline": frozenset(),
}
_FROM: dict[Kind, frozenset[str]] = {
    "local": frozenset({"src", "tag", "digest", "mounts"}),
    "registry": frozenset({"ref", "mounts"}),
}
_FIXED = {"oci-mediatypes": True, "image-manifest": True}
"""Fields of BuildKit's that castoff can't have otherwise."""


@dataclass(frozen=True, slots=True)
class CacheTarget:
    """One ``--cache-to``.

    Attributes:
        kind: where the cache goes: a folder, a registry, or into the image itself.
        place: the folder or the reference; "" for ``inline``.
        tag: the name of the cache in the folder.
        mode: ``min`` for the layers of the image, ``max`` for those of all stages.
        compression: of layers that only the cache has, and of mounts; None for the build's.
        ignore_error: whether a cache that can't be written is a warning.
        mounts: ids of the cache mounts that travel along; `ALL` for all.
        mounts_limit: bytes that they may have together, compressed; None for any.
    """

    kind: Kind
    place: str = ""
    tag: str = DEFAULT_TAG
    mode: Mode = "min"
    compression: Compression | None = None
    ignore_error: bool = False
    mounts: tuple[str, ...] = ()
    mounts_limit: int | None = None

    def __str__(self) -> str:
        """Return what messages call it."""
        return "the image" if self.kind == "inline" else self.place


@dataclass(frozen=True, slots=True)
class CacheSource:
    """One ``--cache-from``.

    Attributes:
        kind: a folder or a registry; an image that has its cache in it is of a registry too.
        place: the folder or the reference.
        tag: the name of the cache in the folder.
        digest: of its manifest in the folder; "" to go by the tag.
        mounts: whether cache mounts that this machine lacks are taken over.
    """

    kind: Kind
    place: str
    tag: str = DEFAULT_TAG
    digest: str = ""
    mounts: bool = True

    def __str__(self) -> str:
        """Return what messages call it."""
        return self.place


def parse_cache_to(text: str, byte_size: Callable[[str, str], int]) -> CacheTarget:
    """Read one ``--cache-to``: comma-separated ``key=value`` fields, or a reference.

    Args:
        text: the value.
        byte_size: reads a size such as ``2g``; its second argument is the option, for messages.

    Raises:
        UsageError: naming the field that is wrong, and what there is to choose from.
        InvalidReferenceError: the reference is not well formed.
    """
    option = "--cache-to"
    values = _fields(text, option, _TO)
    kind = _kind(values, option, _TO, text)
    place = _place(values, kind, option, "dest", text)
    if values.get("mode", "min") not in ("min", "max"):
        raise UsageError(f"{option} has the unknown mode {values['mode']!r}", hint="there are min and max")
    mode: Mode = "max" if values.get("mode") == "max" else "min"
    compression = None
    if "compression" in values or "compression-level" in values:
        compression = Compression.parse(values.get("compression", "gzip"), values.get("compression-level"))
    limit = values.get("mounts-limit", "")
    return CacheTarget(
        kind,
        place,
        values.get("tag", DEFAULT_TAG),
        mode,
        compression,
        _boolean(values, "ignore-error", False, option),
        _mounts(values.get("mounts", "")),
        byte_size(limit, "mounts-limit") if limit else None,
    )


def parse_cache_from(text: str) -> CacheSource:
    """Read one ``--cache-from``: comma-separated ``key=value`` fields, or a reference.

    Raises:
        UsageError: naming the field that is wrong, and what there is to choose from.
        InvalidReferenceError: the reference is not well formed.
    """
    option = "--cache-from"
    values = _fields(text, option, _FROM)
    kind = _kind(values, option, _FROM, text)
    place = _place(values, kind, option, "src", text)
    return CacheSource(
        kind,
        place,
        values.get("tag", DEFAULT_TAG),
        values.get("digest", ""),
        _boolean(values, "mounts", True, option),
    )


def _mounts(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in text.split(";") if name))


def _fields(text: str, option: str, known: dict[Kind, frozenset[str]]) -> dict[str, str]:
    """Return the fields; ``mounts=a,b`` takes in the words that follow it, joined by semicolons."""
    if "\n" in text or "\r" in text:
        raise UsageError(f"{option} must be one line")
    try:
        row = next(csv.reader([text], strict=True), [])
    except csv.Error as error:
        raise UsageError(f"{option} {text!r} has a quote that does not fit: {error}") from error
    if len(row) == 1 and "=" not in row[0] and row[0]:
        return {"type": "registry", "ref": row[0]}
    values: dict[str, str] = {}
    last = ""
    for field in row:
        key, equals, value = field.partition("=")
        key = key.strip().lower()
        if not equals and last == "mounts" and any("mounts-limit" in keys for keys in known.values()):
            values["mounts"] += f";{field.strip()}"
            continue
        if not equals:
            raise UsageError(f"the field {field!r} of {option} {text!r} is not of the form key=value")
        values[key] = value.strip()
        last = key
    return values


def _kind(values: dict[str, str], option: str, known: dict[Kind, frozenset[str]], text: str) -> Kind:
    name = values.pop("type", "")
    for kind, keys in known.items():
        if kind != name:
            continue
        for key, wanted in _FIXED.items():
            if key in values and option == "--cache-to" and _boolean(values, key, wanted, option) != wanted:
                raise UsageError(f"{option} can't have {key}={values[key]}", hint=f"leave out {key}")
            values.pop(key, None)
        for key in values:
            if key not in keys:
                hint = f"its fields are {', '.join(sorted(keys))}" if keys else "it has no fields"
                raise UsageError(f"{option} of type {kind} has no field {key!r}", hint=hint)
        return kind
    wrong = f"the unknown type {name!r}" if name else "no type"
    raise UsageError(f"{option} {text!r} has {wrong}", hint=f"types are {', '.join(known)}")


def _place(values: dict[str, str], kind: Kind, option: str, folder: str, text: str) -> str:
    if kind == "inline":
        return ""
    key = "ref" if kind == "registry" else folder
    place = values.get(key, "")
    if not place:
        raise UsageError(f"{option} {text!r} lacks {key}=", hint=f"such as type={kind},{key}=…")
    if kind == "registry":
        reference = Reference.parse(place)
        if option == "--cache-to" and reference.digest is not None:
            raise UsageError(f"{option}: a new cache can't be named by a digest", hint="give it a tag")
    return place


def _boolean(values: dict[str, str], key: str, default: bool, option: str) -> bool:
    value = values.get(key)
    if value is None:
        return default
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise UsageError(f"the field {key}={value} of {option} is neither true nor false")
