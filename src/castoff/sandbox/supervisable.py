"""Whether this machine lets castoff supervise processes: what steps with one mapped id need."""

from __future__ import annotations

import errno
import os

from castoff.errors import UnsupportedError
from castoff.linux import notify, syscalls

_FEATURE = "seccomp user notification"


def check_supervisable() -> None:
    """Find out whether processes can be supervised here, by trying it in a process of its own.

    Raises:
        UnsupportedError: they can't; the hint says what to do.
    """
    try:
        program = notify.trap_filter(syscalls.machine(), ("setgroups",), {})
    except ValueError as error:
        raise UnsupportedError(str(error), feature=_FEATURE, hint="use x86-64 or aarch64, or a subuid range") from error
    code = _attempt(program)
    if code == errno.EBUSY:
        raise UnsupportedError(
            "another program supervises this process already, and a process can have one supervisor only",
            feature=_FEATURE,
            hint="start castoff outside of it, or give the user a range of subordinate ids",
        )
    if code:
        raise UnsupportedError(
            f"the kernel gives no seccomp user notification: {os.strerror(code)}",
            feature=_FEATURE,
            hint="it takes Linux 5.12 with CONFIG_SECCOMP_FILTER, and no policy that forbids seccomp(2)",
        )


def _attempt(program: bytes) -> int:
    """Return the errno with which a child of this process may not install a filter with a listener; 0 if it may."""
    child = os.fork()
    if child == 0:
        code = errno.EIO
        try:
            syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
            notify.install(program)
            code = 0
        except OSError as error:
            code = min(error.errno or errno.EIO, 255)
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else errno.EIO
