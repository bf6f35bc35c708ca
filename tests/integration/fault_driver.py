"""Executes a command under a system call filter whose listener it hands to whoever started it. Runs alone.

Arguments: the number of a connected UNIX socket, the ids to run as ("-" for one's own), and the command. Calls that
change files stop until the listener says how they go on.
"""

from __future__ import annotations

import array
import ctypes
import os
import platform
import socket
import struct
import sys

# (x86-64, aarch64), None where the architecture has no such call.
CALLS: dict[str, tuple[int | None, int]] = {
    "write": (1, 64),
    "pwrite64": (18, 68),
    "writev": (20, 66),
    "sendfile": (40, 71),
    "copy_file_range": (326, 285),
    "openat": (257, 56),
    "rename": (82, -1),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "mkdir": (83, -1),
    "mkdirat": (258, 34),
    "rmdir": (84, -1),
    "unlink": (87, -1),
    "unlinkat": (263, 35),
    "link": (86, -1),
    "linkat": (265, 37),
    "symlink": (88, -1),
    "symlinkat": (266, 36),
    "mknod": (133, -1),
    "mknodat": (259, 33),
    "fsync": (74, 82),
    "fdatasync": (75, 83),
    "syncfs": (306, 267),
    "truncate": (76, 45),
    "ftruncate": (77, 46),
    "chmod": (90, -1),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "chown": (92, -1),
    "lchown": (94, -1),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "utimensat": (280, 88),
    "mount": (165, 40),
    "umount2": (166, 39),
}
ARCHES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
SECCOMP = {"x86_64": 317, "aarch64": 277}

_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000
_SET_FILTER, _NEW_LISTENER = 1, 8
_FLAGS_OF_OPENAT = 16 + 2 * 8


def numbers() -> dict[int, str]:
    """Return the calls that are watched on this machine, by number."""
    column = 0 if platform.machine() == "x86_64" else 1
    return {places[column]: name for name, places in CALLS.items() if places[column] not in (None, -1)}  # type: ignore[misc]


def program() -> bytes:
    """Return the filter: what changes files is asked about, openat only where it may make a file."""
    known = numbers()
    openat = next(number for number, name in known.items() if name == "openat")
    others = [number for number in known if number != openat]
    code = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, ARCHES[platform.machine()]), (_RETURN, 0, 0, _ALLOW), (_LOAD, 0, 0, 0)]
    count = len(others)
    # Behind the comparisons: allow; then openat's flags; then notify.
    code += [(_EQUAL, count - index + 4, 0, number) for index, number in enumerate(others)]
    code += [(_EQUAL, 1, 0, openat), (_RETURN, 0, 0, _ALLOW)]
    code += [(_LOAD, 0, 0, _FLAGS_OF_OPENAT), (_ANY_BIT, 1, 0, os.O_CREAT | os.O_TMPFILE & ~os.O_DIRECTORY)]
    code += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _NOTIFY)]
    return b"".join(struct.pack("=HBBI", *line) for line in code)


def install() -> int:
    """Install the filter and return its listener.

    Raises:
        OSError: the kernel refuses, as it does to who is not root.
    """
    code = program()
    buffer = ctypes.create_string_buffer(code, len(code))
    header = ctypes.create_string_buffer(struct.pack("@HxxxxxxP", len(code) // 8, ctypes.addressof(buffer)))
    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.syscall(SECCOMP[platform.machine()], _SET_FILTER, _NEW_LISTENER, header)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return fd


def main() -> None:
    """Install the filter, hand its listener over, become who is asked for, and execute the command."""
    with socket.socket(fileno=int(sys.argv[1])) as channel:
        try:
            listener = install()
        except OSError as error:
            channel.sendmsg([str(error).encode()])
            raise SystemExit(1) from error
        channel.sendmsg([b"ok"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [listener]))])
    os.close(listener)
    if sys.argv[2] != "-":
        uid, gid = map(int, sys.argv[2].split(":"))
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    os.execv(sys.argv[3], sys.argv[3:])


if __name__ == "__main__":
    main()
