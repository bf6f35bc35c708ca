"""The time limits of a connection, on a clock that the test moves."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from devops_info_service.protocol import DeadlineProtocol

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class MovedLoop(asyncio.SelectorEventLoop):
    """A loop whose clock can be moved forward."""

    moved = 0.0

    def time(self) -> float:
        return super().time() + self.moved


async def prompt(scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
    """Answer once the request is complete."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        if not message["more_body"]:
            break
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def silent(scope: Any, receive: Callable[[], Awaitable[Any]], send: Any) -> None:
    """Read the request and never answer."""
    while (await receive())["type"] != "http.disconnect":
        pass


class Connection:
    """A client's end of a connection to an application."""

    def __init__(self, loop: MovedLoop, app: Any) -> None:
        self.loop = loop
        self.state = ServerState()
        config = uvicorn.Config(app, http=DeadlineProtocol, ws="none", lifespan="off", log_config=None)
        config.timeout_keep_alive = 60
        config.load()
        theirs, self._socket = socket.socketpair()
        self._socket.setblocking(False)

        def make() -> asyncio.Protocol:
            return DeadlineProtocol(config, self.state, {}, loop)

        loop.run_until_complete(loop.connect_accepted_socket(make, theirs))

    def send(self, data: bytes) -> None:
        self.loop.run_until_complete(self.loop.sock_sendall(self._socket, data))
        self.settle()

    def settle(self) -> None:
        for _ in range(10):
            self.loop.run_until_complete(asyncio.sleep(0))

    def advance(self, seconds: float) -> None:
        self.loop.moved += seconds
        self.settle()

    def read(self) -> bytes:
        self.settle()
        try:
            return self._socket.recv(65536)
        except BlockingIOError:
            return b"nothing yet"

    @property
    def open(self) -> bool:
        self.settle()
        return bool(self.state.connections)

    def close(self) -> None:
        self._socket.close()
        self.settle()


@pytest.fixture
def connect() -> Iterator[Callable[..., Connection]]:
    loop = MovedLoop()
    made: list[Connection] = []

    def make(app: Any = prompt) -> Connection:
        made.append(Connection(loop, app))
        return made[-1]

    yield make
    for connection in made:
        connection.close()
        assert not connection.state.connections
    loop.close()


def refusal(data: bytes) -> int:
    head, _, body = data.partition(b"\r\n\r\n")
    assert list(json.loads(body)) == ["error", "message"]
    assert b"connection: close" in head.lower()
    return int(head.split(b" ")[1])


def test_a_client_that_says_nothing_is_let_go(connect: Callable[..., Connection]) -> None:
    connection = connect()
    connection.advance(4.9)
    assert connection.open
    connection.advance(0.2)
    assert connection.read() == b""
    assert not connection.open


@pytest.mark.parametrize("before", [b"", GET], ids=["first", "later"])
def test_a_header_has_five_seconds_whatever_drips(connect: Callable[..., Connection], before: bytes) -> None:
    connection = connect()
    if before:
        connection.send(before)
        assert connection.read().startswith(b"HTTP/1.1 200")
    for byte in GET[:9]:
        connection.send(bytes([byte]))
        connection.advance(0.5)
    assert connection.read() == b"nothing yet"
    connection.advance(0.6)
    assert refusal(connection.read()) == 408


def test_a_body_has_ten_seconds_whatever_drips(connect: Callable[..., Connection]) -> None:
    connection = connect()
    connection.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")
    for _ in range(9):
        connection.send(b"x")
        connection.advance(1)
    assert connection.read() == b"nothing yet"
    connection.advance(1.1)
    assert refusal(connection.read()) == 408


def test_an_answer_has_fifteen_seconds(connect: Callable[..., Connection]) -> None:
    connection = connect(silent)
    connection.send(GET)
    connection.advance(14.9)
    assert connection.open
    connection.advance(0.2)
    assert connection.read() == b""
    assert not connection.open


def test_every_request_has_a_time_of_its_own(connect: Callable[..., Connection]) -> None:
    connection = connect()
    for _ in range(5):
        connection.send(GET)
        assert connection.read().startswith(b"HTTP/1.1 200")
        connection.advance(40)
    assert connection.open
    connection.advance(21)
    assert connection.read() == b""
    assert not connection.open


def test_a_refused_client_that_stays_is_let_go(connect: Callable[..., Connection]) -> None:
    connection = connect()
    connection.send(b"nonsense\r\n\r\n" + b"x" * 1000)
    assert refusal(connection.read()) == 400
    connection.send(b"more")
    assert connection.open
    connection.advance(1.1)
    assert not connection.open


def test_a_fault_in_a_body_breaks_off_what_waits_for_it(connect: Callable[..., Connection]) -> None:
    connection = connect()
    connection.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
    assert refusal(connection.read()) == 400
    assert not connection.state.tasks
