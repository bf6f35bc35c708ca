"""A proxy before a registry that breaks one request, or all from one on, in every way that networks and servers know.

It can also demand bearer tokens, which it gives out itself, as large registries do.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import struct
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

STATUSES = (400, 401, 403, 404, 408, 416, 429, 500, 502, 503, 504)
FAULTS = (
    "drop",
    "drop after",
    "reset",
    "half a request",
    "truncate",
    "corrupt",
    "stall",
    "silence",
    "empty",
    "garbage",
    "wrong digest",
    "wrong range",
    "retry after",
    "redirect",
    "redirect elsewhere",
    "redirect in a circle",
    "redirect to ftp",
    "redirect to nothing",
    *(f"status {status}" for status in STATUSES),
)
_DIGEST = "sha256:" + "0" * 64


@dataclass
class Seen:
    """One request as it came."""

    method: str
    path: str
    authorization: str
    status: int = 0


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: connections break here on purpose."""


@dataclass
class FaultProxy:
    """The proxy, and what it does.

    Attributes:
        netloc: its host and port.
        fault: gives the fault for a request by its number and itself; "" for none.
        elsewhere: the origin that `redirect elsewhere` leads to.
        seen: all requests, in order.
        token_requests: what came to the token server: scopes.
        users: name and password, where tokens are wanted.
        lifetime: what tokens' ``expires_in`` says.
    """

    netloc: str
    upstream: str
    fault: Callable[[int, Seen], str] = lambda _number, _seen: ""
    elsewhere: str = ""
    seen: list[Seen] = field(default_factory=list)
    token_requests: list[tuple[str, list[str], str]] = field(default_factory=list)
    users: tuple[str, str] | None = None
    lifetime: int = 300
    tokens: dict[str, frozenset[str]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    ending: threading.Event = field(default_factory=threading.Event)

    def reset(self) -> None:
        """Forget all requests."""
        with self.lock:
            self.seen.clear()
            self.token_requests.clear()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: FaultProxy

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the name that it replaces)
        """Keep still."""

    def _serve(self) -> None:
        proxy = self.proxy
        self.close_connection = True
        if self.path.startswith("/token"):
            self._token()
            return
        seen = Seen(self.command, self.path, self.headers.get("Authorization", ""))
        with proxy.lock:
            number = len(proxy.seen)
            proxy.seen.append(seen)
        fault = proxy.fault(number, seen)
        length = int(self.headers.get("Content-Length") or 0)
        if fault == "half a request" and length > 1:
            self.rfile.read(length // 2)
            self._cut()
            return
        body = self.rfile.read(length)
        if fault in ("drop", "reset"):
            self._cut(reset=fault == "reset")
            return
        if fault.startswith(("status", "retry")):
            self._refuse(int(fault.rpartition(" ")[2]) if fault.startswith("status") else 429, fault)
            return
        if fault.startswith("redirect") and "again=1" not in self.path:
            self._redirect(fault)
            return
        if fault == "silence":
            proxy.ending.wait(20)
            return
        if fault == "garbage":
            self.wfile.write(b"SSH-2.0-nothing of yours\r\n\r\n")
            return
        if self._is_refused_without_token(seen):
            return
        self._forward(seen, body, fault)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

    def _cut(self, *, reset: bool = False) -> None:
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _refuse(self, status: int, fault: str) -> None:
        said = {"errors": [{"code": "MADE_UP", "message": f"words of the registry \x1b[31m {self._echo()}"}]}
        headers = {"Content-Type": "application/json"}
        if fault == "retry after":
            headers["Retry-After"] = "0"
        if status == 401:
            headers["WWW-Authenticate"] = 'Basic realm="here"'
        self._answer(status, headers, json.dumps(said).encode())

    def _echo(self) -> str:
        """Return the credentials that came, which a registry's words may hold and castoff's must not."""
        return self.headers.get("Authorization", "nothing")

    def _redirect(self, fault: str) -> None:
        separator = "&" if "?" in self.path else "?"
        target = {
            "redirect": f"http://{self.proxy.netloc}{self.path}{separator}again=1",
            "redirect elsewhere": f"http://{self.proxy.elsewhere}{self.path}",
            "redirect in a circle": self.path,
            "redirect to ftp": f"ftp://{self.proxy.netloc}/x",
            "redirect to nothing": "http://[::1/x y",
        }[fault]
        self._answer(307, {"Location": target}, b"")

    def _forward(self, seen: Seen, body: bytes, fault: str) -> None:
        connection = http.client.HTTPConnection(self.proxy.upstream, timeout=30)
        headers = dict(self.headers.items())
        headers["Connection"] = "close"
        if self.proxy.users is not None:
            headers.pop("Authorization", None)
        path = self.path.replace("?again=1", "").replace("&again=1", "")
        try:
            connection.request(self.command, path, body, headers)
            response = connection.getresponse()
            data = response.read()
        finally:
            connection.close()
        seen.status = response.status
        if fault == "drop after":
            self._cut()
            return
        given = {key: value for key, value in response.getheaders() if key.lower() not in ("connection", "date")}
        if fault == "wrong digest":
            given = {**{k: v for k, v in given.items() if k.lower() != "docker-content-digest"}}
            given["Docker-Content-Digest"] = _DIGEST
        if fault == "wrong range":
            given = {**given, "Range": "0-7", "Content-Range": "bytes 1-2/3"}
        if fault == "corrupt" and data:
            place = len(data) // 2
            data = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        if fault == "empty":
            data = b""
            given = {k: v for k, v in given.items() if k.lower() != "content-length"}
        cut = len(data) // 2 if fault in ("truncate", "stall") else len(data)
        self._answer(response.status, given, data, cut)
        if fault == "stall":
            self.wfile.flush()
            self.proxy.ending.wait(20)
        elif fault == "truncate":
            self._cut()

    def _answer(self, status: int, headers: dict[str, str], data: bytes, cut: int | None = None) -> None:
        self.send_response_only(status)
        lower = {key.lower() for key in headers}
        for key, value in headers.items():
            self.send_header(key, value)
        if "content-length" not in lower:
            self.send_header("Content-Length", str(len(data)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data if cut is None else data[:cut])

    # Tokens.

    def _is_refused_without_token(self, seen: Seen) -> bool:
        proxy = self.proxy
        if proxy.users is None:
            return False
        scheme, _, token = seen.authorization.partition(" ")
        parts = urllib.parse.urlsplit(self.path)
        name = parts.path.removeprefix("/v2/").partition("/manifests/")[0].partition("/blobs/")[0]
        name = name.partition("/tags/")[0]
        wanted = set()
        if parts.path != "/v2/":
            wanted.add(f"repository:{name}:pull")
            if self.command not in ("GET", "HEAD"):
                wanted.add(f"repository:{name}:push")
            for source in urllib.parse.parse_qs(parts.query).get("from", []):
                wanted.add(f"repository:{source}:pull")
        with proxy.lock:
            allowed = proxy.tokens.get(token) if scheme == "Bearer" else None
        if allowed is not None and wanted <= allowed:
            return False
        scope = f"repository:{name}:pull,push" if len(wanted) > 1 else f"repository:{name}:pull"
        challenge = f'Bearer realm="http://{proxy.netloc}/token?x=1",service="the registry",scope="{scope}"'
        self._answer(401, {"WWW-Authenticate": challenge}, b'{"errors":[{"code":"UNAUTHORIZED"}]}')
        return True

    def _token(self) -> None:
        proxy = self.proxy
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        query = urllib.parse.parse_qs(body if body else urllib.parse.urlsplit(self.path).query)
        authorization = self.headers.get("Authorization", "")
        scopes = [word for text in query.get("scope", []) for word in text.split()]
        user, password = proxy.users or ("", "")
        basic = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        known = authorization == basic or query.get("refresh_token") == [f"refresh-{password}"]
        with proxy.lock:
            proxy.token_requests.append((self.command, scopes, "known" if known else "anonymous"))
        if (authorization or "refresh_token" in query) and not known:
            self._answer(401, {}, b'{"details": "incorrect username or password"}')
            return
        allowed = set()
        for scope in scopes:
            kind, name, actions = scope.split(":")
            allowed |= {f"{kind}:{name}:{action}" for action in actions.split(",") if known or action == "pull"}
        with proxy.lock:
            token = f"token-{len(proxy.tokens)}-of-{password}"
            proxy.tokens[token] = frozenset(allowed)
        key = "access_token" if body else "token"
        self._answer(200, {}, json.dumps({key: token, "expires_in": proxy.lifetime}).encode())


@contextlib.contextmanager
def fault_proxy(upstream: str) -> Iterator[FaultProxy]:
    """Run a proxy before a registry, by its host and port, while the block runs."""
    handler = type("Handler", (_Handler,), {})
    server = _Server(("127.0.0.1", 0), handler)
    proxy = FaultProxy(f"127.0.0.1:{server.server_address[1]}", upstream)
    handler.proxy = proxy  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield proxy
    finally:
        proxy.ending.set()
        server.shutdown()
        thread.join()
        server.server_close()
