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
    from collections.abc import Iterator
    from types import FrameType

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
        process = executor.start(spec, *streams.descriptors)
        stack.callback(process.kill)
        with _forwarded_signals(process, streams, request.stop_signal):
            streams.begin()
            code = process.wait()
            streams.finish()
        assert code is not None
        return code


@contextlib.contextmanager
def _forwarded_signals(process: Process, streams: Streams, stop_signal: int) -> Iterator[None]:
    """Forward signals to a process; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = 0

    def forward(number: int, _: FrameType | None) -> None:
        nonlocal asked
        if number in (signal.SIGINT, signal.SIGTERM):
            asked += 1
            if asked >= _PATIENCE:
                process.kill()
                return
        process.signal(stop_signal if number == signal.SIGTERM else number)

    def resize(_: int, __: FrameType | None) -> None:
        streams.resize()

    previous = {}
    try:
        for name in _FORWARDED:
            number = getattr(signal, name)
            previous[number] = signal.signal(number, forward)
        previous[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, resize)
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
