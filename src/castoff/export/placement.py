"""Where exports go: beside their destination first, and into its place when they are whole."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from castoff.errors import ExportError
from castoff.store.failure import explain
from castoff.store.removal import remove_tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

STDOUT = "-"


@contextmanager
def failing_as_export(doing: str) -> Iterator[None]:
    """Turn an OSError of the block into an ExportError.

    Raises:
        ExportError: what went wrong while `doing` something, and what to do about it.
    """
    try:
        yield
    except OSError as error:
        message, hint = explain(error, doing)
        raise ExportError(message, hint=_without_store(hint)) from error


def _without_store(hint: str | None) -> str | None:
    return "free some space, or write to another place" if hint and "--root" in hint else hint


@contextmanager
def placed_file(dest: str, stdout: BinaryIO | None = None) -> Iterator[int]:
    """Yield a descriptor to write a file to, which takes the place of the destination when the block ends well.

    Pipes and devices that exist are written directly.

    Args:
        dest: the path of a file, or ``-`` for `stdout`.
        stdout: standard output; it is flushed first, and must have a descriptor.

    Raises:
        ExportError: the destination is a folder, or can't be written.
    """
    if dest == STDOUT:
        if stdout is None:
            raise ExportError("there is no standard output to write to", hint="name a file with dest=")
        with failing_as_export("write to standard output"):
            stdout.flush()
            yield stdout.fileno()
        return
    with failing_as_export(f"write {dest}"):
        path = os.path.realpath(dest)
        mode = _kind(path)
        if stat.S_ISDIR(mode):
            raise ExportError(
                f"can't write {dest}: it is a folder", hint="name a file, or say tar=false for an image layout folder"
            )
        if mode and not stat.S_ISREG(mode):
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                yield fd
            finally:
                os.close(fd)
            return
        with _unnamed(path) as fd:
            yield fd


@contextmanager
def _unnamed(path: str) -> Iterator[int]:
    """Yield a descriptor of a new file that takes the place of a path when the block ends well.

    It has no name before that, where the file system can do so: whatever happens to this process, nothing is left.
    """
    folder, temporary = os.path.dirname(path), beside(path)
    named = False
    try:
        fd = os.open(folder, os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, 0o666)
    except OSError:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        named = True
    try:
        try:
            yield fd
            if not named:
                # Giving a descriptor makes Python call linkat, which alone can name an open file; the path is
                # absolute, so that it is not used.
                os.link(f"/proc/self/fd/{fd}", temporary, src_dir_fd=fd, follow_symlinks=True)
                named = True
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except BaseException:
        if named:
            remove_tree(temporary)
        raise


def beside(path: str) -> str:
    """Return a new name in the folder of a path, on the same file system therefore."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name[:64]}.{os.urandom(6).hex()}")


def _kind(path: str) -> int:
    try:
        return os.stat(path).st_mode
    except FileNotFoundError:
        return 0
