"""Runs a further process in a running container, with the confinement of its first one.

Started by its path with ``python -I -S`` from the container's monitor, with the process' own standard streams. It joins
the namespaces of the container's first process, which is open as a descriptor so that no other can be mistaken for
it, and forks, since a process can't change its own process id namespace. It passes signals on, and ends as its child
does. SIGALRM has it kill its child's whole process group: what a health check's shell has started goes with it.

Arguments: the folder to import castoff from, the descriptor of a memory file with the request (JSON: ``argv``, ``env``,
``cwd``, ``uid``, ``gid``, ``groups``, ``user`` ("" for uid and gid as they are), ``terminal``, ``network``,
``privileged``, ``umask``, ``rlimits``, ``cgroups``), and the descriptor of the container's first process.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import io
    from types import FrameType
    from typing import Any, NoReturn

KILL_GROUP = signal.SIGALRM
_FORWARDED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
_FAILED = 125


class _LiveEntry:
    """A file of the running container, as `castoff.image.users` asks for it."""

    def __init__(self, path: str, is_file: bool) -> None:
        self.path = path
        self.is_file = is_file


class _LiveTree:
    """The root that this process is in, as `castoff.image.users` asks for it."""

    def resolve(self, path: bytes) -> str:
        return "/" + os.fsdecode(path)

    def lstat(self, path: str) -> _LiveEntry | None:
        try:
            return _LiveEntry(path, stat.S_ISREG(os.stat(path).st_mode))
        except OSError:
            return None

    def open_(self, entry: _LiveEntry) -> io.FileIO:
        import io

        descriptor = os.open(entry.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        return io.FileIO(descriptor, "r")


def _request(descriptor: int) -> dict[str, Any]:
    data = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    os.close(descriptor)
    request: dict[str, Any] = json.loads(data)
    for name in ("argv", "env"):
        request[name] = [os.fsencode(text) for text in request[name]]
    request["cwd"] = os.fsencode(request["cwd"])
    return request


def _fail(sentence: str, code: int = _FAILED) -> NoReturn:
    try:
        os.write(2, os.fsencode(f"error: {sentence}\n"))
    finally:
        os._exit(code)


def _join(pidfd: int, request: dict[str, Any]) -> None:
    from castoff.linux import namespaces, syscalls

    for path in request["cgroups"]:
        with open(path, "wb", buffering=0) as file:
            file.write(b"0")
    flags = namespaces.CLONE_NEWNS | namespaces.CLONE_NEWPID | namespaces.CLONE_NEWIPC | namespaces.CLONE_NEWUTS
    if request["network"] != "host":
        flags |= namespaces.CLONE_NEWNET
    # Nothing in the container may look into this process, or take hold of its program by way of /proc.
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    syscalls.setns(pidfd, flags)
    os.close(pidfd)
    # The root is the container's now: nothing may be imported from there.
    sys.path.clear()
    sys.meta_path.clear()


def _find_user(request: dict[str, Any], exec_user: Any) -> None:
    """Replace the name of a user by what the container's files say of it."""
    from castoff.errors import CastoffError

    try:
        user = exec_user(_LiveTree(), request["user"])
    except CastoffError as error:
        _fail(error.message, 126)
    request["uid"], request["gid"], request["groups"] = user.uid, user.gid, list(user.groups)
    if not any(entry.startswith(b"HOME=") for entry in request["env"]):
        request["env"].append(b"HOME=" + os.fsencode(user.home or "/"))


class _Parent:
    """Waits for the child, and passes signals on to it."""

    def __init__(self) -> None:
        self._child = 0
        self._early: list[int] = []
        for number in _FORWARDED:
            signal.signal(number, self._forward)
        signal.signal(KILL_GROUP, self._kill_group)

    def _kill_group(self, number: int, _: FrameType | None) -> None:
        if not self._child:
            os._exit(128 + number)
        for kill in (os.killpg, os.kill):  # until it has a group of its own, there is nothing but it
            try:
                kill(self._child, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def _forward(self, number: int, _: FrameType | None) -> None:
        if not self._child:
            self._early.append(number)
            return
        try:
            os.kill(self._child, number)
        except ProcessLookupError:
            return

    def fork(self) -> int:
        pid = os.fork()
        if pid:
            self._child = pid
            for number in self._early:
                self._forward(number, None)
        return pid

    def wait(self) -> int:
        # It is reaped with signals blocked: they must not be passed on to whoever gets its number next.
        os.waitid(os.P_PID, self._child, os.WEXITED | os.WNOWAIT)
        signal.pthread_sigmask(signal.SIG_BLOCK, (*_FORWARDED, KILL_GROUP))
        _, status = os.waitpid(self._child, 0)
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code


def _be_child(launcher: Any) -> NoReturn:
    try:
        for number in range(1, signal.NSIG):
            if signal.getsignal(number) not in (signal.SIG_DFL, None) and number not in (
                signal.SIGKILL,
                signal.SIGSTOP,
            ):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        launcher.confine()
        launcher.execute()
    except OSError as error:
        _fail(f"the process can't be set up: {launcher.step}: {os.strerror(error.errno or 0)}")
    finally:
        os._exit(_FAILED)


def main(arguments: list[str]) -> int:
    """Join, fork and wait; return the exit code."""
    sys.path.append(arguments[0])
    from castoff.linux import seccomp, syscalls
    from castoff.sandbox import launch

    request = _request(int(arguments[1]))
    exec_user: Any = None
    if request["user"]:
        from castoff.image.users import exec_user
    program = seccomp.default_policy(syscalls.machine())
    launcher = launch.Launcher(request, program, launch.last_capability())
    parent = _Parent()
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        _join(int(arguments[2]), request)
    except OSError as error:
        _fail(f"the container can't be entered: {os.strerror(error.errno or 0)}")
    if request["user"]:
        _find_user(request, exec_user)
    try:
        pid = parent.fork()
    except OSError as error:
        _fail(f"the process can't be started, the container may have ended: {os.strerror(error.errno or 0)}")
    if pid == 0:
        _be_child(launcher)
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)  # the child alone has them: else its reader would wait for this process too
    return parent.wait()


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))
