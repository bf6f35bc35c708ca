"""Users and groups by name, from the files of an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from castoff.errors import ContextError

if TYPE_CHECKING:
    from castoff.fs.union import UnionTree

_LIMIT = 4 << 20
_MAX_ID = (1 << 32) - 2


class Owner(NamedTuple):
    """A user id and a group id."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class ExecUser:
    """Who a process runs as; `home` and `name` are "" where the image does not say."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    home: str = ""
    name: str = ""


def _rows(tree: UnionTree, path: bytes, least: int) -> list[list[str]]:
    """Return the rows of a passwd-like file with at least so many fields; a missing or odd file has none."""
    entry = tree.lstat(tree.resolve(path))
    if entry is None or not entry.is_file:
        return []
    with tree.open_(entry) as file:
        text = file.read(_LIMIT).decode("utf-8", "surrogateescape")
    rows = [line.strip().split(":") for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [row for row in rows if len(row) >= least and row[2].isascii() and row[2].isdigit()]


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and int(text) <= _MAX_ID else None


def _split(text: str) -> tuple[str, str]:
    user, _, group = text.partition(":")
    return user, group


def _group(tree: UnionTree, name: str) -> int:
    number = _number(name)
    if number is not None:
        return number
    for row in _rows(tree, b"etc/group", 3):
        if row[0] == name:
            return int(row[2])
    raise ContextError(f"no group {name!r} in the image's /etc/group", hint="create it in an earlier step")


def _user(tree: UnionTree, name: str) -> list[str]:
    for row in _rows(tree, b"etc/passwd", 4):
        if row[0] == name:
            return row
    raise ContextError(f"no user {name!r} in the image's /etc/passwd", hint="create it in an earlier step")


def owner(tree: UnionTree, text: str) -> Owner:
    """Return the owner that ``--chown``, or the USER at a WORKDIR, names; "" is 0:0.

    A number without a group is its own group; a name has the group of its row.

    Raises:
        ContextError: the image has no such user or group.
    """
    user, group = _split(text)
    number = _number(user) if user else 0
    if number is not None:
        uid, gid = number, number
    else:
        row = _user(tree, user)
        uid, gid = int(row[2]), _number(row[3]) or 0
    return Owner(uid, _group(tree, group) if group else gid)


def exec_user(tree: UnionTree, text: str) -> ExecUser:
    """Return who a process runs as under ``USER text``, with supplementary groups as Docker gives them.

    Raises:
        ContextError: the image has no such user or group.
    """
    user, group = _split(text)
    uid, gid, home, name = 0, 0, "", ""
    number = _number(user) if user else 0
    if number is None:
        row = _user(tree, user)
    else:
        uid = number
        row = next((row for row in _rows(tree, b"etc/passwd", 4) if int(row[2]) == uid), [])
    if row:
        uid, gid, name = int(row[2]), _number(row[3]) or 0, row[0]
        home = row[5] if len(row) > 5 else ""
    if group:
        return ExecUser(uid, _group(tree, group), (), home, name)
    groups = tuple(
        sorted({int(row[2]) for row in _rows(tree, b"etc/group", 4) if name and name in row[3].split(",")} - {gid})
    )
    return ExecUser(uid, gid, groups, home, name)
