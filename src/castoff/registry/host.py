"""One server of a registry: requests with credentials, tried again where that makes sense, redirections followed.

Credentials go to the server itself and to the token server that it names, and nowhere else: where a redirection leads
to another origin they are left out, and none leads from https to http.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from castoff.errors import RegistryError
from castoff.registry.authorization import Authorizer
from castoff.registry.backoff import Backoff, retry_after
from castoff.registry.credentials import AnonymousKeychain
from castoff.registry.failure import TEMPORARY, refusal
from castoff.registry.transport import CanceledTransferError, ConnectionFailedError, HttpRequest, TlsOptions

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import BinaryIO

    from castoff.registry.backoff import RetryPolicy
    from castoff.registry.config import Endpoint
    from castoff.registry.credentials import Keychain
    from castoff.registry.transport import HttpResponse, Transport

MAX_REDIRECTIONS = 5
_REDIRECTIONS = frozenset({301, 302, 303, 307, 308})
_KEEP_METHOD = frozenset({307, 308})
_SAFE = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a server, before it has an address and credentials.

    Attributes:
        method: such as GET.
        target: a path below the server, or an absolute URL that the server itself named.
        doing: what it is for, in messages: ``get the manifest of r:latest from h``.
        scopes: what the credentials must allow, such as ``repository:r:pull``.
        headers: further headers.
        body: what is sent; a file is sent from where it stands, once.
        length: number of the body's bytes.
        expected: the statuses that are a success.
    """

    method: str
    target: str
    doing: str
    scopes: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | BinaryIO | None = field(default=None, repr=False)
    length: int = 0
    expected: tuple[int, ...] = (200,)


class RegistryHost:
    """A server as an endpoint describes it. Safe for several threads."""

    def __init__(self, endpoint: Endpoint, transport: Transport, keychain: Keychain, policy: RetryPolicy) -> None:
        self.endpoint = endpoint
        self.policy = policy
        self._transport = transport
        self._lock = threading.Lock()
        self._scheme = endpoint.schemes[0] if len(endpoint.schemes) == 1 else ""
        names = (endpoint.registry, endpoint.repository)
        self._authorizer = Authorizer(names, keychain, self._send_for_token)

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.endpoint.host

    def anonymous(self) -> RegistryHost:
        """Return what sends requests to anywhere else with the same patience, and without credentials."""
        endpoint = replace(self.endpoint, registry="", host="", schemes=("http",), tls=TlsOptions())
        return RegistryHost(endpoint, self._transport, AnonymousKeychain(), self.policy)

    def base(self) -> str:
        """Return the address that all paths are below, such as ``https://host``.

        Raises:
            RegistryError: it answers neither over https nor over http.
        """
        with self._lock:
            if not self._scheme:
                self._scheme = self._choose()
            return f"{self._scheme}://{self.endpoint.host}"

    def send(self, call: Call) -> HttpResponse:
        """Send a request and return its answer, whose status is one of those expected.

        A request without a body, or with one in memory, is tried again after a failure that may pass.

        Raises:
            NotFoundError: the answer was 404.
            UnauthorizedError: the answer was 401 or 403, or no token was to be had.
            RegistryError: any other failure; the last one, after all tries.
        """
        backoff = Backoff(self.policy)
        once = call.body is not None and not isinstance(call.body, bytes)
        while True:
            pause: float | None = None
            try:
                response = self._authorized(call)
            except ConnectionFailedError as error:
                failure: RegistryError = error
            else:
                if response.status in call.expected:
                    return response
                with response:
                    failure = refusal(response, call.doing, self._authorizer.secrets)
                    pause = retry_after(response.headers.get("Retry-After", ""), time.time())
            if not failure.temporary or once or not backoff.wait(pause):
                if self.policy.canceled.is_set():
                    raise CanceledTransferError("the transfers were given up")
                raise failure

    def fetch(self, call: Call, limit: int) -> tuple[bytes, Mapping[str, str]]:
        """Send a request and return the whole body of its answer, up to `limit` + 1 bytes, and the headers.

        Raises:
            RegistryError: as of `send`; a body that breaks off is asked for again.
        """
        backoff = Backoff(self.policy)
        while True:
            with self.send(call) as response:
                try:
                    return response.read(limit), response.headers
                except ConnectionFailedError as error:
                    failure = error
            if not failure.temporary or not backoff.wait():
                raise failure

    def secrets(self) -> tuple[str, ...]:
        """Return the texts that nothing may show."""
        return self._authorizer.secrets

    def _choose(self) -> str:
        """Return the first scheme over which a registry answers."""
        failures: list[RegistryError] = []
        for scheme in self.endpoint.schemes:
            request = HttpRequest("GET", f"{scheme}://{self.endpoint.host}/v2/")
            try:
                with self._transport.send(request, self.endpoint.tls) as response:
                    said = response.read(4096)
                    # What Go's servers say to somebody who speaks http to a port of https.
                    if scheme == "https" or not (response.status == 400 and b"HTTPS" in said.upper()):
                        return scheme
            except CanceledTransferError:
                raise
            except RegistryError as error:
                failures.append(error)
        if not failures:
            return self.endpoint.schemes[-1]
        # What is not there at all says the same over both; else the second try says more.
        raise failures[0]

    def _authorized(self, call: Call) -> HttpResponse:
        """Send a request with what is known of its sender, and once more with what the server asks for."""
        base = self.base()
        secure = base.startswith("https:")
        url = self._redirected(f"{base}/", call.target, call.doing)
        value = self._authorizer.header(call.scopes, secure=secure)
        start = _place(call.body)
        response = self._follow(call, url, value)
        if response.status != 401:
            return response
        with response:
            challenge = response.headers.get("WWW-Authenticate", "")
            again = self._authorizer.learn(challenge, value, call.scopes, secure=secure)
            if not again:
                failure = refusal(response, call.doing, self._authorizer.secrets)
                raise failure
        _rewind(call.body, start)
        return self._follow(call, url, again)

    def _follow(self, call: Call, url: str, authorization: str) -> HttpResponse:
        """Send a request, and follow where the answers lead; credentials stay with the server's own origin."""
        method = call.method
        own, start = _origin(self.base()), _place(call.body)
        for _ in range(MAX_REDIRECTIONS + 1):
            headers = dict(call.headers)
            if authorization and _origin(url) == own:
                headers["Authorization"] = authorization
            request = HttpRequest(method, url, headers, call.body, call.length)
            response = self._transport.send(request, self._tls(url))
            location = response.headers.get("Location", "")
            if response.status not in _REDIRECTIONS or not location or response.status in call.expected:
                return response
            if method not in _SAFE and response.status not in _KEEP_METHOD:
                return response
            _rewind(call.body, start)
            with response:
                url = self._redirected(url, location, call.doing)
        raise RegistryError(f"can't {call.doing}: the registry redirects in a circle")

    def _redirected(self, url: str, location: str, doing: str) -> str:
        try:
            target = urljoin(url, location)
            parts = urlsplit(target)
            valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError as error:
            raise RegistryError(f"can't {doing}: the registry redirects to what is no http address") from error
        if not valid or "@" in parts.netloc or any(not "!" <= char <= "~" for char in target):
            raise RegistryError(f"can't {doing}: the registry redirects to what is no http address")
        if url.startswith("https:") and parts.scheme == "http":
            raise RegistryError(f"can't {doing}: the registry redirects from https to plain http ({parts.netloc})")
        return target

    def _tls(self, url: str) -> TlsOptions:
        """Return how the server of a URL is checked: the endpoint's certificates are for the endpoint alone."""
        return self.endpoint.tls if urlsplit(url).netloc == self.endpoint.host else TlsOptions()

    def _send_for_token(self, request: HttpRequest) -> HttpResponse:
        """Send a request for a token, and try again after a failure that may pass."""
        backoff = Backoff(self.policy)
        while True:
            pause: float | None = None
            try:
                response = self._transport.send(request, self._tls(request.url))
            except ConnectionFailedError as error:
                if not error.temporary or not backoff.wait():
                    raise
                continue
            if response.status in _REDIRECTIONS and (target := response.headers.get("Location", "")):
                with response:
                    moved = self._redirected(request.url, target, f"get a token from {urlsplit(request.url).netloc}")
                if _origin(moved) == _origin(request.url) and request.method in _SAFE and backoff.wait(0.0):
                    request = replace(request, url=moved)
                    continue
                raise RegistryError(
                    f"can't get a token from {urlsplit(request.url).netloc}: it sends the request elsewhere"
                )
            if response.status in TEMPORARY:
                pause = retry_after(response.headers.get("Retry-After", ""), time.time())
                if backoff.wait(pause):
                    response.__exit__(None, None, None)
                    continue
            return response


def _place(body: bytes | BinaryIO | None) -> int:
    """Return where a body begins, so that it can be sent again."""
    return 0 if body is None or isinstance(body, bytes) else body.tell()


def _rewind(body: bytes | BinaryIO | None, place: int) -> None:
    if body is not None and not isinstance(body, bytes):
        body.seek(place)


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or {"http": 80, "https": 443}.get(parts.scheme)
