"""The last steps of a process in a changed root, where castoff is root with few capabilities and no namespaces.

Imports little: see `castoff.sandbox.zygote`.
"""

from __future__ import annotations

from castoff.linux import syscalls
from castoff.sandbox.launch import DEFAULT_CAPABILITIES, Launcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# With SYS_CHROOT a process leaves a changed root; with MKNOD it makes a device of the host's, which no mount disarms.
_WITHHELD = (18, 27)
REFUSED = ("chroot", "process_vm_readv", "process_vm_writev", "ptrace")
"""Calls by which a process reaches others of the same user, or leaves its root; no namespace stands in the way."""


class PlainLauncher(Launcher):
    """Turns a child into the program that was asked for. Made before the root is changed: it needs /proc."""

    def __init__(self, request: dict[str, Any], program: bytes, last: int) -> None:
        """Take a request of `castoff.sandbox.wire`, a BPF program and the number of the last capability."""
        super().__init__(request, program, last)
        self._permitted = _permitted()

    def _restrict(self) -> None:
        """Install the filter, which without CAP_SYS_ADMIN takes that set-user-ID programs give nothing."""
        self.step = "install the system call filter"
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        syscalls.seccomp_set_filter(self._filter)

    def _kept_capabilities(self) -> int:
        """Return the mask of the capabilities that root keeps."""
        kept = sum(1 << number for number in DEFAULT_CAPABILITIES if number not in _WITHHELD)
        return kept & self._permitted


def _permitted() -> int:
    with open("/proc/self/status", "rb") as file:
        for line in file:
            if line.startswith(b"CapPrm:"):
                return int(line.split()[1], 16)
    return 0
