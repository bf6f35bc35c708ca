"""What castoff asks of a container's monitor: starting it, stopping the container, attaching to it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from castoff.containers.channel import connect, receive_message, send_request
from castoff.errors import CastoffError, SandboxError, UsageError

if TYPE_CHECKING:
    from castoff.containers.containerstore import Container


class NotRunningError(UsageError):
    """The container does not run, and only with a running one can that be done."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Started:
    """What became of a start.

    Attributes:
        warnings: what the user should know.
        code: the exit code where the program can't be executed (126) or was not found (127); None where it runs.
        error: one sentence about that.
        client: the connection of the first client, where one was asked for.
    """

    warnings: tuple[str, ...]
    code: int | None = None
    error: str = ""
    client: socket.socket | None = None


def start_monitor(container: Container, lock: int, *, attach: bool = False) -> Started:
    """Start a container's monitor, which lives on, and with it the container.

    Args:
        container: one that does not run; an ordinary user must be in castoff's user namespace.
        lock: what `Container.take` returned; it is closed here.
        attach: whether to connect with its streams, before anything is printed.

    Raises:
        SandboxError: a port is in use, or the container can't be started on this machine.
    """
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "monitor.py")
    source = os.path.dirname(os.path.dirname(os.path.dirname(script)))
    read_end, write_end = os.pipe()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) if attach else (None, None)
    first = theirs.fileno() if theirs is not None else -1
    passed = [descriptor for descriptor in (lock, write_end, first) if descriptor >= 0]
    try:
        with open(f"{container.path}/monitor.log", "wb") as complaints:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", script, source, container.path, *map(str, (lock, write_end, first))],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=complaints,
                pass_fds=passed,
                start_new_session=True,
                cwd="/",
            )
    except OSError as error:
        raise SandboxError(f"the container's monitor can't be started: {error.strerror}") from error
    finally:
        os.close(lock)
        os.close(write_end)
        if theirs is not None:
            theirs.close()
    with open(read_end, "rb") as file:
        answer = file.read()
    # The monitor lives on, as a child of the system's first process once this one has ended.
    process.returncode = 0
    if not answer:
        raise SandboxError(
            "the container's monitor ended unexpectedly", hint=f"{container.path}/monitor.log may say why"
        )
    return _started(json.loads(answer), ours)


def _started(report: dict[str, Any], client: socket.socket | None) -> Started:
    warnings = tuple(report["warnings"])
    if "error" in report and report.get("code") is None:
        raise SandboxError(report["error"], hint=report["hint"])
    return Started(warnings, report.get("code"), report.get("error", ""), client)


def forget_groups(container: Container) -> None:
    """Remove the control groups of a container that does not run, which stay where its monitor was killed."""
    from castoff.containers.cgroups import Cgroup

    with contextlib.suppress(CastoffError):
        record = container.record()
        if record.limits:
            Cgroup.create(record.id[:12], record.limits).remove()


def ask(container: Container, request: dict[str, Any], descriptors: tuple[int, ...] = ()) -> socket.socket:
    """Send a request to the monitor of a container, and return the connection.

    Raises:
        NotRunningError: the container does not run.
        UsageError: the request is too long.
    """
    try:
        end = connect(container.path)
    except OSError as error:
        raise NotRunningError(
            f"the container {container.id[:12]} is not running", hint=f"castoff start {container.id[:12]}"
        ) from error
    try:
        send_request(end, request, descriptors)
    except OSError as error:
        end.close()
        raise UsageError(f"the container {container.id[:12]} can't be asked: {error.strerror}") from error
    return end


def receive(end: socket.socket) -> dict[str, Any]:
    """Wait for the reply to a request; one that is empty means that the monitor has gone without one.

    Raises:
        SandboxError: the monitor says that it can't be done.
    """
    data = receive_message(end)
    reply: dict[str, Any] = json.loads(data) if data else {}
    if "error" in reply and "code" not in reply:
        raise SandboxError(reply["error"], hint=reply.get("hint"))
    return reply


def stop(container: Container, *, number: int = 0, timeout: float | None = None) -> int | None:
    """Ask a container to end, kill it if it does not, and wait for that; return its exit code, None where unknown.

    Args:
        container: running or not.
        number: the signal; 0 for the container's own stop signal.
        timeout: seconds until it is killed: 0 for at once, negative for never, None for the container's own.

    Raises:
        SandboxError: the monitor can't do it.
    """
    end = begin_to_stop(container, number=number, timeout=timeout)
    return None if end is None else finish_to_stop(end)


def begin_to_stop(container: Container, *, number: int = 0, timeout: float | None = None) -> socket.socket | None:
    """Do the first half of `stop`, so that several containers can end at once; None where it does not run."""
    try:
        return ask(container, {"op": "stop", "signal": number, "timeout": timeout})
    except NotRunningError:
        return None


def finish_to_stop(end: socket.socket) -> int | None:
    """Do the second half of `stop`; the connection is closed.

    Raises:
        SandboxError: the monitor can't do it.
    """
    with end:
        return receive(end).get("code")


def wait(container: Container) -> int:
    """Wait for the end of a container, and return its exit code.

    Raises:
        NoContainerError: it is gone.
    """
    try:
        end = ask(container, {"op": "wait"})
    except NotRunningError:
        return container.state().exit_code
    with end:
        code = receive(end).get("code")
    return container.state().exit_code if code is None else int(code)
