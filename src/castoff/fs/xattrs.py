"""Extended attributes: which belong to an image, and which are the machinery's own.

An image's are ``user.*`` and ``security.capability``. Never kept are those of overlayfs and of castoff, which a step
or an archive could forge, and those that describe the host (SELinux labels, ``trusted.*``, ACLs with host ids).
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

CAPABILITY = b"security.capability"

_PRIVATE = (b"user.overlay.", b"user.castoff.", b"user.fuseoverlayfs.", b"user.containers.")
_ABSENT = frozenset({errno.ENODATA, errno.ENOTSUP, errno.EPERM, errno.ENOENT})
_CAP_REVISION_2 = 0x02000000
_CAP_REVISION_3 = 0x03000000
_CAP_REVISION_MASK = 0xFF000000
_CAP_V2_SIZE = 20
_OVERLAY = ("trusted.overlay.", "user.overlay.")


def belongs_to_image(name: bytes) -> bool:
    """Tell whether an extended attribute is part of an image."""
    if name.startswith(b"user."):
        return not name.startswith(_PRIVATE)
    return name == CAPABILITY


def portable_value(name: bytes, value: bytes) -> bytes:
    """Return an attribute's value as an image has it: file capabilities in revision 2, without a host's root id."""
    if name != CAPABILITY or len(value) <= _CAP_V2_SIZE:
        return value
    magic = int.from_bytes(value[:4], "little")
    if magic & _CAP_REVISION_MASK != _CAP_REVISION_3:
        return value
    magic = magic & ~_CAP_REVISION_MASK | _CAP_REVISION_2
    return magic.to_bytes(4, "little") + value[4:_CAP_V2_SIZE]


def select(pairs: Iterable[tuple[bytes, bytes]]) -> tuple[tuple[bytes, bytes], ...]:
    """Return those of some attributes that belong to an image, sorted, with portable values."""
    return tuple(sorted((name, portable_value(name, value)) for name, value in pairs if belongs_to_image(name)))


def read_xattrs(host: int | bytes) -> tuple[tuple[bytes, bytes], ...]:
    """Return the attributes of a host file (not followed if a symbolic link) that belong to an image, sorted.

    Raises:
        OSError: the file can't be read; a file system without attributes has none.
    """
    try:
        names = os.listxattr(host) if isinstance(host, int) else os.listxattr(host, follow_symlinks=False)
    except OSError as error:
        if error.errno in {errno.ENOTSUP, errno.EPERM}:
            return ()
        raise
    if not names:
        return ()
    return _read(host, names)


def _read(host: int | bytes, names: list[str]) -> tuple[tuple[bytes, bytes], ...]:
    found: list[tuple[bytes, bytes]] = []
    for text in names:
        name = os.fsencode(text)
        if not belongs_to_image(name):
            continue
        value = get_xattr(host, name)
        if value is not None:
            found.append((name, portable_value(name, value)))
    return tuple(sorted(found))


def get_xattr(host: int | bytes, name: bytes) -> bytes | None:
    """Return one attribute of a host file, never following a symbolic link; None where it is not there.

    Raises:
        OSError: the file can't be read.
    """
    try:
        if isinstance(host, int):
            return os.getxattr(host, name)
        return os.getxattr(host, name, follow_symlinks=False)
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise


def opaque_name(userxattr: bool) -> bytes:
    """Return the attribute in which overlayfs says that a directory hides what lies below it."""
    return b"user.overlay.opaque" if userxattr else b"trusted.overlay.opaque"


def is_opaque(host: int | bytes, userxattr: bool) -> bool:
    """Tell whether a host directory is marked opaque.

    Raises:
        OSError: the directory can't be read.
    """
    return get_xattr(host, opaque_name(userxattr)) == b"y"


def overlay_feature(host: bytes) -> str | None:
    """Return the overlayfs feature that makes a host file unreadable without a mount; None where there is none.

    A directory that was renamed with ``redirect_dir`` keeps its content elsewhere, and a file that was copied up with
    ``metacopy`` has none.
    """
    for text in os.listxattr(host, follow_symlinks=False):
        if text.startswith(_OVERLAY) and text.endswith((".redirect", ".metacopy")):
            return text.rpartition(".")[2]
    return None
