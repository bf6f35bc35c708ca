"""The Python service under strain: many clients, slow ones, hostile ones, and a stop in the middle of them.

Counts and sizes are bounded, and so is every wait; nothing here says how fast the service is.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from contract_http import Service, scrape
from contract_launch import Running, launch
from contract_python import COMMAND, RUNTIME_KEY, environment

pytestmark = pytest.mark.integration

PATIENCE = 30.0
GET = b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def variables() -> dict[str, str]:
    return environment()


@pytest.fixture
def running(variables: dict[str, str]) -> Iterator[Running]:
    with launch(COMMAND, variables) as started:
        yield started
        if started.process.poll() is None:
            assert Service(started.url, RUNTIME_KEY).ask("/health").status == 200
        assert not [line for line in started.lines if "Traceback" in line or "Error" in line]


def connect(running: Running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", running.port), timeout=PATIENCE)


def read_all(connection: socket.socket) -> bytes:
    """Return what comes until the service closes the connection; a reset ends it too."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while block := connection.recv(65536):
            received += block
    return received


def answers(received: bytes) -> list[tuple[int, Any]]:
    """Return statuses and JSON bodies of answers that follow one another on a connection."""
    found = []
    while received:
        head, separator, rest = received.partition(b"\r\n\r\n")
        length = re.search(rb"(?im)^content-length: (\d+)\r?$", head)
        assert separator and length, received[:200]
        size = int(length[1])
        assert len(rest) >= size, "an answer is cut off"
        found.append((int(head.split(b" ")[1]), json.loads(rest[:size])))
        received = rest[size:]
    return found


def load(require: Any, running: Running, path: str, seconds: int) -> str:
    wrk = require.command("wrk")
    argv = [wrk, "-c", "200", "-t", "2", "-d", f"{seconds}s", "--timeout", "30s", running.url + path]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_two_hundred_connections_get_right_answers_all(require: Any, running: Running) -> None:
    report = load(require, running, "/version", 2)
    assert "Non-2xx" not in report, report
    assert "Socket errors" not in report, report
    finished = int(re.search(r"(\d+) requests in", report)[1])  # type: ignore[index]
    assert finished > 200
    metrics = scrape(Service(running.url, RUNTIME_KEY))
    labels = {"path": "/version", "method": "GET"}
    assert metrics.total("http_requests_total", **labels, status="200") >= finished
    assert metrics.total("http_requests_total", **labels) == metrics.total(
        "http_requests_total", **labels, status="200"
    )


def test_unknown_paths_under_load_are_404s(require: Any, running: Running) -> None:
    report = load(require, running, "/nowhere", 1)
    finished = int(re.search(r"(\d+) requests in", report)[1])  # type: ignore[index]
    refused = int(re.search(r"Non-2xx or 3xx responses: (\d+)", report)[1])  # type: ignore[index]
    assert finished == refused > 0
    assert "Socket errors" not in report, report


def test_a_stop_in_the_middle_of_load_answers_what_was_asked(variables: dict[str, str]) -> None:
    with launch(COMMAND, variables) as running:
        complete: list[int] = []
        broken: list[bytes] = []
        stopping = threading.Event()

        def ask_on() -> None:
            while not stopping.is_set():
                try:
                    connection = connect(running)
                except OSError:
                    return  # the listener is closed: nothing was asked
                with connection:
                    try:
                        connection.sendall(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
                    except OSError:
                        return
                    received = read_all(connection)
                if not received:
                    return  # closed before the request was taken up
                try:
                    complete.append(answers(received)[0][0])
                except (AssertionError, ValueError):
                    broken.append(received)

        clients = [threading.Thread(target=ask_on) for _ in range(20)]
        for client in clients:
            client.start()
        running.wait_for_line(lambda line: "Request: GET /version" in line)
        code = running.stop()
        stopping.set()
        for client in clients:
            client.join(PATIENCE)
        assert code == 0
        assert not broken
        assert set(complete) == {200}
        assert running.lines[-1].endswith("Stopped")
        assert not [line for line in running.lines if "Traceback" in line]


def test_a_stop_waits_for_a_request_that_has_begun_to_arrive(running: Running) -> None:
    with connect(running) as connection, connect(running) as idle:
        connection.sendall(GET[:20])
        idle.sendall(GET)
        assert idle.recv(65536).startswith(b"HTTP/1.1 200")
        running.process.send_signal(signal.SIGTERM)
        running.wait_for_line(lambda line: "Received SIGTERM" in line)
        connection.sendall(GET[20:])
        received = read_all(connection)
        assert [status for status, _ in answers(received)] == [200]
        assert b"connection: close" in received.lower()
        assert running.wait() == 0


def test_pipelined_requests_are_answered_in_their_order(running: Running) -> None:
    paths = ["/version", "/health", "/nowhere", "/ready"] * 25
    requests = b"".join(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for path in paths)
    requests += b"POST /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 3\r\n\r\nxyz"
    with connect(running) as connection:
        connection.sendall(requests)
        found = answers(read_all(connection))
    assert [status for status, _ in found] == [404 if path == "/nowhere" else 200 for path in paths] + [405]
    assert [next(iter(body)) for _, body in found[:4]] == ["name", "status", "error", "status"]


def test_a_pipelined_body_is_not_taken_for_a_request(running: Running) -> None:
    hidden = b"GET /secret HTTP/1.1\r\nHost: x\r\n\r\n"
    request = b"POST /version HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(hidden) + hidden
    with connect(running) as connection:
        connection.sendall(request + GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert [status for status, _ in answers(read_all(connection))] == [405, 200]
    assert not [line for line in running.lines if "/secret" in line]


def test_a_client_that_sends_byte_by_byte_is_answered(running: Running) -> None:
    with connect(running) as connection:
        for position in range(len(GET)):
            connection.sendall(GET[position : position + 1])
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")


def test_many_clients_that_stop_in_a_header_hold_nobody_up_and_are_let_go(running: Running) -> None:
    with contextlib.ExitStack() as held:
        slow = [held.enter_context(connect(running)) for _ in range(100)]
        for connection in slow:
            connection.sendall(GET[:-4])
        silent = held.enter_context(connect(running))
        service = Service(running.url, RUNTIME_KEY)
        assert all(service.ask("/version").status == 200 for _ in range(20))
        for connection in slow:
            assert [status for status, _ in answers(read_all(connection))] == [408]
        assert read_all(silent) == b""


def test_a_body_that_never_comes_is_waited_for_in_bounds(running: Running) -> None:
    with connect(running) as connection:
        connection.sendall(b"POST /version HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
        assert [status for status, _ in answers(read_all(connection))] == [408]


def test_a_large_body_is_read_and_thrown_away(running: Running) -> None:
    body = b"x" * 5_000_000
    answer = Service(running.url, RUNTIME_KEY).ask("/version", "POST", body=body)
    assert answer.status == 405
    with connect(running) as connection:
        chunk = b"%x\r\n%s\r\n" % (len(body), body)
        fields = b"Host: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(b"POST /version HTTP/1.1\r\n" + fields + chunk + b"0\r\n\r\n")
        assert [status for status, _ in answers(read_all(connection))] == [405]


def test_a_client_that_reads_nothing_does_not_fill_the_memory(running: Running) -> None:
    def resident() -> int:
        with open(f"/proc/{running.process.pid}/status", encoding="ascii") as status:
            return int(re.search(r"VmRSS:\s+(\d+)", status.read())[1])  # type: ignore[index]

    before = resident()
    with connect(running) as connection:
        connection.setblocking(False)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while sent < 50_000_000:
                sent += connection.send(GET * 1000)
        assert Service(running.url, RUNTIME_KEY).ask("/health").status == 200
        assert resident() - before < 30_000, "kB for one client"
        connection.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("size", [17_000, 60_000, 300_000])
@pytest.mark.parametrize("count", [1, 50], ids=["one", "many"])
def test_an_oversized_header_is_a_431(running: Running, size: int, count: int) -> None:
    fields = b"".join(b"X-%d: %s\r\n" % (number, b"a" * (size // count)) for number in range(count))
    with connect(running) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n" + fields + b"\r\n")
        assert [(status, list(body)) for status, body in answers(read_all(connection))] == [(431, ["error", "message"])]


@pytest.mark.parametrize(
    "request_",
    [
        b"\x00" * 100 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET / HTTP/1.1\r\n folded: y\r\nHost: x\r\n\r\n",
        b"GET /\xe2\x80\xae HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        GET + b"nonsense\r\n\r\n",
    ],
)
def test_a_malformed_request_is_refused_in_json(running: Running, request_: bytes) -> None:
    with connect(running) as connection:
        connection.sendall(request_)
        status, body = answers(read_all(connection))[-1]
    assert status in (400, 501, 505)
    assert list(body) == ["error", "message"]


def test_a_client_that_hangs_up_is_no_failure(running: Running) -> None:
    for _ in range(30):
        with connect(running) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.sendall(GET * 3)
        with connect(running) as connection:
            connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")


def test_an_upgrade_is_answered_as_a_plain_request(running: Running) -> None:
    fields = "Host: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    with connect(running) as connection:
        connection.sendall(f"GET /version HTTP/1.1\r\n{fields}Sec-WebSocket-Key: eA==\r\n\r\n".encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")


def test_a_client_that_waits_to_be_told_to_go_on_is(running: Running) -> None:
    with connect(running) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 100")
        connection.sendall(b"body")
        assert connection.recv(65536).startswith(b"HTTP/1.1 405")
