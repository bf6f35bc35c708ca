"""The last steps of a sandbox' child: limits, system call filter, identity, and the program itself.

Imports little, and nothing while it works: see `castoff.sandbox.zygote`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import stat
import termios

from castoff.linux import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

_SIGKILL = 9
_NOT_EXECUTABLE = 126
_NOT_FOUND = 127
_MAX_SCRIPTS = 6  # the kernel follows five

# Docker's default set: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, NET_RAW,
# SYS_CHROOT, MKNOD, AUDIT_WRITE, SETFCAP.
DEFAULT_CAPABILITIES = (0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31)
_DEFAULT_PATH = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def last_capability() -> int:
    """Return the number of the kernel's last capability."""
    try:
        with open("/proc/sys/kernel/cap_last_cap", "rb") as file:
            return int(file.read())
    except OSError:
        return 40


class Launcher:
    """Turns the child into the program that was asked for.

    Attributes:
        step: what is being done, for a message should it fail.
    """

    def __init__(self, request: dict[str, Any], program: bytes, last: int) -> None:
        """Take a request of `castoff.sandbox.wire`, a BPF program and the number of the last capability."""
        self.step = "launch"
        self._request = request
        self._filter = program
        self._last_capability = last

    def confine(self) -> None:
        """Set limits, filter and identity.

        Raises:
            OSError: the kernel refused; `step` says what.
        """
        request = self._request
        self.step = "start a session"
        os.setsid()
        if request["terminal"]:
            self.step = "take the terminal"
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        for name, soft, hard in request["rlimits"]:
            self.step = f"limit {name}"
            number = getattr(resource, "RLIMIT_" + name.upper(), None)
            if number is None:
                raise OSError(errno.EINVAL, f"there is no limit called {name}")
            try:
                resource.setrlimit(number, (soft, hard))
            except ValueError as error:
                raise OSError(errno.EPERM, str(error)) from error
        self._change_directory()
        # Without no_new_privs (set-user-ID programs must work) a filter needs the capabilities that go away next.
        if not request["privileged"]:
            self.step = "install the system call filter"
            syscalls.seccomp_set_filter(self._filter)
            self.step = "drop capabilities"
            for number in range(self._last_capability + 1):
                if number not in DEFAULT_CAPABILITIES:
                    syscalls.prctl(syscalls.PR_CAPBSET_DROP, number)
        self.step = "change to the user"
        os.setgroups(request["groups"])
        os.setresgid(request["gid"], request["gid"], request["gid"])
        os.setresuid(request["uid"], request["uid"], request["uid"])
        if request["uid"] == 0 and not request["privileged"]:
            self.step = "drop capabilities"
            mask = sum(1 << number for number in DEFAULT_CAPABILITIES)
            syscalls.capset(mask, mask, 0)
        # A change of user clears it, so this comes last.
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, _SIGKILL)
        os.umask(request["umask"])

    def _change_directory(self) -> None:
        """Enter the working directory, still as root: as elsewhere, the user need not be able to read it.

        It is the image's to name, and this process has descriptors of the host yet: no magic link is followed.
        """
        cwd: bytes = self._request["cwd"]
        flags = os.O_PATH | os.O_DIRECTORY
        try:
            folder = syscalls.openat2(syscalls.AT_FDCWD, cwd, flags, 0, syscalls.RESOLVE_NO_MAGICLINKS)
            os.fchdir(folder)
            os.close(folder)
        except OSError as error:
            _end(f'working directory "{os.fsdecode(cwd)}": {_strerror(error)}', _NOT_EXECUTABLE)

    def execute(self) -> NoReturn:
        """Become the program; ends the process with 126 or 127 and a sentence where that can't be done."""
        argv: list[bytes] = self._request["argv"]
        env: list[bytes] = self._request["env"]
        syscalls.close_range(3, flags=syscalls.CLOSE_RANGE_CLOEXEC)
        name = argv[0]
        if b"/" in name:
            _execute_path(name, argv, env)
        denied = False
        for folder in _search_path(env).split(b":"):
            path = os.path.join(folder or b".", name)
            try:
                mode = os.stat(path).st_mode
            except OSError:
                continue
            if stat.S_ISDIR(mode) or not os.access(path, os.X_OK):
                denied = True
                continue
            _execute_path(path, argv, env)
        shown = _quote(name)
        if denied:
            _end(f"exec: {shown}: permission denied", _NOT_EXECUTABLE)
        _end(f"exec: {shown}: executable file not found in $PATH", _NOT_FOUND)


def _search_path(env: Sequence[bytes]) -> bytes:
    for entry in reversed(env):
        if entry.startswith(b"PATH="):
            return entry[5:]
    return _DEFAULT_PATH


def _execute_path(path: bytes, argv: Sequence[bytes], env: Sequence[bytes]) -> NoReturn:
    shown = _quote(path)
    if _leads_to_own_program(path):
        # Such as /proc/self/exe: until the exec, this process is the host's Python, which no image may run or hold.
        _end(f"exec: {shown}: is a program of the host, not of the image", _NOT_EXECUTABLE)
    try:
        syscalls.execve(path, argv, env)
    except OSError as error:
        code = error.errno
        if code == errno.ENOEXEC:
            sentence = f"exec: {shown}: exec format error (made for another machine, or a script without #! line)"
        elif code == errno.ENOENT and os.path.exists(path):
            sentence = f"exec: {shown}: its interpreter or loader (the #! line, or ld.so) does not exist"
        elif code == errno.EACCES and os.path.isdir(path):
            sentence = f"exec: {shown}: is a directory"
        else:
            sentence = f"exec: {shown}: {_strerror(error)}"
        _end(sentence, _NOT_FOUND if code in (errno.ENOENT, errno.ENOTDIR) else _NOT_EXECUTABLE)
    raise AssertionError("execve returned")


def _leads_to_own_program(path: bytes) -> bool:
    """Tell whether a path, or the interpreter that its #! line names, is the program that this process runs."""
    own = os.stat("/proc/self/exe")
    for _ in range(_MAX_SCRIPTS):
        try:
            found = os.stat(path)
            if (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino):
                return True
            if not stat.S_ISREG(found.st_mode):
                return False
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            head = os.read(descriptor, 256)
        finally:
            os.close(descriptor)
        words = head[2:].split(b"\n", 1)[0].split()
        if head[:2] != b"#!" or not words:
            return False
        path = words[0]
    return False


def _quote(name: bytes) -> str:
    return '"' + os.fsdecode(name) + '"'


def _strerror(error: OSError) -> str:
    return os.strerror(error.errno or errno.EIO).lower()


def _end(sentence: str, code: int) -> NoReturn:
    try:
        os.write(2, os.fsencode(sentence) + b"\n")
    finally:
        os._exit(code)
