"""Further processes in a running container: what ``castoff exec`` starts, and health checks."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

from castoff.linux import syscalls
from castoff.sandbox.interpreter import start_python

if TYPE_CHECKING:
    from collections.abc import Callable

    from castoff.containers.loop import Loop
    from castoff.sandbox.spec import ProcessSpec

MAX_OUTPUT = 4096
"""How much is kept of what a health check prints, in bytes; Docker's limit."""


def exec_request(spec: ProcessSpec, request: dict[str, Any], cgroups: tuple[str, ...]) -> dict[str, Any]:
    """Return the request of `castoff.containers.enter` for a process beside the first one of a container.

    Args:
        spec: of the first one.
        request: ``argv``, and where it is to be otherwise ``env``, ``cwd``, ``user``, ``terminal``, ``privileged``.
        cgroups: files by which it joins the container's control groups.

    Raises:
        ValueError: the request makes no sense.
    """
    given = [str(item) for item in request.get("env", ())]
    user = str(request.get("user", ""))
    keys = {item.partition("=")[0] for item in given} | ({"HOME"} if user else set())
    argv = [str(item) for item in request["argv"]]
    cwd = str(request.get("cwd") or spec.cwd)
    if not argv or not argv[0] or not cwd.startswith("/") or any("\0" in text for text in (*argv, *given, cwd, user)):
        raise ValueError("there is no command, or it holds what no command can")
    return {
        "argv": argv,
        "env": [item for item in spec.env if item.partition("=")[0] not in keys] + given,
        "cwd": cwd,
        "uid": spec.uid,
        "gid": spec.gid,
        "groups": list(spec.groups),
        "user": user,
        "terminal": bool(request.get("terminal")),
        "network": spec.network.value,
        "privileged": spec.privileged or bool(request.get("privileged")),
        "umask": spec.umask,
        "rlimits": [list(limit) for limit in spec.rlimits],
        "cgroups": list(cgroups),
    }


class Further:
    """One further process. Nothing of it outlives the container's first one: the kernel sees to that."""

    def __init__(
        self, loop: Loop, request: dict[str, Any], pid: int, stdio: tuple[int, int, int], ended: Callable[[int], None]
    ) -> None:
        """Start it.

        Args:
            loop: calls back.
            request: see `exec_request`.
            pid: of the container's first process on the host.
            stdio: its standard streams, which stay the caller's.
            ended: called with its exit code.

        Raises:
            OSError: the container's process has ended, or no process can be started.
        """
        self._loop = loop
        self._ended = ended
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "enter.py")
        source = os.path.dirname(os.path.dirname(os.path.dirname(script)))
        first = syscalls.pidfd_open(pid)
        memory = os.memfd_create("castoff-exec", os.MFD_CLOEXEC)
        try:
            with open(memory, "wb", closefd=False) as file:
                file.write(json.dumps(request).encode())
            self._process = start_python(
                ["-I", "-S", script, source, str(memory), str(first)],
                stdin=stdio[0],
                stdout=stdio[1],
                stderr=stdio[2],
                pass_fds=(memory, first),
                start_new_session=True,
                cwd="/",
            )
        finally:
            os.close(memory)
            os.close(first)
        self._pidfd = syscalls.pidfd_open(self._process.pid)
        loop.watch(self._pidfd, self._reap)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        if 0 < number < signal.NSIG and self._process.returncode is None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """Kill it. Idempotent."""
        self.signal(signal.SIGKILL)

    def _reap(self) -> None:
        self._loop.forget(self._pidfd)
        os.close(self._pidfd)
        code = self._process.wait()
        self._ended(code if code >= 0 else 128 - code)

    def finish(self) -> None:
        """Kill it, and wait for its end. Idempotent."""
        if self._process.returncode is None:
            self.kill()
            self._reap()


class Check:
    """One health check: a further process with a time limit, of whose output the end is kept."""

    def __init__(self, loop: Loop, timeout: float, ended: Callable[[bool, str], None]) -> None:
        """Prepare it.

        Args:
            loop: calls back.
            timeout: in seconds.
            ended: called with whether it passed, and what it printed.
        """
        self._loop = loop
        self._timeout = timeout
        self._ended = ended
        self._timed_out = False
        self._kept = b""
        self._output = -1
        self._further: Further | None = None

    def start(self, request: dict[str, Any], pid: int) -> None:
        """Start it.

        Raises:
            OSError: the container's process has ended, or no process can be started.
        """
        self._output, write_end = os.pipe()
        os.set_blocking(self._output, False)
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._further = Further(self._loop, request, pid, (null, write_end, write_end), self._finished)
        except OSError:
            os.close(self._output)
            raise
        finally:
            os.close(null)
            os.close(write_end)
        self._loop.watch(self._output, self._read)
        self._loop.after(self, self._timeout, self._overdue)

    def _overdue(self) -> None:
        self._timed_out = True
        if self._further is not None:
            self._further.kill()

    def _read(self) -> None:
        try:
            data = os.read(self._output, 1 << 16)
        except BlockingIOError:
            return
        self._kept = (self._kept + data)[:MAX_OUTPUT]
        if not data:
            self._loop.forget(self._output)

    def _finished(self, code: int) -> None:
        self._loop.cancel(self)
        self._read()
        self._loop.forget(self._output)
        os.close(self._output)
        text = self._kept.decode("utf-8", "replace")
        if self._timed_out:
            text = f"Health check exceeded timeout ({self._timeout:g}s){': ' * bool(text)}{text}"
        self._ended(code == 0 and not self._timed_out, text)

    def finish(self) -> None:
        """Kill it, and wait for its end; nobody is told. Idempotent."""
        self._ended = lambda _passed, _text: None
        if self._further is not None:
            self._further.finish()
