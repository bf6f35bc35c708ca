"""The status of files as the kernel gives it, for the supervisor of a sandbox, which hands it on with other owners.

Imports little, and does little around each call: a supervisor makes them by the thousand.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from castoff.linux import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_EMPTY_PATH = 0x1000
STATX_NEEDED = 0xFFF
"""All basic fields, and the time of birth."""

_NUMBERS = {"x86_64": (332, 262, 260), "aarch64": (291, 79, 54)}
_STATX_SIZE = 256
# struct stat: its size, and where in it mode, uid, gid and rdev are
_STAT_LAYOUTS = {"x86_64": (144, 24, 28, 32, 40), "aarch64": (128, 16, 24, 28, 32)}
# struct statx up to its device numbers
_STATX = struct.Struct("=I12xIIIH2xQ40x12s36xIIII")

Status = tuple[int, int, int, int, int, int, bytes, int, int, int, int]
"""What `StatusReader.statx` finds: mask, links, uid, gid, mode, inode, time of birth, and the major and minor numbers
of the device that it is (two) and of the one that it is on (two)."""
LINKS: Final = 1
UID: Final = 2
GID: Final = 3
MODE: Final = 4
INODE: Final = 5
BORN: Final = 6


class StatusReader:
    """Reads status by raw system calls into a buffer of its own. For one thread.

    Raises:
        OSError: the architecture is unknown (ENOSYS).
    """

    def __init__(self) -> None:
        machine = syscalls.machine()
        if machine not in _NUMBERS:
            raise OSError(errno.ENOSYS, f"there are no system call numbers for {machine}")
        self._statx_number, self._stat_number, self._chown_number = _NUMBERS[machine]
        self._stat_size, self._mode_at, self._uid_at, self._gid_at, self._rdev_at = _STAT_LAYOUTS[machine]
        self._buffer = ctypes.create_string_buffer(_STATX_SIZE)
        library = ctypes.CDLL(None, use_errno=True)
        self._call4 = library["syscall"]
        self._call4.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_long]
        self._call4.restype = ctypes.c_long
        self._call5 = library["syscall"]
        self._call5.argtypes = [
            ctypes.c_long,
            ctypes.c_int,
            ctypes.c_char_p,
            ctypes.c_long,
            ctypes.c_long,
            ctypes.c_void_p,
        ]
        self._call5.restype = ctypes.c_long

    def statx(self, directory: int, path: bytes, flags: int) -> Status | None:
        """Return the status of a file (man 2 statx); None where there is none, or it can't be had."""
        if self._call5(self._statx_number, directory, path, flags, STATX_NEEDED, self._buffer) < 0:
            return None
        return _STATX.unpack_from(self._buffer)

    def raw_statx(self, directory: int, path: bytes, flags: int, mask: int) -> bytearray:
        """Return a ``struct statx`` as a caller with these flags and this mask would get it.

        Raises:
            OSError: there is no such file.
        """
        if self._call5(self._statx_number, directory, path, flags, mask, self._buffer) < 0:
            raise _error("statx")
        return bytearray(self._buffer.raw)

    def raw_stat(self, directory: int, path: bytes, flags: int) -> bytearray:
        """Return a ``struct stat`` (man 2 fstatat).

        Raises:
            OSError: there is no such file.
        """
        if self._call4(self._stat_number, directory, path, ctypes.addressof(self._buffer), flags) < 0:
            raise _error("newfstatat")
        return bytearray(self._buffer.raw[: self._stat_size])

    def patch_stat(self, data: bytearray, uid: int, gid: int, device: tuple[int, int]) -> None:
        """Put other owners into a ``struct stat``, and the type and number of a device if there is one."""
        struct.pack_into("=I", data, self._uid_at, uid)
        struct.pack_into("=I", data, self._gid_at, gid)
        if device[0]:
            (mode,) = struct.unpack_from("=I", data, self._mode_at)
            struct.pack_into("=I", data, self._mode_at, mode & 0o7777 | device[0])
            struct.pack_into("=Q", data, self._rdev_at, device[1])

    @staticmethod
    def patch_statx(data: bytearray, uid: int, gid: int, device: tuple[int, int]) -> None:
        """Put other owners into a ``struct statx``, and the type and number of a device if there is one."""
        struct.pack_into("=II", data, 20, uid, gid)
        if device[0]:
            (mode,) = struct.unpack_from("=H", data, 28)
            struct.pack_into("=H", data, 28, mode & 0o7777 | device[0])
            struct.pack_into("=II", data, 128, os.major(device[1]), os.minor(device[1]))

    def touch_owner(self, descriptor: int) -> None:
        """Do all that a change of owner does to an open file (O_PATH will do), but for the owner.

        The change time is set, setuid and setgid bits and file capabilities go, and an overlay copies the file up.

        Raises:
            OSError: the owner could not be changed.
        """
        if self._call5(self._chown_number, descriptor, b"", -1, -1, AT_EMPTY_PATH) < 0:
            raise _error("fchownat")


def device_of(status: Status) -> int:
    """Return one number for the device that a file is on."""
    return status[9] << 32 | status[10]


def _error(name: str) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, f"{name}: {os.strerror(code)}")
