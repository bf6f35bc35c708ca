"""Users and groups by name, from the files of an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from castoff.errors import ContextError

if TYPE_CHECKING:
    from castoff.fs.union import UnionTree

USER_FILES = (b"etc/passwd", b"etc/group")
"""Where an image keeps its users and its groups."""
_LIMIT = 4 << 20
_MAX_ID = (1 << 32) - 2
_MAX_DIGITS = 20


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
    return [row for row in rows if len(row) >= least and _number(row[2]) is not None]


def _number(text: str) -> int | None:
    if not text.isascii() or not text.isdigit() or len(text) > _MAX_DIGITS:
        return None
    number = int(text)
    return number if number <= _MAX_ID else None


def _split(text: str) -> tuple[str, str]:
    user, _, group = text.partition(":")
    return user, group


def _find_group(tree: UnionTree, name: str) -> int | None:
    number = _number(name)
    if number is not None:
        return number
    return next((int(row[2]) for row in _rows(tree, b"etc/group", 3) if row[0] == name), None)


def _find_user(tree: UnionTree, name: str) -> list[str] | None:
    return next((row for row in _rows(tree, b"etc/passwd", 4) if row[0] == name), None)


def _group(tree: UnionTree, name: str) -> int:
    gid = _find_group(tree, name)
    if gid is None:
        raise ContextError(f"no group {name!r} in the image's /etc/group", hint="create it in an earlier step")
    return gid


def _user(tree: UnionTree, name: str) -> list[str]:
    row = _find_user(tree, name)
    if row is None:
        raise ContextError(f"no user {name!r} in the image's /etc/passwd", hint="create it in an earlier step")
    return row


def owner(tree: UnionTree, text: str) -> Owner:
    """Return the owner that ``--chown``, or the USER at a WORKDIR, names; "" is 0:0.

    A number without a group is its own group; a name has the group of its row. A user or group that the image lacks
    counts as 0, as in BuildKit; `unknown_names` tells of it.
    """
    user, group = _split(text)
    number = _number(user) if user else 0
    row = _find_user(tree, user) if number is None else None
    uid, gid = number or 0, number or 0
    if row is not None:
        uid, gid = int(row[2]), _number(row[3]) or 0
    return Owner(uid, (_find_group(tree, group) or 0) if group else gid)


def unknown_names(tree: UnionTree, text: str) -> tuple[str, ...]:
    """Return what of an owner the image does not know, each as part of a sentence; `owner` takes it for 0."""
    user, group = _split(text)
    found = []
    if user and _number(user) is None and _find_user(tree, user) is None:
        found.append(f"user {user!r} in the image's /etc/passwd")
    if group and _find_group(tree, group) is None:
        found.append(f"group {group!r} in the image's /etc/group")
    return tuple(found)


def has_names(text: str) -> bool:
    """Tell whether an owner names a user or a group, so that the image must be asked who that is."""
    return any(part and _number(part) is None for part in _split(text))


def exec_user(tree: UnionTree, text: str) -> ExecUser:
    """Return who a process runs as under ``USER text``, with supplementary groups as Docker gives them.

    The group itself is always one of them: a process with none passes where a file shuts its group out.

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
        gid = _group(tree, group)
        return ExecUser(uid, gid, (gid,), home, name)
    others = {int(row[2]) for row in _rows(tree, b"etc/group", 4) if name and name in row[3].split(",")} - {gid}
    return ExecUser(uid, gid, (gid, *sorted(others)), home, name)
