"""What an operating system's error means to somebody who waits for an image: one sentence, and what to do."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from castoff.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

_REASONS = {
    errno.ENOSPC: ("there is no space left", "free some space (castoff prune), or name another folder with --root"),
    errno.EDQUOT: ("the disk quota is used up", "free some space (castoff prune), or name another folder with --root"),
    errno.EROFS: ("the file system is read-only", "name a folder on a writable file system"),
    errno.EACCES: ("permission was denied", "check who owns the folder and its mode"),
    errno.EPERM: ("the operation is not permitted", "check who owns the folder, and its attributes"),
    errno.ENOTDIR: ("a part of the path is no folder", None),
    errno.EISDIR: ("it is a folder", None),
    errno.ENOENT: ("it does not exist", None),
    errno.ELOOP: ("its symbolic links form a ring", None),
    errno.EMFILE: ("too many files are open", "raise the limit (ulimit -n)"),
    errno.ENFILE: ("too many files are open on this machine", None),
    errno.EFBIG: ("the file system, or a limit, allows no file of that size", "check ulimit -f"),
    errno.EIO: ("the disk reported an error", "check the kernel's log"),
    errno.ENAMETOOLONG: ("its name is too long", None),
    errno.EPIPE: ("the reader has gone", None),
}


def explain(error: OSError, doing: str) -> tuple[str, str | None]:
    """Return a sentence and a hint for an error that came up while `doing` something (``write the blob x``)."""
    reason, hint = _REASONS.get(error.errno or 0, (error.strerror or str(error) or type(error).__name__, None))
    place = ""
    if isinstance(error.filename, (str, bytes)):
        place = os.fsdecode(error.filename)
        folder = os.path.dirname(place)
        if error.errno == errno.ENOENT and folder and not os.path.lexists(folder):
            return f"can't {doing}: the folder {folder} does not exist", "make it first, or name another place"
    if not place or place in doing:
        return f"can't {doing}: {reason}", hint
    return f"can't {doing}: {reason} ({place})", hint


def store_error(error: OSError, doing: str) -> StoreError:
    """Return the StoreError for an error that came up while `doing` something."""
    message, hint = explain(error, doing)
    return StoreError(message, hint=hint)


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn an OSError of the block into a StoreError.

    Raises:
        StoreError: what went wrong while `doing` something, and what to do about it.
    """
    try:
        yield
    except OSError as error:
        raise store_error(error, doing) from error
