"""The registry on a socket: HTTP/1.1, one thread for each connection, with TLS and basic authentication if wanted."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
import urllib.parse
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any, cast

from castoff.errors import CastoffError, ContextError, RegistryError
from castoff.registry.server.api import Limits, RegistryApi
from castoff.registry.server.bodies import ChunkedBody, SizedBody
from castoff.registry.server.failures import RefusalError
from castoff.registry.server.passwords import PasswordFile
from castoff.registry.server.wire import NoBody, Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from castoff.registry.server.repositories import Repositories

MAX_CONNECTIONS = 256
_IDLE = 75.0
"""Seconds in which the head of the next request must have come whole."""
_STALL = 60.0
"""Seconds that a client may neither send nor take anything."""
_GRACE = 10.0
_LINGER = 1 << 20
_MAX_FIELDS = 32
_TICK = 0.5


@dataclass(frozen=True, slots=True)
class Access:
    """How a registry is reached.

    Attributes:
        passwords: path of a file of users and bcrypt hashes; "" lets everybody in.
        certificate: path of the chain of certificates for TLS, in PEM; "" for none.
        key: path of the certificate's key, in PEM.
        log: called with a line for each request; never given anything secret.
    """

    passwords: str = ""
    certificate: str = ""
    key: str = ""
    log: Callable[[str], None] | None = None


class RegistryServer:
    """A registry that listens. A context manager: entering it starts it, leaving it stops it.

    Attributes:
        host: the address that it listens on.
        port: the port.
    """

    def __init__(
        self,
        repositories: Repositories,
        address: tuple[str, int] = ("127.0.0.1", 0),
        access: Access | None = None,
        limits: Limits | None = None,
    ) -> None:
        """Listen, and accept nothing yet.

        Args:
            repositories: what is served.
            address: host and port; port 0 takes any that is free.
            access: how it is reached.
            limits: what it takes.

        Raises:
            RegistryError: the address can't be listened on.
            ContextError: the passwords, the certificate or the key can't be read.
        """
        access = access or Access()
        self._api = RegistryApi(repositories, limits)
        passwords = PasswordFile(access.passwords) if access.passwords else None
        tls = _tls(access) if access.certificate else None
        try:
            self._listener = _Listener(address, self._api, passwords, access.log)
        except OSError as error:
            raise RegistryError(
                f"can't listen on {address[0]}:{address[1]}: {(error.strerror or str(error)).lower()}",
                hint="name another address with --listen",
            ) from error
        self._listener.tls = tls
        self._scheme = "https" if tls else "http"
        self.host, self.port = self._listener.server_address[:2]
        self._threads: list[threading.Thread] = []

    @property
    def netloc(self) -> str:
        """Host and port, as they stand in a reference."""
        host = str(self.host)
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """Where it is."""
        return f"{self._scheme}://{self.netloc}"

    def start(self) -> None:
        """Serve, in threads of its own."""
        for work in (self._listener.accept_all, self._listener.watch):
            thread = threading.Thread(target=work, name="castoff-registry", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self, grace: float = _GRACE) -> None:
        """Accept nothing more, let the requests that came end, and stop. Idempotent.

        Args:
            grace: seconds that they have; then their connections are cut.
        """
        if self._threads:
            self._listener.drain(grace)
            for thread in self._threads:
                thread.join()
            self._threads.clear()
        self._listener.server_close()
        self._api.close()

    def __enter__(self) -> RegistryServer:
        """Start."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()


def _tls(access: Access) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # Without the callable an encrypted key would ask for its pass phrase at the terminal.
        context.load_cert_chain(access.certificate, access.key or None, password=lambda: b"")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or "it is not valid"
        raise ContextError(
            f"the certificate {access.certificate} or its key can't be used: {str(reason).lower().replace('_', ' ')}",
            hint="both are PEM files, and the key has no pass phrase",
        ) from error
    return context


class _Listener(HTTPServer):
    """Accepts connections and knows which of them only wait for a request."""

    request_queue_size = 128
    tls: ssl.SSLContext | None = None

    def __init__(
        self,
        address: tuple[str, int],
        api: RegistryApi,
        passwords: PasswordFile | None,
        log: Callable[[str], None] | None,
    ) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self.api = api
        self.passwords = passwords
        self.log = log
        self._slots = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._changed = threading.Condition()
        self._waiting: dict[socket.socket, float | None] = {}
        self._stopping = False
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind, without the reverse look-up of the host's name that HTTPServer does."""
        super(HTTPServer, self).server_bind()

    def accept_all(self) -> None:
        """Accept connections until the server stops."""
        while not self._stopping:
            try:
                request, address = self.socket.accept()
            except OSError:
                if not self._stopping:
                    time.sleep(_TICK)  # Too many files are open, or the client was gone at once.
                continue
            self.process_request(request, address)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread; while all are taken, further ones wait."""
        self._slots.acquire()
        thread = threading.Thread(
            target=self._serve, args=(request, client_address), name="castoff-registry-client", daemon=True
        )
        try:
            with self._changed:
                self._waiting[request] = time.monotonic()
            thread.start()
        except BaseException:
            self._forget(request)
            raise

    def _serve(self, request: socket.socket, client_address: Any) -> None:
        try:
            request.settimeout(_STALL)
            if self.tls is not None:
                # Here and not where connections are accepted: a client that says nothing stops nobody else.
                plain = request
                request = self.tls.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
                with self._changed:
                    self._waiting[request] = self._waiting.pop(plain)
                request.do_handshake()
            self.finish_request(request, client_address)
        except (OSError, ssl.SSLError):
            pass  # the client went away, or speaks something else
        finally:
            self._forget(request)
            with contextlib.suppress(OSError):
                request.close()

    def _forget(self, request: socket.socket) -> None:
        with self._changed:
            self._waiting.pop(request, None)
            self._changed.notify_all()
        self._slots.release()

    def waits(self, request: socket.socket) -> bool:
        """Note that a connection waits for a request; False where it is to end."""
        with self._changed:
            if request in self._waiting:
                self._waiting[request] = time.monotonic()
            return not self._stopping

    def works(self, request: socket.socket) -> None:
        """Note that a request has come."""
        with self._changed:
            if request in self._waiting:
                self._waiting[request] = None

    def watch(self) -> None:
        """Cut connections that wait for too long, until the server stops."""
        with self._changed:
            while not self._stopping:
                self._cut(time.monotonic() - _IDLE)
                self._changed.wait(_TICK * 4)

    def _cut(self, before: float) -> None:
        """Cut connections that have waited since before a time; the lock is held."""
        for request, since in self._waiting.items():
            if since is not None and since <= before:
                _shut(request)

    def drain(self, grace: float) -> None:
        """End the connections that only wait, let the others end, and cut them when `grace` seconds are over."""
        end = time.monotonic() + grace
        with self._changed:
            self._stopping = True
            _shut(self.socket)  # wakes who waits for a connection
            self._changed.notify_all()
            while self._waiting and (left := end - time.monotonic()) > 0:
                self._cut(time.monotonic())
                self._changed.wait(min(left, _TICK))
            for request in self._waiting:
                _shut(request)
            self._changed.wait_for(lambda: not self._waiting, _GRACE)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: what a client does wrong is no news."""


def _shut(request: socket.socket) -> None:
    with contextlib.suppress(OSError):
        socket.socket.shutdown(request, socket.SHUT_RDWR)  # of the plain socket, also under TLS


class _Handler(BaseHTTPRequestHandler):
    """Serves one connection."""

    protocol_version = "HTTP/1.1"
    timeout = _STALL
    command = path = ""  # until a request line was read

    @property
    def _listener(self) -> _Listener:
        return cast("_Listener", self.server)

    def handle_one_request(self) -> None:
        """Serve one request, unless the server stops."""
        if not self._listener.waits(self.connection):
            self.close_connection = True
            return
        super().handle_one_request()

    def version_string(self) -> str:
        """Return what the Server header says."""
        return "castoff"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the name of the method that it replaces)
        """Log nothing: see `_log`."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer a request whose head is not well formed."""
        del explain
        refusal = RefusalError("UNSUPPORTED", message or "the request is not well formed", status=int(code))
        self.close_connection = True
        self._send(Response(refusal.status, (("Content-Type", "application/json"),), refusal.body()))
        self._linger()

    def _serve(self) -> None:
        self._listener.works(self.connection)
        body: SizedBody | ChunkedBody | NoBody = NoBody()
        try:
            body = self._body()
            response = self._answer(body)
        except RefusalError as error:
            headers = (("Content-Type", "application/json"), *error.headers)
            response = Response(error.status, headers, error.body())
            self.close_connection = True
        except ConnectionError:
            self.close_connection = True
            return
        except CastoffError as error:
            refusal = RefusalError("UNKNOWN", "the registry can't read or write what it keeps")
            self._log(f"error: {error.message}")
            response = Response(500, (("Content-Type", "application/json"),), refusal.body())
        if not isinstance(body, NoBody) and not body.is_read:
            self.close_connection = True
        try:
            self._send(response)
        finally:
            if response.file is not None:
                response.file.close()
        if self.close_connection:
            self._linger()

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815  (http.server's names)

    def _answer(self, body: SizedBody | ChunkedBody | NoBody) -> Response:
        passwords = self._listener.passwords
        if passwords is not None and not passwords.allows(self.headers.get("Authorization", "")):
            challenge = ("WWW-Authenticate", 'Basic realm="castoff registry", charset="UTF-8"')
            raise RefusalError("UNAUTHORIZED", "a name and a password are wanted", headers=(challenge,))
        parts = urllib.parse.urlsplit(self.path if self.path.startswith("/v2") else "/")
        if parts.query.count("&") >= _MAX_FIELDS:
            raise RefusalError("UNSUPPORTED", f"the query has more than {_MAX_FIELDS} fields", status=400)
        query = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
        path = urllib.parse.unquote(parts.path, errors="replace")
        headers = cast("Any", self.headers)
        return self._listener.api.handle(Request(self.command, path, query, headers, body))

    def _body(self) -> SizedBody | ChunkedBody | NoBody:
        """Return the body of the request.

        Raises:
            RefusalError: its length can't be told.
        """
        length, coding = self.headers.get_all("Content-Length", []), self.headers.get_all("Transfer-Encoding", [])
        if coding:
            if length or len(coding) != 1 or coding[0].strip().lower() != "chunked":
                raise RefusalError("UNSUPPORTED", "the length of the body can't be told", status=400)
            return ChunkedBody(cast("Any", self.rfile))
        if not length:
            return NoBody()
        if len(set(length)) != 1 or not (length[0].isascii() and length[0].isdigit() and len(length[0]) < 19):
            raise RefusalError("UNSUPPORTED", "the length of the body can't be told", status=400)
        return SizedBody(cast("Any", self.rfile), int(length[0]))

    def _send(self, response: Response) -> None:
        self.send_response(response.status)
        for name, value in response.headers:
            self.send_header(name, _clean(value))
        if response.status not in (204, 304):
            self.send_header("Content-Length", str(response.length))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD" and response.status not in (204, 304):
            self.wfile.write(response.body)
            if response.file is not None and response.span[1]:
                self.connection.sendfile(response.file, *response.span)
        self._log(f"{self.command} {self.path[:512]!a} {response.status}")

    def _linger(self) -> None:
        """Read some of what the client still sends: where it is cut off at once, it may never see the answer."""
        with contextlib.suppress(OSError, ValueError):
            self.wfile.flush()
            self.connection.settimeout(2.0)
            socket.socket.shutdown(self.connection, socket.SHUT_WR)
            left = _LINGER
            while left > 0 and (data := self.connection.recv(1 << 16)):
                left -= len(data)

    def _log(self, line: str) -> None:
        if self._listener.log is not None:
            self._listener.log(line)


def _clean(value: str) -> str:
    """Return a value that can't be taken for more than one header."""
    return "".join(character if " " <= character <= "~" else "?" for character in value)
