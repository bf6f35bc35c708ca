"""Namespaces: their flags, joining them, and the little that a new network namespace needs."""

from __future__ import annotations

import _socket  # rather than socket, which would double the start-up time of the fork server
import fcntl
import os
import struct

from castoff.linux import syscalls

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

_INITIAL_USER_NAMESPACE = 0xEFFFFFFD  # its inode number, fixed by the kernel (PROC_USER_INIT_INO)
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1


def loopback_up() -> None:
    """Bring the loopback interface of the network namespace up.

    Raises:
        OSError: the kernel refused.
    """
    control = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC, 0)
    try:
        answer = fcntl.ioctl(control.fileno(), _SIOCGIFFLAGS, struct.pack("16sH14x", b"lo", 0))
        flags = struct.unpack("16sH14x", answer)[1]
        fcntl.ioctl(control.fileno(), _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))
    finally:
        control.close()


def join(path: str, kind: int) -> None:
    """Join the namespace at a path such as ``/proc/1/ns/net``; one of the CLONE_NEW* flags says of which kind it is.

    Raises:
        OSError: there is no such namespace, or it may not be joined.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.setns(descriptor, kind)
    finally:
        os.close(descriptor)


def has_single_id() -> bool:
    """Tell whether exactly one user id is mapped in this process' user namespace."""
    try:
        with open("/proc/self/uid_map", "rb") as file:
            return sum(int(line.split()[2]) for line in file) == 1
    except OSError:
        return False


def in_initial_user_namespace() -> bool:
    """Tell whether this process is in the user namespace that the kernel began with."""
    try:
        return os.stat("/proc/self/ns/user").st_ino == _INITIAL_USER_NAMESPACE
    except OSError:
        return True  # a kernel without user namespaces, or no /proc
