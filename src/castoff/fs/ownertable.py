"""The table beside a snapshot that says who owns what, where the file system can't: its format, and nothing else.

A table belongs to one directory in overlay format. It has the owners of those paths that are not root's (0:0), and the
types and numbers of devices, in whose place an ordinary user's snapshot has empty files. It is written by castoff, from
outside; nothing that a step or an archive brings can become part of it by itself.

The format: a line with its version, then a group for each owner: ``uid gid type rdev`` in decimal, a NUL, and the paths
(bytes, relative, the root is ``.``) with a NUL after each; an empty path ends the group.

Imports little: the supervisor of a sandbox writes tables (see `castoff.sandbox.zygote`).
"""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

Owned = tuple[int, int, int, int]
"""User id, group id, and for a device its type (``S_IFCHR`` or ``S_IFBLK``) and number, else 0 and 0."""

ROOT: Owned = (0, 0, 0, 0)
_MAGIC = b"castoff owners 1\n"
_MAX_ID = (1 << 32) - 2
_TYPES = (0, stat.S_IFCHR, stat.S_IFBLK)


def table_path(directory: str) -> str:
    """Return where the table of a snapshot's directory is: beside it, so that it moves with the snapshot."""
    return os.path.join(os.path.dirname(directory.rstrip("/")), "owners")


def encode(table: Mapping[bytes, Owned]) -> bytes:
    """Return the content of a table; what is root's and no device is left out."""
    groups: dict[Owned, list[bytes]] = {}
    for path, owned in table.items():
        if owned != ROOT:
            groups.setdefault(owned, []).append(path or b".")
    parts = [_MAGIC]
    parts += [b"%d %d %d %d\0" % owned + b"\0".join(sorted(groups[owned])) + b"\0\0" for owned in sorted(groups)]
    return b"".join(parts)


def decode(data: bytes) -> dict[bytes, Owned]:
    """Return the table that some bytes hold.

    Raises:
        ValueError: they hold none.
    """
    if not data.startswith(_MAGIC):
        raise ValueError("it is no table of owners")
    table: dict[bytes, Owned] = {}
    for group in data[len(_MAGIC) :].split(b"\0\0")[:-1]:
        head, *paths = group.split(b"\0")
        numbers = tuple(map(int, head.split(b" ")))
        if len(numbers) != 4 or not all(0 <= each <= _MAX_ID for each in numbers) or numbers[2] not in _TYPES:
            raise ValueError("it has an owner that is none")
        table.update(dict.fromkeys(paths, numbers))
    if not data.endswith((b"\0\0", b"1\n")):
        raise ValueError("it is cut off")
    root = table.pop(b".", None)
    if root is not None:
        table[b""] = root
    return table


def read_table(path: str, directory: int | None = None) -> dict[bytes, Owned]:
    """Return the table in a file; an empty one where there is no file.

    Args:
        path: of the file.
        directory: an open directory that a relative path starts from.

    Raises:
        ValueError: the file is no table.
        OSError: it can't be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return {}
    try:
        data = bytearray()
        while block := os.read(descriptor, 1 << 20):
            data += block
    finally:
        os.close(descriptor)
    return decode(bytes(data))


def write_table(path: str, table: Mapping[bytes, Owned], directory: int | None = None) -> None:
    """Write a table, by one rename; where it is empty there is no file afterwards.

    Raises:
        OSError: it can't be written.
    """
    data = encode(table)
    if data == _MAGIC:
        try:
            os.unlink(path, dir_fd=directory)
        except FileNotFoundError:
            return
        return
    temporary = f"{path}.{os.getpid()}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600, dir_fd=directory)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
    finally:
        os.close(descriptor)
    os.rename(temporary, path, src_dir_fd=directory, dst_dir_fd=directory)
