"""What a request to a registry says of who sends it: nothing, a password, or a token that was asked for.

A token is kept in memory for as long as it lives, and is asked for with the least that the request needs.

References: OCI distribution specification; Docker's token authentication and its OAuth2 form; RFC 6750.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

from castoff.errors import RegistryError, UnauthorizedError
from castoff.registry.challenge import parse_challenges
from castoff.registry.failure import refusal
from castoff.registry.transport import HttpRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from castoff.registry.challenge import Challenge
    from castoff.registry.credentials import Credentials, Keychain
    from castoff.registry.transport import HttpResponse

_LIFETIME = 60.0
"""Seconds that a token lives where the answer says nothing."""
_LONGEST_LIFETIME = 86400.0
_MARGIN = 0.9
_MAX_TOKEN_ANSWER = 1 << 20
_CLIENT = "castoff"


@dataclass(frozen=True, slots=True)
class _Token:
    value: str
    expires: float


class Authorizer:
    """Gives the Authorization header for requests to one registry. Safe for several threads."""

    def __init__(
        self,
        names: tuple[str, str],
        keychain: Keychain,
        send: Callable[[HttpRequest], HttpResponse],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take registry and repository by which credentials are looked up, and what sends a request for a token."""
        self._registry, self._repository = names
        self._keychain = keychain
        self._send = send
        self._clock = clock
        self._lock = threading.RLock()
        self._challenge: Challenge | None = None
        self._tokens: dict[frozenset[str], _Token] = {}
        self._secrets: set[str] = set()

    @property
    def secrets(self) -> tuple[str, ...]:
        """The texts that nothing may show."""
        with self._lock:
            return tuple(self._secrets)

    def header(self, scopes: Iterable[str], *, secure: bool = True) -> str:
        """Return the value of the header for a request; "" while the registry has not asked who sends it.

        Args:
            scopes: what the request needs, such as ``repository:r:pull``.
            secure: whether the registry is spoken to over https.

        Raises:
            RegistryError: a token was refused, or the credentials can't be read.
        """
        with self._lock:
            if self._challenge is None:
                return ""
            if self._challenge.scheme == "basic":
                credentials = self._credentials()
                return credentials.basic if credentials is not None else ""
            return f"Bearer {self._token(frozenset(scopes), secure)}"

    def learn(self, header: str, sent: str, scopes: Iterable[str], *, secure: bool = True) -> str:
        """Return the value of the header for another try of a request that was answered with 401; "" for no try.

        Args:
            header: WWW-Authenticate of the answer.
            sent: the value that the request had.
            scopes: what the request needs.
            secure: whether the registry is spoken to over https.

        Raises:
            RegistryError: a token was refused, or the credentials can't be read.
        """
        offered = {challenge.scheme: challenge for challenge in reversed(parse_challenges(header))}
        challenge = offered.get("bearer") or offered.get("basic")
        if challenge is None:
            return ""
        with self._lock:
            self._challenge = challenge
            if challenge.scheme == "basic":
                credentials = self._credentials()
                value = credentials.basic if credentials is not None and credentials.password else ""
                return "" if value == sent else value
            wanted = frozenset(scopes)
            token = self._tokens.get(wanted)
            if token is not None and sent == f"Bearer {token.value}":
                del self._tokens[wanted]  # it is not good any more
            return f"Bearer {self._token(wanted, secure)}"

    def _credentials(self) -> Credentials | None:
        credentials = self._keychain.get(self._registry, self._repository)
        if credentials is not None:
            self._secrets.update(credentials.secrets)
        return credentials

    def _token(self, scopes: frozenset[str], secure: bool) -> str:
        token = self._tokens.get(scopes)
        if token is None or token.expires <= self._clock():
            token = self._tokens[scopes] = self._ask(scopes, secure)
            self._secrets.add(token.value)
        return token.value

    def _ask(self, scopes: frozenset[str], secure: bool) -> _Token:
        """Ask the token server of the challenge for a token."""
        challenge = self._challenge
        assert challenge is not None
        realm = challenge.get("realm")
        parts = urlsplit(realm)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise RegistryError(f"{self._registry} wants a token from {realm!r}, which is no address of a server")
        if secure and parts.scheme == "http":
            raise RegistryError(
                f"{self._registry} wants a token from {parts.netloc} over plain http, where everybody could read it"
            )
        credentials = self._credentials()
        if credentials is not None and credentials.bearer_token:
            return _Token(_checked(credentials.bearer_token, self._registry), self._clock() + _LONGEST_LIFETIME)
        request = _token_request(challenge, sorted(_complete(challenge, scopes)), credentials)
        doing = f"get a token for {self._registry} from {parts.netloc}"
        with self._send(request) as response:
            if response.status != 200:
                error = refusal(response, doing, self.secrets)
                if response.status in (400, 401, 403) and not isinstance(error, UnauthorizedError):
                    error = UnauthorizedError(error.message, status=error.status, diagnostics=error.diagnostics)
                if isinstance(error, UnauthorizedError):
                    error.hint = _hint(self._registry, credentials)
                raise error
            data = response.read(_MAX_TOKEN_ANSWER)
        return self._read(data, doing)

    def _read(self, data: bytes, doing: str) -> _Token:
        try:
            value = json.loads(data)
            token = value.get("token") or value["access_token"]
            lifetime = value.get("expires_in") or _LIFETIME
            seconds = min(max(float(lifetime), _LIFETIME), _LONGEST_LIFETIME)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise RegistryError(f"can't {doing}: the answer holds none") from None
        return _Token(_checked(token, self._registry), self._clock() + seconds * _MARGIN)


def _token_request(challenge: Challenge, scopes: list[str], credentials: Credentials | None) -> HttpRequest:
    realm, service = challenge.get("realm"), challenge.get("service")
    if credentials is not None and credentials.identity_token:
        form = {
            "grant_type": "refresh_token",
            "refresh_token": credentials.identity_token,
            "service": service,
            "client_id": _CLIENT,
            "scope": " ".join(scopes),
        }
        body = urlencode({key: value for key, value in form.items() if value}).encode()
        return HttpRequest("POST", realm, {"Content-Type": "application/x-www-form-urlencoded"}, body, len(body))
    query = [("service", service)] if service else []
    query += [("scope", scope) for scope in scopes]
    headers = {}
    if credentials is not None and credentials.password:
        query.insert(0, ("account", credentials.username))
        headers["Authorization"] = credentials.basic
    separator = "&" if urlsplit(realm).query else "?"
    return HttpRequest("GET", f"{realm}{separator}{urlencode(query)}" if query else realm, headers)


def _complete(challenge: Challenge, scopes: frozenset[str]) -> set[str]:
    """Return what to ask for: what the request needs, or what the challenge names where that is not known."""
    return set(scopes) or set(challenge.get("scope").split())


def _checked(token: object, registry: str) -> str:
    """Return a token that can stand in a header."""
    if not isinstance(token, str) or not token or not token.isascii() or any(not "!" <= char <= "~" for char in token):
        raise RegistryError(f"the token for {registry} is not one that can be sent")
    return token


def _hint(registry: str, credentials: Credentials | None) -> str:
    if credentials is None:
        return f"log in first: castoff login {registry}"
    return f"its credentials are not accepted: log in again with castoff login {registry}"
