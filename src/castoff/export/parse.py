"""The value of ``--output``, in the form that docker buildx reads."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import Literal

from castoff.errors import InvalidReferenceError, UsageError
from castoff.layer.compression import Compression
from castoff.oci.platform import Platform

OutputType = Literal["docker", "image", "local", "oci", "registry", "tar"]
AnnotationLevel = Literal["manifest", "index", "manifest-descriptor", "index-descriptor"]

TYPES: tuple[OutputType, ...] = ("docker", "image", "local", "oci", "registry", "tar")
_IMAGES = frozenset({"docker", "image", "oci", "registry"})
_LEVELS: tuple[AnnotationLevel, ...] = ("manifest", "index", "manifest-descriptor", "index-descriptor")
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_IMAGE_KEYS = frozenset({"name", "push", "compression", "compression-level", "force-compression", "oci-mediatypes"})
_KEYS = {
    "oci": _IMAGE_KEYS | {"tar"},
    "docker": _IMAGE_KEYS | {"tar"},
    "image": _IMAGE_KEYS,
    "registry": _IMAGE_KEYS,
    "local": frozenset[str](),
    "tar": frozenset[str](),
}


@dataclass(frozen=True, slots=True)
class Annotation:
    """An annotation, and the document that gets it; `platform` limits it to the images for one, None is all."""

    key: str
    value: str
    level: AnnotationLevel = "manifest"
    platform: Platform | None = None


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """One ``--output``.

    Attributes:
        type: the exporter.
        dest: a path, ``-`` for standard output; "" where the type needs none (docker, image and registry: the store).
        names: references in the form given, besides those of ``--tag``.
        push: whether the image is also pushed.
        compression: how layers are compressed; None for the default.
        force_compression: whether layers that are there already are compressed anew.
        tar: whether an image layout is an archive; off, it is a folder.
        annotations: annotations of the image.
    """

    type: OutputType
    dest: str = ""
    names: tuple[str, ...] = ()
    push: bool = False
    compression: Compression | None = None
    force_compression: bool = False
    tar: bool = True
    annotations: tuple[Annotation, ...] = ()


def parse_output(text: str) -> OutputSpec:
    """Read one ``--output``: comma-separated ``key=value`` fields, a path (a local folder), or ``-`` (a tar stream).

    Fields that hold commas or quotes are quoted as in CSV.

    Raises:
        UsageError: naming the field that is wrong, and what there is to choose from.
    """
    fields = _fields(text)
    if len(fields) == 1 and not text.startswith("type=") and fields[0] == text:
        if not text:
            raise UsageError("an empty --output", hint="such as --output type=oci,dest=image.tar, or --output FOLDER")
        return OutputSpec("tar", "-") if text == "-" else OutputSpec("local", text)
    values: dict[str, str] = {}
    annotations: list[Annotation] = []
    for field in fields:
        key, equals, value = field.partition("=")
        key = key.strip()
        if not equals:
            raise UsageError(f"the field {field!r} of --output {text!r} is not of the form key=value")
        if key.lower().startswith("annotation"):
            annotations.append(_annotation(key, value, text))
        else:
            values[key.lower()] = value
    kind = values.pop("type", "")
    if kind not in TYPES:
        wrong = f"the unknown type {kind!r}" if kind else "no type"
        raise UsageError(f"--output {text!r} has {wrong}", hint=f"types are {', '.join(TYPES)}")
    return _checked(kind, values, tuple(annotations), text)


def _fields(text: str) -> list[str]:
    if "\n" in text or "\r" in text:
        raise UsageError("an --output must be one line")
    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise UsageError(f"--output {text!r} has a quote that does not fit: {error}") from error
    return rows[0] if rows and rows[0] else [""]


def _annotation(key: str, value: str, text: str) -> Annotation:
    """Read ``annotation.KEY`` or ``annotation-LEVEL.KEY``; a ``[platform]`` after the level is not supported."""
    head, dot, name = key.partition(".")
    level = head.lower().removeprefix("annotation").removeprefix("-") or "manifest"
    if not dot or not name or level not in _LEVELS:
        raise UsageError(
            f"--output {text!r} has the field {key!r}, which is no annotation",
            hint=f"write annotation.KEY=VALUE, or annotation-LEVEL.KEY=VALUE with a level of {', '.join(_LEVELS)}",
        )
    return Annotation(name, value, level)


def parse_annotations(text: str) -> tuple[Annotation, ...]:
    """Read one ``--annotation``: ``KEY=VALUE``, or ``LEVEL,LEVEL[PLATFORM]:KEY=VALUE``, one for each level.

    Raises:
        UsageError: it is not well formed.
    """
    names, colon, pair = text.partition(":")
    if not colon or "=" in names or names.partition(",")[0].partition("[")[0] not in _LEVELS:
        names, pair = "manifest", text
    key, equals, value = pair.partition("=")
    if not equals or not key or key != key.strip():
        raise UsageError(
            f"--annotation wants KEY=VALUE, not {text!r}",
            hint=f"or LEVEL:KEY=VALUE, where the levels are {', '.join(_LEVELS)}",
        )
    found = []
    for name in names.split(","):
        level, bracket, platform = name.partition("[")
        if level not in _LEVELS or (bracket and not platform.endswith("]")):
            raise UsageError(
                f"--annotation {text!r} has the unknown level {name!r}",
                hint=f"there are {', '.join(_LEVELS)}, each with a [PLATFORM] if it is for one only",
            )
        try:
            found.append(Annotation(key, value, level, Platform.parse(platform[:-1]) if bracket else None))
        except InvalidReferenceError as error:
            raise UsageError(f"--annotation {text!r}: {error.message}", hint=error.hint) from error
    return tuple(found)


def _checked(kind: OutputType, values: dict[str, str], annotations: tuple[Annotation, ...], text: str) -> OutputSpec:
    dest = values.pop("dest", "")
    for key in values:
        if key not in _KEYS[kind]:
            allowed = ", ".join(sorted(_KEYS[kind] | ({"dest"} if kind not in ("image", "registry") else set())))
            raise UsageError(f"--output of type {kind} has no field {key!r}", hint=f"its fields are {allowed}")
    if annotations and kind not in _IMAGES:
        raise UsageError(f"--output of type {kind} takes no annotations: it writes files, not an image")
    if dest and kind in ("image", "registry"):
        raise UsageError(f"--output of type {kind} takes no dest: it goes to the store or a registry")
    tar = _boolean(values, "tar", True, text)
    if kind == "local" and dest in ("", "-"):
        raise UsageError("--output of type local needs the path of a folder", hint="such as type=local,dest=out")
    if not tar and dest in ("", "-"):
        raise UsageError(f"--output {text!r} has tar=false and names no folder", hint="add dest=FOLDER")
    if not tar and kind == "docker":
        raise UsageError("--output of type docker can't be a folder", hint="write type=oci,tar=false,dest=FOLDER")
    if not _boolean(values, "oci-mediatypes", True, text):
        raise UsageError("castoff writes OCI media types only", hint="leave out oci-mediatypes=false")
    if not dest and kind in ("oci", "tar"):
        dest = "-"
    return OutputSpec(
        kind,
        dest,
        tuple(name.strip() for name in values.get("name", "").split(",") if name.strip()),
        _boolean(values, "push", kind == "registry", text),
        _compression(values),
        _boolean(values, "force-compression", False, text),
        tar,
        annotations,
    )


def _compression(values: dict[str, str]) -> Compression | None:
    name, level = values.get("compression"), values.get("compression-level")
    if name is None and level is None:
        return None
    return Compression.parse(name or "gzip", level)


def _boolean(values: dict[str, str], key: str, default: bool, text: str) -> bool:
    value = values.get(key)
    if value is None:
        return default
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise UsageError(f"the field {key}={value} of --output {text!r} is neither true nor false")
