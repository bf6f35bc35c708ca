"""What castoff asks of a container's monitor: starting it, stopping the container, attaching to it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from castoff.containers.channel import connect, receive_message, send_request
from castoff.containers.containerstore import NoContainerError
from castoff.containers.record import LOST_CODE
from castoff.errors import CastoffError, SandboxError, UsageError

if TYPE_CHECKING:
    from castoff.containers.containerstore import Container, ContainerStore

_PAUSE = 0.01


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
        ports: what is published, in the form of ``-p``, with the host's ports filled in.
        client: the connection of the first client, where one was asked for.
    """

    warnings: tuple[str, ...]
    code: int | None = None
    error: str = ""
    ports: tuple[str, ...] = ()
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
    return Started(warnings, report.get("code"), report.get("error", ""), tuple(report["ports"]), client)


def forget_groups(container: Container) -> None:
    """Remove the control groups of a container that does not run, which stay where its monitor was killed."""
    from castoff.containers.cgroups import Cgroup

    with contextlib.suppress(CastoffError):
        record = container.record()
        if record.limits:
            Cgroup.create(record.id[:12], record.limits).remove()


def sweep(containers: ContainerStore) -> None:
    """Remove what nobody else will: halves of containers, and those with ``--rm`` whose monitor was killed. Idempotent.

    The caller must be in castoff's user namespace. Never fails; what can't be removed now stays for the next time.
    """
    containers.sweep()
    for container in containers:
        with contextlib.suppress(CastoffError, OSError):
            if container.is_alive() or not container.record().auto_remove:
                continue
            lock = container.take(at_once=True)
            try:
                forget_groups(container)
                container.remove()
            finally:
                os.close(lock)


def ask(container: Container, request: dict[str, Any], descriptors: tuple[int, ...] = ()) -> socket.socket:
    """Send a request to the monitor of a container, and return the connection.

    Raises:
        NotRunningError: the container does not run.
        UsageError: the request is too long.
    """
    not_running = NotRunningError(
        f"the container {container.id[:12]} is not running", hint=f"castoff start {container.id[:12]}"
    )
    try:
        end = connect(container.path)
    except OSError as error:
        raise not_running from error
    try:
        send_request(end, request, descriptors)
    except OSError as error:
        end.close()
        if error.errno in (errno.EPIPE, errno.ECONNRESET):
            raise not_running from error  # it has just ended
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


def stop(container: Container, *, number: int = 0, timeout: float | None = None) -> None:
    """Ask a container to end, kill it if it does not, and wait until its end is written down.

    Args:
        container: running or not.
        number: the signal; 0 for the container's own stop signal.
        timeout: seconds until it is killed: 0 for at once, negative for never, None for the container's own.

    Raises:
        SandboxError: the monitor can't do it.
    """
    end = begin_to_stop(container, number=number, timeout=timeout)
    if end is not None:
        finish_to_stop(container, end)


def begin_to_stop(container: Container, *, number: int = 0, timeout: float | None = None) -> socket.socket | None:
    """Do the first half of `stop`, so that several containers can end at once; None where it does not run."""
    return _ask_until_ended(container, {"op": "stop", "signal": number, "timeout": timeout})


def finish_to_stop(container: Container, end: socket.socket) -> None:
    """Do the second half of `stop`; the connection is closed.

    Raises:
        SandboxError: the monitor can't do it.
    """
    with end:
        answered = bool(receive(end))
    if not answered:
        _await_end(container)


def _ask_until_ended(container: Container, request: dict[str, Any]) -> socket.socket | None:
    """Send a request, also to a monitor that is only about to listen; None where the container has ended.

    A monitor that is about to end listens until it has written that down.
    """
    while True:
        try:
            return ask(container, request)
        except NotRunningError:
            if _has_ended(container):
                return None
        time.sleep(_PAUSE)


def _has_ended(container: Container) -> bool:
    try:
        return container.state().status == "exited" or not container.is_alive()
    except NoContainerError:
        return True


def _await_end(container: Container) -> None:
    """Wait until the end of a container that no monitor listens for any more can be read: the kernel, or another
    process that holds the lock, may take a moment."""
    while not _has_ended(container):
        time.sleep(_PAUSE)


def exit_code(container: Container) -> int:
    """Return the exit code of a container whose monitor has gone without telling it; 255 where it is removed."""
    _await_end(container)
    try:
        return container.state().exit_code
    except NoContainerError:
        return LOST_CODE


def wait(container: Container) -> int:
    """Wait for the end of a container, and return its exit code.

    Raises:
        NoContainerError: it is gone.
    """
    end = _ask_until_ended(container, {"op": "wait"})
    if end is None:
        return container.state().exit_code
    with end:
        code = receive(end).get("code")
    return exit_code(container) if code is None else int(code)
