"""The value of ``RUN --mount``: a line of comma-separated fields."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast

from castoff.dockerfile.suggest import hint
from castoff.dockerfile.text import quote
from castoff.errors import ParseError

MountType = Literal["bind", "cache", "tmpfs", "secret", "ssh"]

_TYPES = ("bind", "cache", "tmpfs", "secret", "ssh")
_SHARING = ("shared", "private", "locked")
_KEYS = (
    "type from source target readonly id sharing required size mode uid gid src dst destination ro rw readwrite env"
).split()
_ALIASES = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly", "rw": "readwrite"}
_TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))
_SIZE = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+) ?(?:b|([kmgtp])i?b?)?\Z", re.IGNORECASE)
_MAX_INT64 = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class MountFlag:
    """A ``--mount``, variables expanded. `read_only` has the default of its type where it is not said."""

    type: MountType = "bind"
    from_: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = True
    size: int = 0
    id: str = ""
    sharing: str = ""
    required: bool = False
    env: str | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None


def mount_fields(text: str) -> list[str]:
    """Split the value of a ``--mount`` into fields, as a line of CSV.

    Raises:
        ParseError: a quote is out of place, or there is no field.
    """
    text = text.removesuffix("\n").removesuffix("\r")
    fields: list[str] = []
    position = 0
    while True:
        if text.startswith('"', position):
            field, position = _quoted_field(text, position + 1)
        else:
            end = text.find(",", position)
            end = len(text) if end < 0 else end
            field, position = text[position:end], end
            if '"' in field:
                raise ParseError(f"failed to parse csv mounts: bare {quote(chr(34))} in non-quoted field")
        fields.append(field)
        if position == len(text):
            break
        position += 1
    if fields == [""]:
        raise ParseError("failed to parse csv mounts: EOF", hint="a mount looks like type=cache,target=/root/.cache")
    return fields


def _quoted_field(text: str, position: int) -> tuple[str, int]:
    parts: list[str] = []
    while True:
        end = text.find('"', position)
        if end < 0:
            raise ParseError('failed to parse csv mounts: extraneous or missing " in quoted-field')
        parts.append(text[position:end])
        position = end + 1
        if text.startswith('"', position):
            parts.append('"')
            position += 1
        elif position == len(text) or text[position] == ",":
            return "".join(parts), position
        else:
            raise ParseError('failed to parse csv mounts: extraneous or missing " in quoted-field')


def mount_from(text: str) -> str:
    """Return the ``from=`` of a mount as written, before variables are expanded; "" where there is none.

    Raises:
        ParseError: the value is no line of CSV, or ``from=`` has a variable.
    """
    found = ""
    for field in mount_fields(text):
        key, separator, value = field.partition("=")
        if separator and key.lower() == "from":
            dollar = value.find("$")
            if dollar not in (-1, len(value) - 1):
                raise ParseError(f"'{key.lower()}' doesn't support variable expansion, define alias stage instead")
            found = value
    return found


def parse_mount(text: str, expand: Callable[[str], str]) -> MountFlag:
    """Read a mount, with `expand` applied to every value.

    Raises:
        ParseError: a key, a value or the combination of them is not allowed.
        ExpansionError: `expand` refused a value.
    """
    reader = _MountReader()
    for field in mount_fields(text):
        key, separator, value = field.partition("=")
        if separator:
            reader.set(key.lower(), expand(value), field)
        else:
            reader.switch(key.lower(), field)
    return reader.finish()


class _MountReader:
    def __init__(self) -> None:
        self.type = "bind"
        self.text: dict[str, str] = {}
        self.number: dict[str, int] = {}
        self.read_only: bool | None = None
        self.required = False

    def switch(self, key: str, field: str) -> None:
        """Take a key without a value."""
        name = _ALIASES.get(key, key)
        if name in ("readonly", "readwrite"):
            self.read_only = name == "readonly"
        elif name == "required":
            self.need(key, "secret", "ssh")
            self.required = True
        else:
            raise ParseError(
                f"invalid field '{field}' must be a key=value pair",
                hint=hint(key, _KEYS) or "options are split by commas",
            )

    def need(self, key: str, *types: str) -> None:
        if self.type not in types:
            raise ParseError(
                f"unexpected key '{key}' for mount type '{self.type}'",
                hint=f"it is an option of type={' and type='.join(types)}; write type= first",
            )

    def set(self, key: str, value: str, field: str) -> None:
        """Take a key and its value."""
        name = _ALIASES.get(key, key)
        if name == "type":
            self.type = _choice(value, _TYPES, "unsupported mount type")
        elif name == "sharing":
            self.text["sharing"] = _choice(value, _SHARING, "unsupported sharing value")
        elif name in ("from", "source", "target", "id", "env"):
            self.text[name] = value
        elif name in ("readonly", "readwrite"):
            self.read_only = _boolean(key, value) == (name == "readonly")
        elif name == "required":
            self.need(key, "secret", "ssh")
            self.required = _boolean(key, value)
        elif name == "size":
            self.need(key, "tmpfs")
            self.number["size"] = _size(key, value)
        elif name in ("mode", "uid", "gid"):
            self.number[name] = _unsigned(name, value)
        else:
            raise ParseError(f"unexpected key '{key}' in '{field}'", hint=hint(key, _KEYS))

    def finish(self) -> MountFlag:
        self.check()
        read_only = self.read_only
        if read_only is None:
            read_only = self.type not in ("cache", "tmpfs")
        text, number = self.text.get, self.number.get
        return MountFlag(
            type=cast("MountType", self.type),
            from_=text("from", ""),
            source=text("source", ""),
            target=text("target", ""),
            read_only=read_only,
            size=number("size", 0),
            id=text("id", ""),
            sharing=text("sharing", ""),
            required=self.required,
            env=self.text.get("env"),
            mode=self.number.get("mode"),
            uid=self.number.get("uid"),
            gid=self.number.get("gid"),
        )

    def check(self) -> None:
        text = self.text
        if self.type in ("bind", "tmpfs"):
            for name in ("mode", "uid", "gid"):
                if name in self.number:
                    raise ParseError(f'{name} not allowed for "{self.type}" type mounts')
        if self.type == "secret":
            if text.get("from"):
                raise ParseError("secret mount should not have a from")
            if text.get("sharing"):
                raise ParseError("secret mount should not define sharing")
            if not (text.get("source") or text.get("target") or text.get("id")):
                raise ParseError("invalid secret mount. one of source, target required")
            if text.get("source") and text.get("id"):
                raise ParseError("both source and id can't be set")
        if text.get("sharing") and self.type != "cache":
            raise ParseError(f"invalid cache sharing set for {self.type} mount")


def _choice(value: str, options: tuple[str, ...], problem: str) -> str:
    if value.lower() not in options:
        raise ParseError(f"{problem} {quote(value)}", hint=hint(value, options) or "it is one of " + ", ".join(options))
    return value.lower()


def _boolean(key: str, value: str) -> bool:
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise ParseError(f"invalid value for {key}: {value}", hint="it is true or false")


def _unsigned(name: str, value: str) -> int:
    base, pattern = (8, r"[0-7]{1,40}") if name == "mode" else (10, r"[0-9]{1,40}")
    if not re.fullmatch(pattern, value, re.ASCII) or int(value, base) >= 1 << 32:
        raise ParseError(
            f"invalid value {value} for {name}",
            hint="write an octal number such as mode=0600" if name == "mode" else f"{name} is a number",
        )
    return int(value, base)


def _size(key: str, value: str) -> int:
    match = _SIZE.match(value)
    if not match:
        raise ParseError(f"invalid value for {key}: {value}", hint="a size looks like 512m or 1g")
    size = float(match[1]) * 1024 ** ("kmgtp".index(match[2].lower()) + 1 if match[2] else 0)
    if size > _MAX_INT64:
        raise ParseError(f"invalid value for {key}: {value}")
    return int(size)
