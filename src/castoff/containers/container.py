"""Runs one container in the foreground."""

from __future__ import annotations

import contextlib
import signal
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from castoff.containers.network import ContainerNetwork
from castoff.containers.streams import Streams
from castoff.events import NullObserver, Observer, WarningEvent
from castoff.sandbox.spec import Network

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

    from castoff.containers.ports import PortMapping
    from castoff.sandbox.executor import Executor, Process
    from castoff.sandbox.spec import ProcessSpec

_FORWARDED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
_PATIENCE = 3
"""How many times castoff is told to stop (SIGINT or SIGTERM) before it kills the container."""


@dataclass(frozen=True, slots=True)
class ContainerRequest:
    """A container to run.

    Attributes:
        spec: its process; `spec.network` says which network it has, `spec.terminal` is set as `tty` says.
        ports: what to publish, for a network of its own.
        tty: whether it gets a pseudo-terminal.
        interactive: whether it reads castoff's standard input.
        stop_signal: the signal that asks it to end, sent when castoff gets SIGTERM.
        stdio: castoff's standard input, output and error.
    """

    spec: ProcessSpec
    ports: tuple[PortMapping, ...] = ()
    tty: bool = False
    interactive: bool = False
    stop_signal: int = signal.SIGTERM
    stdio: tuple[int, int, int] = (0, 1, 2)


def run_container(request: ContainerRequest, executor: Executor, observer: Observer | None = None) -> int:
    """Run a container until its process ends, and return the process' exit code; nothing of it is left.

    Signals are forwarded to it while it runs, if this is the main thread; the third SIGINT or SIGTERM kills it.

    Args:
        request: the container.
        executor: starts its process.
        observer: is warned where published ports or outbound connections can't be had.

    Raises:
        UsageError: a terminal was asked for, and standard input is none.
        SandboxError: a port is in use, or the sandbox can't be set up.
    """
    observer = observer or NullObserver()
    with contextlib.ExitStack() as stack:
        streams = stack.enter_context(Streams(request.stdio, terminal=request.tty, interactive=request.interactive))
        spec = replace(request.spec, terminal=request.tty)
        if spec.network is Network.PRIVATE:
            network = ContainerNetwork(request.ports, lambda text: observer.warning(WarningEvent(text)))
            stack.callback(network.close)
            spec = replace(spec, netns=network.path)
        elif request.ports:
            observer.warning(WarningEvent(f"ports are not published with the network mode {spec.network.value}"))
        signals = stack.enter_context(_SignalForwarding(streams, request.stop_signal))
        process = executor.start(spec, *streams.descriptors)
        stack.callback(process.kill)
        signals.attach(process)
        streams.begin()
        code = process.wait()
        streams.finish()
        assert code is not None
        return code


class _SignalForwarding:
    """Forwards signals to a process, from before it starts; only the main thread can."""

    def __init__(self, streams: Streams, stop_signal: int) -> None:
        self._streams = streams
        self._stop_signal = stop_signal
        self._process: Process | None = None
        self._early: list[int] = []
        self._asked = 0
        self._previous: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def __enter__(self) -> _SignalForwarding:
        if threading.current_thread() is threading.main_thread():
            for name in _FORWARDED:
                number = getattr(signal, name)
                self._previous[number] = signal.signal(number, self._forward)
            self._previous[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, self._resize)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def attach(self, process: Process) -> None:
        """Forward to this process, and first what came before it was there."""
        self._process = process
        for number in self._early:
            self._deliver(process, number)

    def _forward(self, number: int, _: FrameType | None) -> None:
        if self._process is None:
            self._early.append(number)
        else:
            self._deliver(self._process, number)

    def _deliver(self, process: Process, number: int) -> None:
        if number in (signal.SIGINT, signal.SIGTERM):
            self._asked += 1
            if self._asked >= _PATIENCE:
                process.kill()
                return
        process.signal(self._stop_signal if number == signal.SIGTERM else number)

    def _resize(self, _: int, __: FrameType | None) -> None:
        self._streams.resize()
