"""The program of castoff's own processes that enter sandboxes: a copy of Python that nobody can write to.

Until such a process executes the program of an image it is Python, and a process that runs beside it in the sandbox may
come to hold that program by way of ``/proc``. If it were the host's file, root in the sandbox could write to it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MFD_EXEC = 0x10  # Linux 6.3; before that every memory file was executable
_ALL_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_CHUNK = 1 << 30
_ITS_PLACE = b"$ORIGIN"  # in the paths of libraries, for the folder of the program; ld.so(8)


def start_python(
    arguments: Sequence[str], *, pass_fds: tuple[int, ...] = (), **options: Any
) -> subprocess.Popen[bytes]:
    """Start Python from a sealed copy of its program in memory; where that can't be had, from the program itself.

    Args:
        arguments: those after the program.
        pass_fds: descriptors that the process inherits.
        options: those of subprocess.Popen.

    Raises:
        OSError: no process can be started.
    """
    command = [sys.executable, *arguments]
    with _copy() as copy:
        if copy is not None:
            try:
                return subprocess.Popen(
                    command, executable=f"/proc/self/fd/{copy}", pass_fds=(*pass_fds, copy), **options
                )
            except OSError as error:
                # A security module may forbid what is in no file system to be executed, and /proc may be missing.
                if error.errno not in (errno.EACCES, errno.EPERM, errno.ENOENT):
                    raise
        return subprocess.Popen(command, pass_fds=pass_fds, **options)


@contextlib.contextmanager
def _copy() -> Iterator[int | None]:
    """Yield the descriptor of a sealed copy of the program of this process; None where there can be none."""
    try:
        copy = _new_memory_file()
    except OSError:
        yield None
        return
    try:
        try:
            _fill(copy)
        except OSError:
            yield None
            return
        yield copy
    finally:
        os.close(copy)


def _new_memory_file() -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create("castoff-python", flags | _MFD_EXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.memfd_create("castoff-python", flags)


def _fill(copy: int) -> None:
    source = os.open("/proc/self/exe", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with mmap.mmap(source, 0, prot=mmap.PROT_READ) as program:
            if program.find(_ITS_PLACE) >= 0:
                raise OSError(errno.ENOEXEC, "it may look for its libraries beside itself, and a copy has no place")
        while os.sendfile(copy, source, None, _CHUNK):
            pass
    finally:
        os.close(source)
    fcntl.fcntl(copy, fcntl.F_ADD_SEALS, _ALL_SEALS)
