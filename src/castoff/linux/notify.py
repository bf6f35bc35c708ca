"""Seccomp's user notification: system calls of a process that another process answers (man 2 seccomp_unotify).

Imports little: the supervisor of a sandbox uses it (see `castoff.sandbox.zygote`).
"""

from __future__ import annotations

import errno
import fcntl
import struct

from castoff.linux import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_FILTER_FLAG_NEW_LISTENER = 1 << 3
_FILTER_FLAG_WAIT_KILLABLE_RECV = 1 << 5
_NOTIF_RECV = 0xC0502100
_NOTIF_SEND = 0xC0182101
_NOTIF_ID_VALID = 0x40082102
_NOTIF_SET_FLAGS = 0x40082104
_FD_SYNC_WAKE_UP = 1
_FLAG_CONTINUE = 1

_ARCHES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000
_RET_ALLOW = 0x7FFF0000
_RET_NOTIFY = 0x7FC00000
_RET_ERRNO = 0x00050000
_LD_WORD = 0x20
_JUMP_EQUAL = 0x15
_JUMP_GREATER_EQUAL = 0x35
_JUMP_ANY_BIT = 0x45
_RETURN = 0x06
_OFFSET_NUMBER = 0
_OFFSET_ARCH = 4
_OFFSET_ARGUMENTS = 16

# name: (x86-64, aarch64), None where the architecture has no such call
_NUMBERS: dict[str, tuple[int | None, int | None]] = {
    "access": (21, None),
    "chown": (92, None),
    "chroot": (161, 51),
    "creat": (85, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "fstat": (5, 80),
    "getegid": (108, 177),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getgroups": (115, 158),
    "getresgid": (120, 150),
    "getresuid": (118, 148),
    "getuid": (102, 174),
    "io_uring_setup": (425, 425),
    "lchown": (94, None),
    "link": (86, None),
    "linkat": (265, 37),
    "lstat": (6, None),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "newfstatat": (262, 79),
    "open": (2, None),
    "openat": (257, 56),
    "openat2": (437, 437),
    "prctl": (157, 167),
    "rename": (82, None),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "rmdir": (84, None),
    "setfsgid": (123, 152),
    "setfsuid": (122, 151),
    "setgid": (106, 144),
    "setgroups": (116, 159),
    "setregid": (114, 143),
    "setresgid": (119, 149),
    "setresuid": (117, 147),
    "setreuid": (113, 145),
    "setuid": (105, 146),
    "stat": (4, None),
    "statx": (332, 291),
    "symlink": (88, None),
    "symlinkat": (266, 36),
    "unlink": (87, None),
    "unlinkat": (263, 35),
}


def call_names() -> tuple[str, ...]:
    """Return the names of all calls that can be trapped."""
    return tuple(_NUMBERS)


def call_numbers(machine: str) -> dict[str, int]:
    """Return the numbers of the calls that can be trapped, by name, as far as the architecture has them.

    Raises:
        ValueError: the architecture is unknown.
    """
    if machine not in _ARCHES:
        raise ValueError(f"there are no system call numbers for {machine}")
    column = list(_ARCHES).index(machine)
    numbers = {name: both[column] for name, both in _NUMBERS.items()}
    return {name: number for name, number in numbers.items() if number is not None}


def trap_filter(machine: str, always: Iterable[str], by_flags: dict[str, tuple[int, int]]) -> bytes:
    """Return a BPF program that has calls answered by a listener, and allows all others.

    Calls of another architecture of the same machine don't exist (ENOSYS), and io_uring is refused, since what goes
    through it is seen by no filter.

    Args:
        machine: the architecture as the kernel names it.
        always: calls that are always trapped; those that the architecture lacks are ignored.
        by_flags: calls that are trapped if one of some bits is set in an argument: name → (its position, the bits).

    Raises:
        ValueError: the architecture is unknown.
    """
    numbers = call_numbers(machine)
    allow, notify = _instruction(_RETURN, 0, 0, _RET_ALLOW), _instruction(_RETURN, 0, 0, _RET_NOTIFY)
    absent = _instruction(_RETURN, 0, 0, _RET_ERRNO | errno.ENOSYS)
    code = [
        _instruction(_LD_WORD, 0, 0, _OFFSET_ARCH),
        _instruction(_JUMP_EQUAL, 1, 0, _ARCHES[machine]),
        absent,
        _instruction(_LD_WORD, 0, 0, _OFFSET_NUMBER),
        _instruction(_JUMP_GREATER_EQUAL, 0, 1, _X32_BIT),
        absent,
    ]
    for name, (position, bits) in by_flags.items():
        if name in numbers:
            code += [
                _instruction(_JUMP_EQUAL, 0, 4, numbers[name]),
                _instruction(_LD_WORD, 0, 0, _OFFSET_ARGUMENTS + 8 * position),
                _instruction(_JUMP_ANY_BIT, 0, 1, bits),
                notify,
                allow,
            ]
    for name in always:
        if name in numbers:
            code += [_instruction(_JUMP_EQUAL, 0, 1, numbers[name]), notify]
    code += [
        _instruction(_JUMP_EQUAL, 0, 1, numbers["io_uring_setup"]),
        _instruction(_RETURN, 0, 0, _RET_ERRNO | errno.EPERM),
        allow,
    ]
    return b"".join(code)


def _instruction(code: int, true: int, false: int, operand: int) -> bytes:
    return struct.pack("=HBBI", code, true, false, operand & 0xFFFFFFFF)


def install(program: bytes) -> int:
    """Install a filter for the calling thread and its descendants, and return its listener.

    Raises:
        OSError: the kernel refused; EBUSY where there is a listener already, of which a process can have only one.
    """
    try:
        # Without this a signal makes a thread leave its call and begin it anew (Linux 5.19).
        return syscalls.seccomp_set_filter(program, _FILTER_FLAG_NEW_LISTENER | _FILTER_FLAG_WAIT_KILLABLE_RECV)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return syscalls.seccomp_set_filter(program, _FILTER_FLAG_NEW_LISTENER)


class Listener:
    """The end at which trapped calls arrive. For one thread."""

    __slots__ = ("_buffer", "_descriptor", "_id", "_request", "_response")

    def __init__(self, descriptor: int) -> None:
        """Take the descriptor that `install` gave; it stays the caller's."""
        self._descriptor = descriptor
        self._buffer = bytearray(80)
        self._request = struct.Struct("=QIIiIQ6Q")
        self._response = struct.Struct("=QqiI")
        self._id = struct.Struct("=Q")
        try:
            # With this the processes hand over to each other on one processor, which takes half the time (Linux 6.6).
            fcntl.ioctl(descriptor, _NOTIF_SET_FLAGS, _FD_SYNC_WAKE_UP)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTTY):
                raise

    def receive(self) -> tuple[int, ...] | None:
        """Wait for a call: (id, thread, flags, number, architecture, instruction, six arguments); None if it is gone.

        Raises:
            OSError: nobody is left to make calls.
        """
        buffer = self._buffer
        buffer[:] = bytes(80)
        try:
            fcntl.ioctl(self._descriptor, _NOTIF_RECV, buffer, True)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):
                return None
            raise
        return self._request.unpack(buffer)

    def is_waiting(self, notification: int) -> bool:
        """Tell whether a call still waits: until then, what was found by its thread's number is of that thread."""
        try:
            fcntl.ioctl(self._descriptor, _NOTIF_ID_VALID, self._id.pack(notification))
        except OSError:
            return False
        return True

    def answer(self, notification: int, value: int) -> None:
        """Let a call return a value; nothing happens if its thread is gone."""
        self._send(self._response.pack(notification, value, 0, 0))

    def refuse(self, notification: int, code: int) -> None:
        """Let a call fail with an errno; nothing happens if its thread is gone."""
        self._send(self._response.pack(notification, 0, -code, 0))

    def pass_on(self, notification: int) -> None:
        """Let the kernel do a call as if it had not been trapped; nothing happens if its thread is gone."""
        self._send(self._response.pack(notification, 0, 0, _FLAG_CONTINUE))

    def _send(self, response: bytes) -> None:
        try:
            fcntl.ioctl(self._descriptor, _NOTIF_SEND, response)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
