"""One life of the service, in a process of its own: isolate, start, ask, stop, report.

The parent writes a job as JSON to stdin and reads a result as JSON from stdout. Being a process of its own, the session
can enter namespaces and ask from inside of them, and nothing that goes wrong in it stays behind.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # run by its path, isolated from everything that is installed
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import contextlib

from castoff_freeze import isolation
from castoff_freeze.isolation import Isolation, Process

if TYPE_CHECKING:
    from castoff_freeze.watching import Watcher

_ANSWER_SECONDS = 30.0
_STOP_SECONDS = 15.0
_MAX_BODY = 64 << 20
_MAX_OUTPUT = 4 << 20
_TAIL = 8000


@dataclass(frozen=True, slots=True)
class Job:
    """What a session does.

    Attributes:
        root: folder that becomes ``/``.
        argv: the launcher and what follows.
        environment: variables of the process.
        folder: working folder.
        uid: user to run as.
        wanted: isolation, or "auto" for the strongest that is permitted.
        port: on which the service listens.
        ready: path that says so, or "".
        start_seconds: how long it may take.
        pause: seconds between readiness and the first request.
        requests: each method, path, headers, body in base64.
        commands: each arguments, stdin in base64; where there are any, no service is started.
        must_read: paths that the user has to be able to read; else the session runs as this process's own user.
        plain_argv: the command line where no root can be entered; none for the same.
    """

    root: str
    argv: Sequence[str]
    environment: dict[str, str]
    folder: str = "/"
    uid: int = 65532
    wanted: str = "auto"
    port: int = 8000
    ready: str = ""
    start_seconds: float = 30.0
    pause: float = 0.0
    requests: Sequence[Sequence[Any]] = ()
    commands: Sequence[Sequence[Any]] = ()
    must_read: Sequence[str] = ()
    plain_argv: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request or a command gave.

    Attributes:
        status: status code, or exit code.
        kind: content type, or "".
        body: the body, or standard output.
        error: why there was no answer, or "".
    """

    status: int
    kind: str
    body: bytes
    error: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a session.

    Attributes:
        isolation: what it ran in.
        network: whether it could reach more than itself.
        uid: user that it ran as.
        answers: one for each request or command; fewer where the service never became ready.
        log: the end of what the service wrote to stdout and stderr.
        failure: why it never became ready, or "".
    """

    isolation: Isolation
    network: bool
    uid: int
    answers: Sequence[Answer]
    log: str
    failure: str = ""


def hold(job: Job, python: str, watcher: Watcher | None = None) -> Report:
    """Hold a session in a process of its own.

    Args:
        job: what to do.
        python: the interpreter of the session itself.
        watcher: is started when the session's own modules are loaded; the caller stops it.

    Raises:
        OSError: the session's process could not be started, or ended without a report.
    """
    with subprocess.Popen(
        [python, "-I", "-S", os.path.abspath(__file__)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
    ) as process:
        assert process.stdout is not None
        try:
            process.stdout.readline()
            if watcher is not None:
                watcher.start(process.pid)
            output, complaint = process.communicate(json.dumps(asdict(job)).encode())
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        said = complaint.decode(errors="replace").strip().splitlines()
        raise OSError(0, said[-1] if said else f"the session ended with code {process.returncode}")
    result = json.loads(output)
    answers = [Answer(item[0], item[1], base64.b64decode(item[2]), item[3]) for item in result.pop("answers")]
    return Report(answers=answers, **result)


def _main() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    job = Job(**json.load(sys.stdin))
    chosen, uid = _isolate(job)
    network = isolation.has_network()
    with tempfile.TemporaryFile() as log:
        runner = _Runner(job, chosen, uid, log.fileno())
        failure = ""
        answers: list[Answer] = []
        if job.commands:
            answers = [runner.command(arguments, base64.b64decode(stdin)) for arguments, stdin in job.commands]
        else:
            failure = runner.serve(answers)
        size = log.seek(0, os.SEEK_END)
        log.seek(max(0, size - _TAIL))
        tail = log.read().decode(errors="replace")
    packed = [(item.status, item.kind, base64.b64encode(item.body).decode(), item.error) for item in answers]
    json.dump(
        {"isolation": chosen, "network": network, "uid": uid, "answers": packed, "log": tail, "failure": failure},
        sys.stdout,
    )


def _isolate(job: Job) -> tuple[Isolation, int]:
    """Enter the strongest isolation that is permitted, or the one that is wanted; return it and the user."""
    uid = job.uid
    if not isolation.readable_as(uid, job.must_read):
        uid = os.geteuid()
    if job.wanted in ("auto", "namespaces"):
        try:
            isolation.enter(uid)
        except OSError:
            if job.wanted == "namespaces":
                raise
        else:
            return "namespaces", uid
    if job.wanted in ("auto", "chroot"):
        if isolation.can_chroot(job.root):
            return "chroot", uid
        if job.wanted == "chroot":
            raise PermissionError(1, "this process may not change its root folder")
    return "none", os.geteuid()


class _Runner:
    """Starts processes of one job."""

    def __init__(self, job: Job, chosen: Isolation, uid: int, log: int) -> None:
        self._job = job
        self._log = log
        argv = job.plain_argv if chosen == "none" and job.plain_argv else job.argv
        self._process = Process(job.root, argv, job.environment, job.folder, uid, chosen)

    def serve(self, answers: list[Answer]) -> str:
        """Start the service, ask everything, stop it; return why it was not ready, or ""."""
        null = os.open(os.devnull, os.O_RDONLY)
        child = isolation.start(self._process, null, self._log, self._log)
        ended: int | None = None
        try:
            failure, ended = self._wait_ready(child)
            if not failure:
                time.sleep(self._job.pause)
                for method, path, headers, body in self._job.requests:
                    answers.append(ask(self._job.port, method, path, headers, base64.b64decode(body)))
        finally:
            if ended is None:
                _stop(child)
        return failure

    def _wait_ready(self, child: int) -> tuple[str, int | None]:
        until = time.monotonic() + self._job.start_seconds
        while time.monotonic() < until:
            done, code = os.waitpid(child, os.WNOHANG)
            if done:
                return f"it ended with code {os.waitstatus_to_exitcode(code)} before it was ready", code
            try:
                if self._job.ready:
                    if not ask(self._job.port, "GET", self._job.ready, {}, b"").error:
                        return "", None
                else:
                    socket.create_connection(("127.0.0.1", self._job.port), timeout=5).close()
                    return "", None
            except OSError:
                pass
            time.sleep(0.02)
        return f"nothing listened on port {self._job.port} within {self._job.start_seconds:g} seconds", None

    def command(self, arguments: Sequence[str], stdin: bytes) -> Answer:
        """Run the entry once and return its exit code and output."""
        job = self._job
        process = replace(self._process, argv=[*self._process.argv, *arguments])
        with tempfile.TemporaryFile() as given:
            given.write(stdin)
            given.seek(0)
            reading, writing = os.pipe()
            child = isolation.start(process, given.fileno(), writing, self._log)
            os.close(writing)
            output, error = _read_all(reading, time.monotonic() + job.start_seconds)
            os.close(reading)
            if error:
                _kill(child)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return Answer(code, "", output, error)


def ask(port: int, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
    """Ask one request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ANSWER_SECONDS)
    try:
        connection.request(method, path, body or None, {"connection": "close", **headers})
        response = connection.getresponse()
        text = response.read(_MAX_BODY)
        return Answer(response.status, response.getheader("content-type") or "", text)
    except (OSError, http.client.HTTPException) as error:
        return Answer(0, "", b"", f"{type(error).__name__}: {error}")
    finally:
        connection.close()


def _read_all(descriptor: int, until: float) -> tuple[bytes, str]:
    parts: list[bytes] = []
    size = 0
    while size < _MAX_OUTPUT:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            return b"".join(parts), "it did not end in time"
        part = os.read(descriptor, 1 << 16)
        if not part:
            return b"".join(parts), ""
        parts.append(part)
        size += len(part)
    return b"".join(parts), f"it wrote more than {_MAX_OUTPUT} bytes"


def _stop(child: int) -> None:
    """Ask a process to end as container engines do, and kill what is left of it."""
    os.kill(child, signal.SIGTERM)
    until = time.monotonic() + _STOP_SECONDS
    while time.monotonic() < until:
        if os.waitpid(child, os.WNOHANG)[0]:
            return
        time.sleep(0.02)
    _kill(child)
    os.waitpid(child, 0)


def _kill(child: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)


if __name__ == "__main__":
    try:
        _main()
    except OSError as error:
        sys.stderr.write(f"{error.strerror or error}\n")
        sys.exit(4)
