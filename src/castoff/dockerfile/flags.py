"""Flags of instructions: ``--name`` and ``--name=value``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from castoff.dockerfile.suggest import nearest
from castoff.errors import ParseError

FlagKind = Literal["bool", "text", "texts"]

_LABS = {"device": "RUN --device needs container devices, which are not part of the stable Dockerfile syntax"}


class Flags:
    """The flags of one instruction, checked against those that it may have."""

    __slots__ = ("_values",)

    def __init__(self, written: tuple[str, ...], known: Mapping[str, FlagKind]) -> None:
        """Read flags.

        Raises:
            ParseError: a flag is unknown, is given twice, lacks its value, or has a wrong one.
        """
        self._values: dict[str, list[str]] = {}
        for flag in written:
            if flag == "--":
                return
            self._add(flag, known)

    def _add(self, flag: str, known: Mapping[str, FlagKind]) -> None:
        if not flag.startswith("--"):
            raise ParseError(f"arg should start with -- : {flag}")
        written, separator, value = flag.partition("=")
        name = written[2:]
        kind = known.get(name)
        if kind is None:
            raise ParseError(f"unknown flag: {written}", hint=_LABS.get(name) or _suggestion(name, known))
        if name in self._values and kind != "texts":
            raise ParseError(f"duplicate flag specified: {written}")
        if kind == "bool":
            value = _boolean(written, separator, value)
        elif not separator:
            raise ParseError(f"missing a value on flag: {written}", hint=f"write {written}=value")
        self._values.setdefault(name, []).append(value)

    def __contains__(self, name: str) -> bool:
        """Say whether a flag is given."""
        return name in self._values

    def text(self, name: str) -> str:
        """Return the value of a flag; "" where it is not given."""
        return self._values.get(name, [""])[-1]

    def texts(self, name: str) -> tuple[str, ...]:
        """Return every value of a flag."""
        return tuple(self._values.get(name, ()))

    def optional(self, name: str) -> bool | None:
        """Return the value of a boolean flag; None where it is not given."""
        return self._values[name][-1] == "true" if name in self._values else None

    def boolean(self, name: str) -> bool:
        """Return the value of a boolean flag; False where it is not given."""
        return bool(self.optional(name))


def _boolean(flag: str, separator: str, value: str) -> str:
    if separator and not value:
        raise ParseError(f"missing a value on flag: {flag}")
    if value.lower() in ("", "true"):
        return "true"
    if value.lower() == "false":
        return "false"
    raise ParseError(f"expecting boolean value for flag {flag}, not: {value}")


def _suggestion(name: str, known: Mapping[str, FlagKind]) -> str | None:
    if match := nearest(name, known):
        return f"did you mean {match}?"
    if not known:
        return "this instruction has no flags"
    return "its flags are " + ", ".join(f"--{flag}" for flag in sorted(known))
