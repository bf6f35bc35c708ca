"""The life of the process: a socket, a server on it, and its end in good order."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence

import uvicorn

from devops_info_service import TITLE
from devops_info_service.app import create_app, create_service
from devops_info_service.log import LibraryHandler, Log, one_line
from devops_info_service.observe import MAX_HEADERS
from devops_info_service.protocol import DeadlineProtocol
from devops_info_service.service import Service
from devops_info_service.settings import Settings

DRAIN_SECONDS = 8
"""Under the ten seconds that container engines wait between SIGTERM and SIGKILL."""
IDLE_SECONDS = 60
BACKLOG = 2048
_ADVICE = {
    errno.EADDRINUSE: "the address is in use; stop what uses it or set another PORT",
    errno.EACCES: "permission denied; set a PORT from 1024 up",
    errno.EADDRNOTAVAIL: "no interface has this address; set another HOST",
}


class ListenError(Exception):
    """The address can't be had; the message is one sentence that says what to do."""


def listen(settings: Settings) -> socket.socket:
    """Return a socket that listens on the settings' address.

    Raises:
        ListenError: it can't be had.
    """
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            listener.bind(address)
            listener.listen(BACKLOG)
        except BaseException:
            listener.close()
            raise
    except (OSError, UnicodeError) as error:
        number = error.errno if isinstance(error, OSError) else None
        reason = _ADVICE.get(number or 0) or one_line(getattr(error, "strerror", None) or str(error))
        raise ListenError(f"cannot listen on {one_line(settings.address)}: {reason}") from error
    return listener


class DrainingServer(uvicorn.Server):
    """A server that is told to stop by the service, not by signals of its own."""

    def __init__(self, config: uvicorn.Config, service: Service, url: str) -> None:
        super().__init__(config)
        self._service = service
        self._url = url

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        self._service.log.info(f"Server is running on {self._url}")
        self._service.log.info("Press Ctrl+C to stop")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listener, wait for open requests, and cut off those that take too long."""
        timer = asyncio.get_running_loop().call_later(DRAIN_SECONDS, self._cut_off)
        try:
            await super().shutdown(sockets)
        finally:
            timer.cancel()

    def _cut_off(self) -> None:
        """Break the connections that are left. Their tasks end by themselves; cancelled ones would log their traces."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        self._service.log.fail("Some requests were not finished in time and have been cut off")


def run(settings: Settings, listener: socket.socket, early: Sequence[int] = ()) -> int:
    """Serve on a socket until a signal comes, and return the exit code.

    Args:
        settings: what the environment says.
        listener: the socket; it is closed at the end.
        early: signals that have come already, before there was a server to stop.
    """
    log = Log(sys.stderr, as_json=settings.json_logs)
    logging.basicConfig(handlers=[LibraryHandler(log)], level=logging.ERROR, force=True)
    log.info(f"Starting {TITLE} on {settings.address}")
    return asyncio.run(_serve(settings, listener, log, early))


async def _serve(settings: Settings, listener: socket.socket, log: Log, early: Sequence[int]) -> int:
    service = create_service(log)
    config = uvicorn.Config(
        create_app(service),
        loop="asyncio",
        http=DeadlineProtocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=IDLE_SECONDS,
        h11_max_incomplete_event_size=MAX_HEADERS,
    )
    server = DrainingServer(config, service, f"http://{settings.address}")
    loop = asyncio.get_running_loop()

    def stop(number: int) -> None:
        name = signal.Signals(number).name
        if service.draining:
            log.info(f"Received {name} again: stopping at once")
            os._exit(128 + number)
        service.draining = True
        log.info(f"Received {name}: no longer ready, finishing open requests")
        loop.call_later(settings.shutdown_delay, setattr, server, "should_exit", True)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    for early_number in early:
        loop.call_soon(stop, early_number)
    await server.serve([listener])
    log.info("Stopped")
    return 0
