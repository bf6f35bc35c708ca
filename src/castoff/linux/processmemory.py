"""Reading another process' memory (man 2 process_vm_readv), for the supervisor of a sandbox. Imports little."""

from __future__ import annotations

import ctypes
import errno
import os

from castoff.linux import syscalls

_NUMBERS = {"x86_64": 310, "aarch64": 270}
_PAGE = 4096
_PATH_MAX = 4096


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class MemoryReader:
    """Reads the memory of other processes into a buffer of its own. For one thread.

    Raises:
        OSError: the architecture is unknown (ENOSYS).
    """

    def __init__(self) -> None:
        machine = syscalls.machine()
        if machine not in _NUMBERS:
            raise OSError(errno.ENOSYS, f"there are no system call numbers for {machine}")
        self._number = _NUMBERS[machine]
        self._buffer = ctypes.create_string_buffer(2 * _PAGE)
        self._start = ctypes.addressof(self._buffer)
        self._here = _Vector(self._start, 0)
        self._there = _Vector(0, 0)
        self._here_at = ctypes.addressof(self._here)
        self._there_at = ctypes.addressof(self._there)
        self._call = ctypes.CDLL(None, use_errno=True)["syscall"]
        self._call.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p]
        self._call.argtypes += [ctypes.c_ulong, ctypes.c_ulong]
        self._call.restype = ctypes.c_long

    def read(self, thread: int, address: int, size: int) -> bytes:
        """Return some bytes, at most two pages.

        Raises:
            OSError: they can't be read (EFAULT), or the process is gone (ESRCH).
        """
        if self._read(thread, address, size) != size:
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
        return ctypes.string_at(self._start, size)

    def read_path(self, thread: int, address: int) -> bytes:
        """Return the path at an address, which a NUL ends.

        Raises:
            OSError: it can't be read (EFAULT), or has more than PATH_MAX bytes (ENAMETOOLONG).
        """
        size = _PAGE - (address & (_PAGE - 1))
        count = self._read(thread, address, size)
        # `value` ends at the first NUL; what an earlier call left behind must not serve as one.
        self._buffer[count] = b"\0"
        path = self._buffer.value
        if len(path) < count:
            return path
        if count == size:
            more = self._read(thread, address + size, _PAGE)
            self._buffer[more] = b"\0"
            rest = self._buffer.value
            if len(rest) < more and len(path) + len(rest) < _PATH_MAX:
                return path + rest
            if len(rest) < more or more == _PAGE:
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))

    def _read(self, thread: int, address: int, size: int) -> int:
        self._here.length = size
        self._there.base = address
        self._there.length = size
        count: int = self._call(self._number, thread, self._here_at, 1, self._there_at, 1, 0)
        if count < 0:
            code = ctypes.get_errno()
            raise OSError(code, f"process_vm_readv: {os.strerror(code)}")
        return count
