"""The Python service, run from its source on loopback: its own checks, its HTTP contract, its log, its end."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from contract_http import CHECKS, Check, Service, assert_json, check_name
from contract_launch import Running, free_port, launch
from contract_python import COMMAND, RUNTIME_KEY, SERVICE, environment

pytestmark = pytest.mark.integration

STAMP = r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d [a-z_]+\.py:\d+: "


@pytest.fixture(scope="module")
def variables() -> dict[str, str]:
    return environment()


@pytest.fixture(scope="module")
def running(variables: dict[str, str]) -> Iterator[Running]:
    with launch(COMMAND, variables) as started:
        yield started


def refused(variables: dict[str, str], **settings: str) -> tuple[int, str]:
    """Return the exit code and the stderr of a service that cannot start."""
    done = subprocess.run(COMMAND, env=variables | settings, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    return done.returncode, done.stderr


def run_here(*arguments: str) -> None:
    """Run a module of the development dependencies in the service's folder; what it says is the failure."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=SERVICE,
        env=os.environ | environment("requirements-dev.lock"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_its_own_tests_pass() -> None:
    run_here("pytest", "-q", "-p", "no:cacheprovider", "tests")


def test_its_types_are_right(tmp_path: object) -> None:
    run_here("mypy", f"--cache-dir={tmp_path}", "devops_info_service", "tests")


def test_it_imports_nothing_of_castoff() -> None:
    sources = list((SERVICE / "devops_info_service").rglob("*.py"))
    assert len(sources) > 10
    for source in sources:
        assert "castoff" not in source.read_text(encoding="utf-8"), source


@pytest.mark.parametrize("check", CHECKS, ids=check_name)
def test_http_contract(check: Check, running: Running) -> None:
    check(Service(running.url, RUNTIME_KEY))


def test_it_describes_just_its_routes(running: Running) -> None:
    service = Service(running.url, RUNTIME_KEY)
    description = assert_json(service.ask("/openapi.json"), 200)
    listed = {endpoint["path"] for endpoint in service.ask("/").json["endpoints"]}
    assert set(description["paths"]) == listed | {"/openapi.json"}


def test_the_first_log_lines(variables: dict[str, str]) -> None:
    with launch(COMMAND, variables) as started:
        started.wait_for_line(lambda line: "Press" in line)
        lines = started.lines[:3]
    for line, message in zip(
        lines,
        (
            f"Starting DevOps Info Service (Python) on 127.0.0.1:{started.port}",
            f"Server is running on {started.url}",
            "Press Ctrl+C to stop",
        ),
        strict=True,
    ):
        assert re.fullmatch(STAMP + re.escape(message), line), line


@pytest.mark.parametrize(
    ("method", "target", "message"),
    [
        ("GET", "/healt", "Request: GET /healt from "),
        ("GET", "/", "Request: GET / from "),
        ("HEAD", "/ready?x=1", "Request: HEAD /ready from "),
        ("POST", "/health", "Request: POST /health from "),
        ("GET", "/health", "Health check from "),
        ("HEAD", "/health", "Health check from "),
        ("GET", "/health%0a", "Request: GET /health%0a from "),
        ("GET", "http://elsewhere/health?x", "Health check from "),
        ("GET", "http://elsewhere", "Request: GET / from "),
        (
            "GET",
            "/x%0a2026/02/02%2011:18:39%20main.go:1:%20forged%1b[2J",
            "Request: GET /x%0a2026/02/02%2011:18:39%20main.go:1:%20forged%1b[2J from ",
        ),
    ],
)
def test_a_request_is_one_log_line(running: Running, method: str, target: str, message: str) -> None:
    with socket.create_connection(("127.0.0.1", running.port)) as connection:
        address = "{}:{}".format(*connection.getsockname())
        connection.sendall(f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode("latin-1"))
        received = b""
        while block := connection.recv(65536):
            received += block
    line = running.wait_for_line(lambda line: line.endswith(f" from {address}"))
    assert re.fullmatch(STAMP + re.escape(message + address), line), line
    assert all(re.match(STAMP, line) for line in running.lines)
    expected = b"200" if message.startswith("Health") or target in ("/", "/ready?x=1", "http://elsewhere") else b"40"
    assert received.split(b" ")[1].startswith(expected)


def test_the_json_log(variables: dict[str, str]) -> None:
    with launch(COMMAND, variables | {"LOG_FORMAT": "json"}) as started:
        service = Service(started.url, RUNTIME_KEY)
        service.ask("/healt", headers={"User-Agent": b'a"\xff\\'})
        service.ask("/health")
        assert started.stop() == 0
    records = [json.loads(line) for line in started.lines]
    for record in records:
        assert list(record)[:4] == ["time", "level", "source", "message"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record["time"])
        assert re.fullmatch(r"[a-z_]+\.py:\d+", record["source"])
    request = next(record for record in records if record["message"].startswith("Request: GET /healt from "))
    assert (request["method"], request["path"], request["status"]) == ("GET", "/healt", 404)
    assert request["user_agent"] == 'a"\ufffd\\'
    assert request["message"].endswith(request["remote_addr"])
    assert request["duration_ms"] >= 0
    assert any(record["message"].startswith("Health check from ") and record["status"] == 200 for record in records)


def hold_request(started: Running) -> socket.socket:
    """Send a request without its body: it stays open until the body comes."""
    connection = socket.create_connection(("127.0.0.1", started.port))
    connection.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n")
    started.wait_for_line(lambda line: "Request: GET /version" in line)
    return connection


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_open_requests_finish(variables: dict[str, str], sent: signal.Signals) -> None:
    with launch(COMMAND, variables) as started, hold_request(started) as connection:
        started.process.send_signal(sent)
        started.wait_for_line(lambda line: f"Received {sent.name}" in line)
        connection.sendall(b"body")
        received = b""
        while block := connection.recv(65536):
            received += block
        assert received.startswith(b"HTTP/1.1 200 OK\r\n")
        assert json.loads(received.partition(b"\r\n\r\n")[2])["name"] == "devops-info-service"
        assert started.wait() == 0
        assert started.lines[-1].endswith("Stopped")


def test_a_second_signal_ends_it_at_once(variables: dict[str, str]) -> None:
    with launch(COMMAND, variables) as started, hold_request(started):
        started.process.send_signal(signal.SIGTERM)
        started.wait_for_line(lambda line: "Received SIGTERM" in line)
        assert started.stop(signal.SIGINT) == 128 + signal.SIGINT


def test_a_signal_that_came_too_early_is_not_lost(variables: dict[str, str]) -> None:
    program = (
        "import signal, sys; from devops_info_service import server, settings, __main__; import devops_info_service;"
        "listen = server.listen;"
        "server.listen = lambda s: (signal.raise_signal(signal.SIGTERM), listen(s))[1];"
        "sys.exit(__main__.main())"
    )
    given = variables | {"HOST": "127.0.0.1", "PORT": str(free_port())}
    done = subprocess.run(
        [sys.executable, "-c", program], env=given, stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Received SIGTERM" in done.stderr
    assert done.stderr.endswith("Stopped\n")


def test_a_request_that_never_ends_is_cut_off(variables: dict[str, str]) -> None:
    with launch(COMMAND, variables) as started, hold_request(started):
        assert started.stop() == 0
        assert any("have been cut off" in line for line in started.lines)
        assert not any("Traceback" in line for line in started.lines)


def test_it_answers_that_it_is_not_ready_while_it_waits_to_stop(variables: dict[str, str]) -> None:
    with launch(COMMAND, variables | {"SHUTDOWN_DELAY": "2"}) as started:
        service = Service(started.url, RUNTIME_KEY)
        started.process.send_signal(signal.SIGTERM)
        started.wait_for_line(lambda line: "Received SIGTERM" in line)
        answer = service.ask("/ready")
        assert assert_json(answer, 503) == {"status": "draining"}
        assert answer.headers["Connection"] == "close"
        assert assert_json(service.ask("/health"), 200)["status"] == "healthy"
        assert started.wait() == 0


@pytest.mark.parametrize("port", ["http", "0", "65536", "-1", "+80", "8000 ", "80.0", "1\n2", "8_0", "٨٠", "9" * 5000])
def test_a_wrong_port_is_one_sentence(variables: dict[str, str], port: str) -> None:
    code, text = refused(variables, PORT=port)
    assert code == 2
    shown = json.dumps(port)
    assert text == f"devops-info-service: PORT must be a whole number from 1 to 65535, not {shown}\n"


def test_other_wrong_settings_are_one_sentence(variables: dict[str, str]) -> None:
    expected = 'devops-info-service: LOG_FORMAT must be text or json, not "xml"\n'
    assert refused(variables, LOG_FORMAT="xml") == (2, expected)
    code, text = refused(variables, SHUTDOWN_DELAY="soon")
    assert (code, text.count("\n")) == (2, 1)
    assert "SHUTDOWN_DELAY" in text


def test_an_address_in_use_is_one_sentence(variables: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        code, text = refused(variables, HOST="127.0.0.1", PORT=str(port))
    assert code == 1
    assert text.startswith(f"devops-info-service: cannot listen on 127.0.0.1:{port}: the address is in use")
    assert text.count("\n") == 1


@pytest.mark.parametrize(("host", "words"), [("192.0.2.1", "set another HOST"), ("no such\nhost", "cannot listen on")])
def test_a_foreign_host_is_one_sentence(variables: dict[str, str], host: str, words: str) -> None:
    code, text = refused(variables, HOST=host, PORT=str(free_port()))
    assert (code, text.count("\n")) == (1, 1)
    assert words in text


def test_an_empty_port_is_the_default(variables: dict[str, str]) -> None:
    with socket.socket() as holder:
        try:
            holder.bind(("127.0.0.1", 8000))
        except OSError:
            pass  # somebody else holds it: that serves as well
        else:
            holder.listen()
        code, text = refused(variables, HOST="127.0.0.1", PORT="")
    assert code == 1
    assert "cannot listen on 127.0.0.1:8000:" in text


def test_it_listens_on_ipv6_and_shows_the_address_as_one(variables: dict[str, str]) -> None:
    if not socket.has_ipv6 or not os.path.exists("/proc/net/if_inet6"):
        pytest.skip("needs IPv6")
    with launch(COMMAND, variables | {"HOST": "::1"}) as started:
        started.wait_for_line(lambda line: f"http://[::1]:{started.port}" in line)
        with socket.create_connection(("::1", started.port)) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            received = b""
            while block := connection.recv(65536):
                received += block
        assert json.loads(received.partition(b"\r\n\r\n")[2])["request"]["client_ip"] == "::1"
        started.wait_for_line(lambda line: "Request: GET / from [::1]:" in line)
