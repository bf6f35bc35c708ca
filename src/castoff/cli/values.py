"""Reads the values of options, in the forms that Docker's command line gives them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from castoff.errors import UsageError

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(i?b)?", re.IGNORECASE)
_MULTIPLES = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_ULIMITS = frozenset(
    "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split()
)


def pair(text: str, option: str) -> tuple[str, str]:
    """Return the two sides of ``key=value``.

    Raises:
        UsageError: there is no ``=``, or nothing before it.
    """
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise UsageError(f"{option} wants KEY=VALUE, not {text!r}")
    return key, value


def optional_pair(text: str, option: str) -> tuple[str, str | None]:
    """Return the two sides of ``key=value``, with None for the value where only a key is given.

    Raises:
        UsageError: the key is empty.
    """
    key, equals, value = text.partition("=")
    if not key:
        raise UsageError(f"{option} wants KEY=VALUE or KEY, not {text!r}")
    return key, value if equals else None


def split_commas(values: Iterable[str]) -> tuple[str, ...]:
    """Return the parts of comma-separated lists, in order; empty ones are dropped."""
    return tuple(part.strip() for value in values for part in value.split(",") if part.strip())


def byte_size(text: str, option: str) -> int:
    """Return the bytes of a size such as ``64m``, ``1gb`` or ``1024``; units are powers of 1024, as in Docker.

    Raises:
        UsageError: it is not a size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{option} wants a size such as 64m or 1g, not {text!r}")
    return int(float(match[1]) * 1024 ** _MULTIPLES[match[2].lower()])


def host_entry(text: str, gateway: str = "") -> tuple[str, str]:
    """Return name and address of ``--add-host NAME:ADDRESS`` or ``NAME=ADDRESS``; an IPv6 address may have brackets.

    Args:
        text: the value.
        gateway: what the address ``host-gateway`` stands for; "" where it stands for nothing.

    Raises:
        UsageError: it is neither, or the address is none.
    """
    import ipaddress

    name, sign, address = text.partition("=")
    if not sign:
        name, sign, address = text.partition(":")
    address = address.removeprefix("[").removesuffix("]")
    if address == "host-gateway" and gateway:
        address = gateway
    try:
        ipaddress.ip_address(address)
    except ValueError as error:
        raise UsageError(f"--add-host wants NAME:ADDRESS, not {text!r}") from error
    if not name or any(c.isspace() or not c.isprintable() for c in name):
        raise UsageError(f"--add-host wants NAME:ADDRESS, not {text!r}")
    return name, address


def ulimit(text: str) -> tuple[str, int, int]:
    """Return name, soft and hard limit of ``--ulimit NAME=SOFT[:HARD]``; -1 is no limit.

    Raises:
        UsageError: it is not one, or the soft limit is above the hard one.
    """
    name, _, limits = text.partition("=")
    if name not in _ULIMITS:
        raise UsageError(f"--ulimit has no limit {name!r}", hint=f"there are {', '.join(sorted(_ULIMITS))}")
    soft_text, colon, hard_text = limits.partition(":")
    try:
        soft = int(soft_text)
        hard = int(hard_text) if colon else soft
    except ValueError as error:
        raise UsageError(f"--ulimit wants NAME=SOFT or NAME=SOFT:HARD, not {text!r}") from error
    if min(soft, hard) < -1 or (hard != -1 and (soft == -1 or soft > hard)):
        raise UsageError(f"--ulimit {text}: the soft limit must not be above the hard one")
    return name, soft, hard


def csv_fields(text: str, option: str) -> dict[str, str]:
    """Return the fields of ``key=value,key=value`` with the quoting of CSV; a field without ``=`` has the value "".

    Raises:
        UsageError: the quoting is broken, or a key comes twice.
    """
    import csv

    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise UsageError(f"{option} {text!r} has broken quotes") from error
    fields: dict[str, str] = {}
    for item in rows[0] if rows else []:
        key, _, value = item.partition("=")
        key = key.strip().lower()
        if key in fields:
            raise UsageError(f"{option} {text!r} gives {key!r} twice")
        fields[key] = value
    return fields
