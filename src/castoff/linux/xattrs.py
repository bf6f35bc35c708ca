"""Extended attributes of a file itself, never of what a symlink points to."""

from __future__ import annotations

import errno
import os

_ABSENT = frozenset({errno.ENODATA, errno.ENOTSUP, errno.EOPNOTSUPP}) if hasattr(errno, "ENODATA") else frozenset()


def get(path: str | bytes | int, name: str) -> bytes | None:
    """Return the value of an attribute; None where it is absent, or the file system has none.

    Raises:
        OSError: the file can't be read.
    """
    try:
        return os.getxattr(path, name, follow_symlinks=isinstance(path, int))
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise


def set_(path: str | bytes | int, name: str, value: bytes) -> None:
    """Set an attribute.

    Raises:
        OSError: the file system has no attributes, or they may not be set on this kind of file.
    """
    os.setxattr(path, name, value, follow_symlinks=isinstance(path, int))


def names(path: str | bytes | int) -> list[str]:
    """Return the names of all attributes, sorted; none where the file system has none.

    Raises:
        OSError: the file can't be read.
    """
    try:
        return sorted(os.listxattr(path, follow_symlinks=isinstance(path, int)))
    except OSError as error:
        if error.errno in _ABSENT:
            return []
        raise


def remove(path: str | bytes | int, name: str) -> None:
    """Remove an attribute; nothing happens where it is absent.

    Raises:
        OSError: the file can't be written.
    """
    try:
        os.removexattr(path, name, follow_symlinks=isinstance(path, int))
    except OSError as error:
        if error.errno not in _ABSENT:
            raise
