"""The registry on a socket: keep-alive, chunked bodies, passwords, TLS, and clients that mean no good."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import bcrypt
import pytest

from castoff.cli.registry_serve import listen_address
from castoff.errors import ContextError, RegistryError, UsageError
from castoff.registry.server import Access, RegistryServer, in_memory
from castoff.registry.server.passwords import PasswordFile
from castoff.testing.registry import memory_registry


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def connect(server: RegistryServer) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(str(server.host), int(server.port), timeout=60)


def raw(server: RegistryServer, data: bytes) -> bytes:
    """Send bytes and return all that comes back until the server closes."""
    with socket.create_connection((str(server.host), int(server.port)), timeout=60) as peer:
        peer.sendall(data)
        peer.shutdown(socket.SHUT_WR)
        answer = b""
        while block := peer.recv(1 << 16):
            answer += block
        return answer


def test_one_connection_takes_many_requests() -> None:
    with memory_registry() as registry:
        peer = connect(registry.server)
        data = b"x" * 300_000
        for _ in range(3):
            peer.request("POST", f"/v2/a/blobs/uploads/?digest={sha256(data)}", data)
            response = peer.getresponse()
            assert (response.status, response.read()) == (201, b"")
        sock = peer.sock
        peer.request("GET", f"/v2/a/blobs/{sha256(data)}", headers={"Range": "bytes=299990-"})
        assert peer.getresponse().read() == b"x" * 10
        peer.request("HEAD", f"/v2/a/blobs/{sha256(data)}")
        response = peer.getresponse()
        assert (response.headers["Content-Length"], response.read()) == ("300000", b"")
        assert peer.sock is sock
        peer.close()


def test_a_chunked_body() -> None:
    with memory_registry() as registry:
        peer = connect(registry.server)
        peer.request("POST", "/v2/a/blobs/uploads/")
        response = peer.getresponse()
        response.read()
        place = response.headers["Location"]
        peer.request("PATCH", place, iter([b"hel", b"lo"]), encode_chunked=True)
        response = peer.getresponse()
        assert (response.status, response.headers["Range"]) == (202, "0-4")
        response.read()
        peer.request("PUT", f"{place}?digest={sha256(b'hello')}")
        assert peer.getresponse().status == 201
        peer.close()
        assert registry.take_requests()[0].startswith("POST '/v2/a/blobs/uploads/' 202")


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"Content-Length: 3\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"),
        (b"Content-Length: 3\r\nContent-Length: 4", b"abcd"),
        (b"Content-Length: -1", b""),
        (b"Content-Length: +3", b"abc"),
        (b"Content-Length: 99999999999999999999", b""),
        (b"Transfer-Encoding: gzip, chunked", b"0\r\n\r\n"),
        (b"Transfer-Encoding: chunked", b"zz\r\n"),
        (b"Transfer-Encoding: chunked", b"3\r\nabcX\r\n0\r\n\r\n"),
        (b"Transfer-Encoding: chunked", b"ffffffffffffffffff\r\n"),
        (b"Transfer-Encoding: chunked", b"0\r\n" + b"a: b\r\n" * 100),
    ],
)
def test_bodies_whose_length_is_in_doubt(head: bytes, body: bytes) -> None:
    with memory_registry() as registry:
        request = b"POST /v2/a/blobs/uploads/?digest=sha256:" + b"0" * 64 + b" HTTP/1.1\r\nHost: x\r\n" + head
        answer = raw(registry.server, request + b"\r\n\r\n" + body + b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert answer.count(b"HTTP/1.1 ") == 1  # what followed was not taken for a request
        assert b"Connection: close" in answer


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\xff\x80\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /v2/ HTTP/9.9\r\n\r\n",
        b"BREW /v2/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET http://[/v2/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v2/%0d%0aX:y/manifests/1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /v2/a/manifests/%00 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /v2/a/tags/list?" + b"&".join(b"a=b" for _ in range(100)) + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_what_is_no_request_disturbs_nobody(data: bytes) -> None:
    with memory_registry() as registry:
        answer = raw(registry.server, data)
        assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5", b"{"))
        assert b"\r\nX:y" not in answer
        assert raw(registry.server, b"GET /v2/ HTTP/1.1\r\nConnection: close\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_clients_that_say_nothing_keep_nobody_from_stopping_it() -> None:
    server = RegistryServer(in_memory())
    server.start()
    silent = [socket.create_connection((str(server.host), int(server.port)), timeout=60) for _ in range(3)]
    silent[1].sendall(b"GET /v2/ HT")
    peer = connect(server)
    peer.request("GET", "/v2/")
    assert peer.getresponse().read() == b"{}"
    server.stop()
    for one in (*silent, peer.sock):
        assert one.recv(1) == b""
        one.close()
    server.stop()


def test_a_request_that_has_come_is_answered_before_it_stops() -> None:
    with memory_registry() as registry:
        server = registry.server
        data = b"y" * 100
        with socket.create_connection((str(server.host), int(server.port)), timeout=60) as peer:
            target = f"/v2/a/blobs/uploads/?digest={sha256(data)}"
            peer.sendall(f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n".encode() + data[:50])
            upload_begun()
            stopping = threading.Thread(target=server.stop)
            stopping.start()
            peer.sendall(data[50:])
            assert peer.recv(1 << 16).startswith(b"HTTP/1.1 201 ")
            stopping.join()


def upload_begun() -> None:
    """Wait until a thread of the registry reads a body."""
    while not any(frame.f_code.co_name == "blocks" for top in sys._current_frames().values() for frame in stack(top)):
        time.sleep(0.01)


def stack(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield a thread's frames, innermost first."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def write_passwords(path: Path, **users: str) -> str:
    lines = [f"{name}:{bcrypt.hashpw(word.encode()[:72], bcrypt.gensalt(4)).decode()}" for name, word in users.items()]
    path.write_text("# users\n\n" + "\n".join(lines) + "\n")
    return str(path)


def test_passwords(tmp_path: Path) -> None:
    path = write_passwords(tmp_path / "htpasswd", ada="s3cret:with:colons", bob="x" * 100)
    with memory_registry(passwords=path) as registry:
        peer = connect(registry.server)

        def status(header: str | None) -> int:
            peer.request("GET", "/v2/", headers={"Authorization": header} if header else {})
            response = peer.getresponse()
            response.read()
            if response.status == 401:
                assert response.headers["WWW-Authenticate"].startswith("Basic realm=")
            return response.status

        assert status(None) == 401
        assert status(basic("ada", "s3cret:with:colons")) == 200
        assert status(basic("ada", "s3cret:with:colons")) == 200
        assert status(basic("bob", "x" * 100)) == 200
        for wrong in (basic("ada", "wrong"), basic("eve", "s3cret:with:colons"), basic("ada", ""), "Basic !!!"):
            assert status(wrong) == 401
        assert status("Bearer " + "a" * 20_000) == 401
        assert status("Basic YWRh") == 401
        assert not any("s3cret" in line or "Basic" in line for line in registry.take_requests())
        peer.close()


def test_a_password_file_that_changes_counts_at_once(tmp_path: Path) -> None:
    path = write_passwords(tmp_path / "htpasswd", ada="one")
    passwords = PasswordFile(path)
    assert passwords.allows(basic("ada", "one"))
    write_passwords(tmp_path / "htpasswd", bob="two", carl="three")
    assert not passwords.allows(basic("ada", "one"))
    assert passwords.allows(basic("bob", "two"))
    (tmp_path / "htpasswd").write_text("broken")
    assert passwords.allows(basic("bob", "two"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no user"),
        ("ada:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "line 1 .* no name with a bcrypt hash"),
        ("# x\nada:$apr1$aaaaaaaa$bbbbbbbbbbbbbbbbbbbbbb", "line 2"),
        (":$2y$05$" + "a" * 53, "line 1"),
        ("ada:$2y$31$" + "a" * 53, "line 1"),
    ],
)
def test_password_files_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "htpasswd"
    path.write_text(text)
    with pytest.raises(ContextError, match=message):
        PasswordFile(str(path))
    with pytest.raises(ContextError, match="can't be read"):
        PasswordFile(str(tmp_path / "absent"))


def self_signed(folder: Path) -> tuple[str, str]:
    certificate, key = str(folder / "cert.pem"), str(folder / "key.pem")
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*command, "-out", certificate, "-keyout", key], check=True, capture_output=True)
    return certificate, key


def test_tls(tmp_path: Path, require: object) -> None:
    require.command("openssl")  # type: ignore[attr-defined]
    certificate, key = self_signed(tmp_path)
    with memory_registry(certificate=certificate, key=key) as registry:
        assert registry.server.url.startswith("https://127.0.0.1:")
        # One that never shakes hands stops nobody.
        with socket.create_connection((str(registry.server.host), int(registry.server.port))):
            context = ssl.create_default_context(cafile=certificate)
            peer = http.client.HTTPSConnection("127.0.0.1", int(registry.server.port), context=context, timeout=60)
            data = b"z" * 200_000
            peer.request("POST", f"/v2/a/blobs/uploads/?digest={sha256(data)}", data)
            response = peer.getresponse()
            assert (response.status, response.read()) == (201, b"")
            peer.request("GET", f"/v2/a/blobs/{sha256(data)}")
            assert peer.getresponse().read() == data
            peer.close()
        try:
            answer = raw(registry.server, b"GET /v2/ HTTP/1.1\r\n\r\n")
        except ConnectionResetError:
            answer = b""
        assert not answer.startswith(b"HTTP")


def test_certificates_that_are_none(tmp_path: Path) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text("no certificate")
    for certificate in (str(bad), str(tmp_path / "absent")):
        with pytest.raises(ContextError, match="can't be used"):
            RegistryServer(in_memory(), access=Access(certificate=certificate))


def test_an_address_that_is_taken() -> None:
    with memory_registry() as registry, pytest.raises(RegistryError, match="can't listen on 127"):
        RegistryServer(in_memory(), (str(registry.server.host), int(registry.server.port)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:1", ("127.0.0.1", 1)),
        (":8080", ("127.0.0.1", 8080)),
        ("0.0.0.0", ("0.0.0.0", 5000)),
        ("[::1]:5000", ("::1", 5000)),
        ("[::]", ("::", 5000)),
        ("localhost:0", ("localhost", 0)),
    ],
)
def test_listen_addresses(text: str, expected: tuple[str, int]) -> None:
    assert listen_address(text) == expected


@pytest.mark.parametrize("text", ["x:", "x:99999", "x:-1", "x:http"])
def test_listen_addresses_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="--listen wants"):
        listen_address(text)


def test_the_error_document_is_that_of_the_specification() -> None:
    with memory_registry() as registry:
        answer = raw(registry.server, b"GET /v2/a/manifests/1 HTTP/1.1\r\nConnection: close\r\n\r\n")
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"Content-Type: application/json" in head
        assert json.loads(body)["errors"][0]["code"] == "MANIFEST_UNKNOWN"
