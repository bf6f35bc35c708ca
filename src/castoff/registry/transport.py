"""HTTP as a registry's client needs it: one exchange at a time; nothing is retried and no redirection is followed.

Time limits are for progress: a transfer that goes on, however slowly, is never ended; one that gives no byte is.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from castoff.errors import RegistryError, UsageError
from castoff.registry.proxies import proxy_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

CONNECT_SECONDS = 15.0
STALL_SECONDS = 60.0
"""How long a connection may give or take no byte."""
PIECE = 1 << 18
"""The most bytes that are read or sent at once."""
_MAX_CONNECTIONS = 16


class ConnectionFailedError(RegistryError):
    """There was no answer, or it broke off."""


class CanceledTransferError(RegistryError):
    """The transfers were given up by the caller."""


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """How a server is checked, and what is shown to it.

    Attributes:
        verify: whether its certificate must be valid.
        authorities: paths of PEM files with further certificate authorities.
        certificate: path of the client's certificate; "" for none.
        key: path of the client's key; "" where the certificate's file holds it.
    """

    verify: bool = True
    authorities: tuple[str, ...] = ()
    certificate: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request. Its headers, which may hold credentials, are never shown.

    Attributes:
        method: such as GET.
        url: absolute, http or https.
        headers: names and values.
        body: what is sent; a file is sent from where it stands.
        length: number of the body's bytes.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | BinaryIO | None = field(default=None, repr=False)
    length: int = 0


class HttpResponse(Protocol):
    """An answer whose body is read as it comes. A context manager: leaving it ends the exchange."""

    @property
    def status(self) -> int:
        """The status code."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The header fields; names in any case."""

    def read(self, limit: int) -> bytes:
        """Return the rest of the body, at most `limit` + 1 bytes.

        Raises:
            ConnectionFailedError: it broke off.
        """

    def __iter__(self) -> Iterator[bytes]:
        """Yield the body in pieces, none of them empty.

        Raises:
            ConnectionFailedError: it broke off.
        """

    def __enter__(self) -> HttpResponse:
        """Return itself."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the exchange."""


class Transport(Protocol):
    """Sends requests. Safe for several threads."""

    def send(self, request: HttpRequest, tls: TlsOptions) -> HttpResponse:
        """Send a request once and return the answer, whatever its status.

        Raises:
            ConnectionFailedError: there is none; `temporary` tells whether another try makes sense.
        """

    def close(self) -> None:
        """End all connections. Idempotent."""


class UrllibTransport:
    """A Transport over urllib3, with kept connections and the proxies of an environment."""

    def __init__(self, environment: Mapping[str, str], *, stall: float = STALL_SECONDS) -> None:
        """Take the environment, for proxies, and the seconds that a connection may be silent."""
        self._environment = environment
        self._stall = stall
        self._pools: dict[tuple[TlsOptions, str, str], Any] = {}
        self._lock = threading.Lock()
        self._active: set[_UrllibResponse] = set()
        self._closed = False

    def send(self, request: HttpRequest, tls: TlsOptions) -> HttpResponse:
        """Send a request once and return the answer; see `Transport`."""
        import urllib3

        headers = {"User-Agent": "castoff", "Accept-Encoding": "identity", **request.headers}
        if request.body is not None:
            headers["Content-Length"] = str(request.length)
        pool = self._pool(tls, request.url)
        try:
            raw = pool.urlopen(
                request.method,
                request.url,
                body=request.body,
                headers=headers,
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
                timeout=urllib3.Timeout(connect=min(CONNECT_SECONDS, self._stall), read=self._stall),
            )
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise self._failure(error, request.url) from error
        response = _UrllibResponse(raw, self, request.url)
        with self._lock:
            if self._closed:
                raw.close()
                raise CanceledTransferError("the transfers were given up")
            self._active.add(response)
        return response

    def _failure(self, error: Exception, url: str) -> RegistryError:
        if self._closed:
            return CanceledTransferError("the transfers were given up")
        from castoff.registry.failure import connection_failure

        return connection_failure(error, url, self._stall)

    def _pool(self, tls: TlsOptions, url: str) -> Any:
        key = (tls, proxy_for(url, self._environment), url.partition("://")[0])
        with self._lock:
            if self._closed:
                raise CanceledTransferError("the transfers were given up")
            pool = self._pools.get(key)
            if pool is None:
                pool = self._pools[key] = _new_pool(*key)
            return pool

    def forget(self, response: _UrllibResponse) -> None:
        """Note that an exchange is over."""
        with self._lock:
            self._active.discard(response)

    def close(self) -> None:
        """End all connections, also those that other threads wait on. Idempotent."""
        with self._lock:
            self._closed = True
            pools = list(self._pools.values())
            self._pools.clear()
            active = list(self._active)
        for response in active:
            response.abort()
        for pool in pools:
            pool.clear()


class _UrllibResponse:
    """An answer of urllib3."""

    def __init__(self, raw: Any, transport: UrllibTransport, url: str) -> None:
        self._raw = raw
        self._transport = transport
        self._url = url

    @property
    def status(self) -> int:
        return int(self._raw.status)

    @property
    def headers(self) -> Mapping[str, str]:
        return self._raw.headers  # type: ignore[no-any-return]

    def read(self, limit: int) -> bytes:
        data = bytearray()
        for piece in self:
            data += piece
            if len(data) > limit:
                break
        return bytes(data[: limit + 1])

    def __iter__(self) -> Iterator[bytes]:
        import urllib3

        try:
            while piece := self._raw.read1(PIECE):
                yield piece
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise self._transport._failure(error, self._url) from error  # noqa: SLF001  (of the same module)

    def abort(self) -> None:
        """Let whoever waits for more bytes wake up."""
        import contextlib

        # What the exchange does meanwhile, in its own thread, may have ended it.
        with contextlib.suppress(Exception):
            self._raw.shutdown()

    def __enter__(self) -> _UrllibResponse:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._transport.forget(self)
        left = self._raw.length_remaining
        if error is None and left is not None and left <= PIECE:
            self._raw.drain_conn()  # so that the connection can be used again
        # A body that was read to its end has given its connection back; any other is of no use.
        self._raw.close()


def _new_pool(tls: TlsOptions, proxy: str, scheme: str) -> Any:
    """Return what keeps connections.

    Raises:
        UsageError: a file of `tls` can't be read.
    """
    import urllib3

    options: dict[str, Any] = {"maxsize": _MAX_CONNECTIONS, "num_pools": _MAX_CONNECTIONS, "blocksize": PIECE}
    if scheme == "https":
        options["ssl_context"] = _context(tls)
    manager: urllib3.PoolManager
    if proxy:
        from urllib.parse import unquote, urlsplit

        parts = urlsplit(proxy)
        if parts.username is not None:
            user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            options["proxy_headers"] = urllib3.make_headers(proxy_basic_auth=user)
            proxy = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        manager = urllib3.ProxyManager(proxy, **options)
    else:
        manager = urllib3.PoolManager(**options)
    if not tls.verify:
        manager.pool_classes_by_scheme = {**manager.pool_classes_by_scheme, "https": _unverified_pool()}
    return manager


def _context(tls: TlsOptions) -> Any:
    import ssl

    context = ssl.create_default_context()
    path = ""
    try:
        for path in tls.authorities:
            context.load_verify_locations(path)
        if tls.certificate:
            path = tls.certificate
            # Without a password here, OpenSSL would ask the terminal for the one of an encrypted key.
            context.load_cert_chain(path, tls.key or None, password=lambda: b"")
    except (OSError, ValueError) as error:
        raise UsageError(
            f"the certificate {path} can't be read: {getattr(error, 'reason', None) or error}",
            hint="certificates and keys are PEM files; a key must not be encrypted",
        ) from error
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _unverified_pool() -> Any:
    """Return a pool whose connections were asked not to verify: urllib3 need not warn of it."""
    from urllib3.connection import HTTPSConnection
    from urllib3.connectionpool import HTTPSConnectionPool

    class Connection(HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            self.is_verified = True

    class Pool(HTTPSConnectionPool):
        ConnectionCls = Connection

    return Pool
