"""The monitor of one container: starts it, keeps its log, answers for it, and writes down how it ends.

Started by its path with ``python -I -S``, detached from the terminal, in the user namespace that castoff has entered.
The container lives as long as its monitor: ports are forwarded, and processes started, by children of it that end
when it does.

Arguments: the folder to import castoff from, the container's folder, the descriptor that holds the container's lock,
the descriptor for the report on the start, and that of the first client's connection, -1 for none. The report is a JSON
object: ``ok``, or ``error`` and ``hint``; ``code`` where the program could not be executed; ``warnings``; ``ports``.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from castoff.containers.clients import Client
    from castoff.containers.containerstore import Container

_FLUSH_TIME = 10.0
_LONG_RUN = 10.0
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 60.0
_BAD_START = (126, 127)


class Monitor:
    """Watches over one container until it has ended for good."""

    def __init__(self, container: Container, lock: int, report: int) -> None:
        from castoff.containers.channel import listen_in
        from castoff.containers.logs import LogWriter
        from castoff.containers.loop import Loop
        from castoff.containers.output import Output
        from castoff.containers.supervisor import Supervisor

        self._container = container
        self._lock = lock
        self._report = report
        self._record = container.record()
        self._loop = Loop()
        self._log = LogWriter(container.path)
        self._supervisor = Supervisor(container, self._record, self._loop, self._exited)
        self._output = Output(
            self._loop,
            self._log,
            terminal=self._record.tty,
            interactive=self._record.interactive,
            signalled=self._pass_on,
        )
        self._listener = listen_in(container.path)
        self._attached: list[Client] = []
        self._waiting: list[Client] = []
        self._stopping = False
        self._pause = _FIRST_PAUSE
        self._finished = False
        self._wake_read, self._wake_write = os.pipe()

    def run(self, first: socket.socket | None) -> None:
        """Start the container and stay until its end."""
        from castoff.containers.clients import Client
        from castoff.errors import CastoffError

        if first is not None:
            self._attach(Client(self._loop, first, self._dropped))
        self._catch_signals()
        try:
            self._supervisor.prepare()
            self._start(first_time=True)
        except (CastoffError, OSError) as error:
            message = error.message if isinstance(error, CastoffError) else str(error.strerror or error)
            self._finish(125, message, {"error": message, "hint": getattr(error, "hint", None)})
            return
        self._loop.watch(self._listener.fileno(), self._accept)
        while not self._finished:
            self._loop.turn()

    def _catch_signals(self) -> None:
        os.set_blocking(self._wake_write, False)
        os.set_blocking(self._wake_read, False)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        for number in (signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        self._loop.watch(self._wake_read, self._signalled)

    def _signalled(self) -> None:
        """Stop the container, since the machine is being shut down or somebody ends its monitor."""
        os.read(self._wake_read, 64)
        self._stop(self._record.stop_signal, self._record.stop_timeout)

    def _pass_on(self, number: int) -> None:
        """Send the container a signal that castoff has got for it."""
        self._supervisor.signal(self._record.stop_signal if number == signal.SIGTERM else number)

    def _answer(self, value: dict[str, Any]) -> None:
        """Report on the start, once."""
        if self._report >= 0:
            value |= {"warnings": self._supervisor.warnings, "ports": self._supervisor.state.ports}
            with contextlib.suppress(OSError):  # whoever started the monitor has gone
                os.write(self._report, json.dumps(value).encode())
            os.close(self._report)
            self._report = -1

    def _start(self, *, first_time: bool = False) -> None:
        streams = self._output.open_()
        try:
            self._supervisor.start(streams, restarted=not first_time)
        finally:
            self._output.begin()
        if first_time and not self._supervisor.failed_to_execute():
            self._answer({"ok": True})

    def _exited(self, code: int, error: str, age: float) -> None:
        """Take note of the end of the container's process."""
        self._loop.cancel("kill")
        self._output.drain()
        answer = self._bad_start(code, error) if self._report >= 0 else {"ok": True}
        if (
            "ok" in answer
            and not self._stopping
            and self._record.restart.applies(code, self._supervisor.state.restarts)
        ):
            self._answer(answer)
            self._pause = _FIRST_PAUSE if age > _LONG_RUN else min(self._pause * 2, _LONGEST_PAUSE)
            self._supervisor.note_restart(code)
            self._loop.after("restart", self._pause, self._restart)
            return
        self._finish(code, error, answer)

    def _bad_start(self, code: int, error: str) -> dict[str, Any]:
        from castoff.containers.logs import read_log

        if error:
            return {"error": error, "hint": self._supervisor.hint}
        if code in _BAD_START:
            lines = read_log(self._container.path, tail=1)
            said = lines[-1].data.decode("utf-8", "replace").strip() if lines else "it can't be executed"
            return {"error": said, "hint": None, "code": code}
        return {"ok": True}

    def _restart(self) -> None:
        from castoff.errors import CastoffError

        try:
            self._start()
        except (CastoffError, OSError) as error:
            self._finish(125, error.message if isinstance(error, CastoffError) else str(error))

    def _finish(self, code: int, error: str, answer: dict[str, Any] | None = None) -> None:
        """Let go of everything, write the end down, and then tell those who wait, whoever started it first of all.

        Until the end is written down the socket is there: who finds none, or is not answered, reads the state.
        """
        self._finished = True
        self._output.drain()
        self._log.close()
        self._supervisor.close()
        with contextlib.suppress(OSError):
            self._container.write_state(self._supervisor.state.ended(code, error))
        self._loop.forget(self._listener.fileno())
        self._listener.close()
        with contextlib.suppress(OSError):
            os.unlink(f"{self._container.path}/socket")
        if self._record.auto_remove:
            from castoff.errors import StoreError

            with contextlib.suppress(StoreError):
                self._container.remove()
        os.close(self._lock)
        if answer is not None:
            self._answer(answer)
        result = {"code": code, "error": error} if error else {"code": code}
        for client in self._attached:
            client.send(b"x" + json.dumps(result).encode())
        for client in self._waiting:
            client.reply(result)
        deadline = time.monotonic() + _FLUSH_TIME
        while any(client.has_pending for client in (*self._attached, *self._waiting)):
            left = deadline - time.monotonic()
            if left <= 0:
                break
            self._loop.turn(left)

    def _accept(self) -> None:
        try:
            end, _ = self._listener.accept()
        except OSError:
            return
        end.setblocking(False)
        # The request may be long in coming: whoever makes it may be stopped, and must not stop the container.
        self._loop.watch(end.fileno(), lambda: self._receive(end))

    def _receive(self, end: socket.socket) -> None:
        from castoff.containers.channel import receive_request
        from castoff.containers.clients import Client

        self._loop.forget(end.fileno())
        try:
            request, descriptors = receive_request(end)
        except (OSError, ValueError):
            end.close()
            return
        client = Client(self._loop, end, self._dropped)
        try:
            self._handle(client, request, descriptors)
        except (ValueError, KeyError, TypeError) as error:
            client.reply({"error": f"the request makes no sense: {error}"})
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _handle(self, client: Client, request: dict[str, Any], descriptors: list[int]) -> None:
        op = request.get("op")
        if op in ("stop", "wait"):
            self._waiting.append(client)
            client.serve(lambda *_: None)
            if op == "stop":
                number = int(request.get("signal") or self._record.stop_signal)
                timeout = request.get("timeout")
                self._stop(number, self._record.stop_timeout if timeout is None else float(timeout))
        elif op == "kill":
            number = int(request["signal"])
            if number == signal.SIGKILL:
                self._stop(number, 0)
            else:
                self._supervisor.signal(number)
            client.serve(lambda *_: None)
            client.reply({"ok": True})
        elif op == "attach":
            self._attach(client)
            self._output.resize(int(request.get("rows", 0)), int(request.get("columns", 0)))
        elif op == "exec":
            self._execute(client, request, descriptors)
        else:
            client.reply({"error": "the container's monitor is of an older castoff", "hint": "stop it and start it"})

    def _attach(self, client: Client) -> None:
        self._attached.append(client)
        self._output.attach(client)

    def _dropped(self, client: Client) -> None:
        for clients in (self._attached, self._waiting):
            if client in clients:
                clients.remove(client)
        self._output.detach(client)

    def _execute(self, client: Client, request: dict[str, Any], descriptors: list[int]) -> None:
        if len(descriptors) != 3:
            raise ValueError("it has not three streams")
        try:
            further = self._supervisor.execute(
                request, (descriptors[0], descriptors[1], descriptors[2]), lambda code: client.reply({"code": code})
            )
        except OSError as error:
            client.reply({"error": f"no process can be started in the container: {error.strerror}"})
            return
        client.serve(lambda kind, data: further.signal(int(data)) if kind == b"s" and data.isdigit() else None)

    def _stop(self, number: int, timeout: float) -> None:
        """Ask the container to end, and kill it if it has not after so many seconds (negative: never)."""
        self._stopping = True
        if not self._supervisor.is_running:
            self._loop.cancel("restart")
            self._finish(self._supervisor.state.exit_code, "")
            return
        self._supervisor.signal(number if timeout else signal.SIGKILL)
        if timeout > 0:
            self._loop.after("kill", timeout, lambda: self._supervisor.signal(signal.SIGKILL))


def main(arguments: list[str]) -> int:
    """Watch over a container; return 0."""
    sys.path.append(arguments[0])
    from castoff.containers.containerstore import Container

    lock, report, first = (int(text) for text in arguments[2:5])
    for descriptor in (lock, report):
        os.set_inheritable(descriptor, False)
    end = socket.socket(fileno=first) if first >= 0 else None
    if end is not None:
        end.set_inheritable(False)
    os.umask(0o022)
    Monitor(Container(arguments[1]), lock, report).run(end)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
