"""The default policy as a BPF program, run by a small interpreter, and the real kernel's answers to it."""

from __future__ import annotations

import errno
import os
import platform
import struct
import subprocess
import sys

import pytest

from castoff.linux import seccomp

ALLOW = 0x7FFF0000
EPERM = 0x00050000 | errno.EPERM
ENOSYS = 0x00050000 | errno.ENOSYS
ARCHES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
SRC = os.path.join(os.path.dirname(__file__), "..", "..", "..", "src")


def run(program: bytes, arch: int, number: int, argument: int = 0) -> int:
    """Interpret a filter for one call, as the kernel would."""
    data = struct.pack("=IIQ6Q", number, arch, 0, argument, 0, 0, 0, 0, 0)
    code = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    at = accumulator = steps = 0
    operand: int
    while True:
        steps += 1
        assert steps < 30, "the search is too long"
        operation, true, false, operand = code[at]
        at += 1
        if operation == 0x20:
            accumulator = struct.unpack_from("=I", data, operand)[0]
        elif operation == 0x05:
            at += operand
        elif operation == 0x06:
            return operand
        else:
            taken = {0x15: accumulator == operand, 0x35: accumulator >= operand, 0x45: bool(accumulator & operand)}
            at += true if taken[operation] else false


@pytest.mark.parametrize("machine", list(ARCHES))
def test_calls_by_number(machine: str) -> None:
    program = seccomp.default_policy(machine)
    column = list(ARCHES).index(machine)
    for name, (first, second) in {
        "mount": (165, 40),
        "unshare": (272, 97),
        "setns": (308, 268),
        "bpf": (321, 280),
        "keyctl": (250, 219),
        "io_uring_setup": (425, 425),
        "fsopen": (430, 430),
        "open_tree": (428, 428),
        "userfaultfd": (323, 282),
        "kexec_load": (246, 104),
        "reboot": (169, 142),
    }.items():
        assert run(program, ARCHES[machine], (first, second)[column]) == EPERM, name
    for name, (first, second) in {
        "read": (0, 63),
        "write": (1, 64),
        "execve": (59, 221),
        "openat2": (437, 437),
        "ptrace": (101, 117),
        "chroot": (161, 51),
        "mknodat": (259, 33),
        "capset": (126, 91),
        "seccomp": (317, 277),
        "removexattrat": (466, 466),
        "faccessat2": (439, 439),
    }.items():
        assert run(program, ARCHES[machine], (first, second)[column]) == ALLOW, name


@pytest.mark.parametrize("machine", list(ARCHES))
def test_unknown_and_foreign_calls_do_not_exist(machine: str) -> None:
    program = seccomp.default_policy(machine)
    arch = ARCHES[machine]
    assert run(program, arch, 435) == ENOSYS  # clone3
    for number in (467, 468, 1000, 0x3FFFFFFF, 0x40000000, 0x40000001, 0xFFFFFFFF):
        assert run(program, arch, number) == ENOSYS, number
    for foreign in (0x40000003, 0x40000028, 0):  # i386, 32-bit ARM
        assert run(program, foreign, 1) == ENOSYS


@pytest.mark.parametrize("machine", list(ARCHES))
def test_arguments(machine: str) -> None:
    program = seccomp.default_policy(machine)
    arch = ARCHES[machine]
    column = list(ARCHES).index(machine)
    clone, personality, socket = ((56, 220)[column], (135, 92)[column], (41, 198)[column])
    assert run(program, arch, clone, 0x01200011) == ALLOW  # fork, as the C library does it
    assert run(program, arch, clone, 0x003D0F00) == ALLOW  # a thread
    for flag in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert run(program, arch, clone, 0x11 | flag) == EPERM, hex(flag)
    for value in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF):
        assert run(program, arch, personality, value) == ALLOW
    for value in (1, 0x40000, 0x0400000):
        assert run(program, arch, personality, value) == EPERM
    for family in (1, 2, 10, 16, 17):
        assert run(program, arch, socket, family) == ALLOW
    for family in (38, 40):
        assert run(program, arch, socket, family) == EPERM


def test_other_machines_have_no_policy() -> None:
    with pytest.raises(ValueError, match="riscv64"):
        seccomp.default_policy("riscv64")


KERNEL = """
import ctypes, errno, os, socket, sys
sys.path.insert(0, sys.argv[1])
from castoff.linux import seccomp, syscalls
syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
syscalls.seccomp_set_filter(seccomp.default_policy(os.uname().machine))
def code(action):
    try:
        action()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "ok"
print(code(lambda: syscalls.unshare(0x10000000)))
print(code(lambda: syscalls.fsopen("tmpfs")))
print(code(lambda: socket.socket(40, socket.SOCK_STREAM).close()))
print(code(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM).close()))
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall(435, None, 0)
print(errno.errorcode[ctypes.get_errno()])
pid = os.fork()
if pid == 0:
    os._exit(3)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ARCHES, reason="a kernel with a policy is missing"
)
def test_the_kernel_takes_it() -> None:
    result = subprocess.run([sys.executable, "-c", KERNEL, SRC], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["EPERM", "EPERM", "EPERM", "ok", "ENOSYS", "3"]
