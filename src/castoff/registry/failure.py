"""What a registry's refusals and a network's failures mean to a person: one sentence, with the registry's own words."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from castoff.errors import RegistryError, UnauthorizedError
from castoff.registry.transport import ConnectionFailedError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from castoff.registry.transport import HttpResponse

TEMPORARY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed."""
_MAX_BODY = 64 << 10
_MAX_WORDS = 400
_CERTIFICATE_HINT = (
    "name its certificate authority (--registry-ca FILE, or registries.toml), or trust it blindly "
    "(--registry-insecure HOST)"
)


class NotFoundError(RegistryError):
    """The registry does not have it."""


def refusal(response: HttpResponse, doing: str, secrets: Iterable[str] = ()) -> RegistryError:
    """Return the error for an answer that is no success; its body is read.

    Args:
        response: the answer.
        doing: what was asked, such as ``get the manifest of r:latest from h``.
        secrets: texts that the registry's words must not repeat.
    """
    status = response.status
    try:
        words = diagnostics(response.read(_MAX_BODY), secrets)
    except RegistryError:
        words = ""
    said = f": {words}" if words else ""
    message = f"can't {doing}: the registry answered {status}{said}"
    if status == 401:
        return UnauthorizedError(
            message, status=status, diagnostics=words, hint="log in with castoff login, or check the reference"
        )
    if status == 403:
        return UnauthorizedError(
            message, status=status, diagnostics=words, hint="the user of these credentials may not do this"
        )
    if status == 404:
        return NotFoundError(message, status=status, diagnostics=words, hint="check the spelling of the reference")
    hint = None
    if status == 429:
        hint = "wait a while; logging in (castoff login) often raises the limit"
    elif status == 400 and "HTTPS" in words:
        hint = "the registry speaks https: name its certificate authority with --registry-ca FILE"
    elif 300 <= status < 400:
        hint = "it sends the request elsewhere, where this one is not sent"
    return RegistryError(message, status=status, diagnostics=words, temporary=status in TEMPORARY, hint=hint)


def diagnostics(body: bytes, secrets: Iterable[str] = ()) -> str:
    """Return a registry's own words in one line: those of its JSON errors, or the beginning of a plain text.

    References: OCI distribution specification, "Error Codes".
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        text = body.decode("utf-8", "replace")
        return "" if "<" in text else _one_line(text, secrets)  # a page for browsers says nothing here
    errors = value.get("errors") if isinstance(value, dict) else None
    if isinstance(value, dict) and not errors:
        errors = [value]
    if not isinstance(errors, list):
        return ""
    parts = []
    for error in errors[:5]:
        if not isinstance(error, dict):
            continue
        code, message = error.get("code"), error.get("message") or error.get("details") or error.get("error")
        words = [str(item) for item in (code, message) if isinstance(item, str) and item]
        detail = error.get("detail")
        if isinstance(detail, str) and detail:
            words.append(detail)
        elif isinstance(detail, dict) and detail:
            words.append(json.dumps(detail, sort_keys=True))
        if words:
            parts.append(": ".join(words))
    return _one_line("; ".join(parts), secrets)


def _one_line(text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    cleaned = " ".join("".join(char if char.isprintable() else " " for char in text[: 4 * _MAX_WORDS]).split())
    return cleaned if len(cleaned) <= _MAX_WORDS else f"{cleaned[:_MAX_WORDS]}…"


def connection_failure(error: Exception, url: str, stall: float) -> RegistryError:
    """Return the error for an exchange that had no answer, or whose answer broke off."""
    import ssl

    import urllib3.exceptions as kinds

    host = urlsplit(url).netloc.rpartition("@")[2]
    chain = _chain(error)
    if any(isinstance(one, kinds.ProxyError) for one in chain):
        return ConnectionFailedError(
            f"can't reach {host} through the proxy: {_reason(chain)}",
            hint="check HTTPS_PROXY, HTTP_PROXY and NO_PROXY",
            temporary=True,
        )
    certificate = next((one for one in chain if isinstance(one, ssl.SSLCertVerificationError)), None)
    if certificate is not None:
        reason = certificate.verify_message or "it is not valid"
        return ConnectionFailedError(f"the certificate of {host} can't be verified: {reason}", hint=_CERTIFICATE_HINT)
    if any(isinstance(one, ssl.SSLError | kinds.SSLError) for one in chain):
        return ConnectionFailedError(
            f"no secure connection to {host}: {_reason(chain)}",
            hint=f"if it speaks plain http, say --registry-insecure {host}",
        )
    if any(isinstance(one, kinds.NameResolutionError | socket.gaierror) for one in chain):
        return ConnectionFailedError(
            f"the name of the host {host} is not known", hint="check the reference, and this machine's network"
        )
    if any(isinstance(one, kinds.NewConnectionError | ConnectionRefusedError) for one in chain):
        return ConnectionFailedError(
            f"can't reach {host}: {_reason(chain)}", hint="is it up, and reachable?", temporary=True
        )
    if any(isinstance(one, kinds.ConnectTimeoutError) for one in chain):
        return ConnectionFailedError(f"{host} did not answer", hint="is it up, and reachable?", temporary=True)
    if any(isinstance(one, kinds.TimeoutError | TimeoutError) for one in chain):
        return ConnectionFailedError(
            f"{host} gave no byte for {stall:g} seconds", hint="is it up, and the network too?", temporary=True
        )
    return ConnectionFailedError(
        f"the connection to {host} broke off: {_reason(chain)}", hint="is it up, and the network too?", temporary=True
    )


def _chain(error: BaseException) -> list[BaseException]:
    """Return an error and all that it wraps, whichever way."""
    found: list[BaseException] = []
    pending: list[object] = [error]
    while pending and len(found) < 20:
        one = pending.pop(0)
        if not isinstance(one, BaseException) or one in found:
            continue
        found.append(one)
        pending += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
    return found


def _reason(chain: list[BaseException]) -> str:
    """Return the system's own words, or the kind of the error: never its text, in which a header may stand."""
    import ssl

    for one in chain:
        if isinstance(one, ssl.SSLError) and one.reason:
            return one.reason.replace("_", " ").lower()
    for one in chain:
        if isinstance(one, OSError) and one.strerror:
            return one.strerror.lower()
    name = type(chain[-1]).__name__
    return {"IncompleteRead": "it ended too early", "RemoteDisconnected": "it was closed without an answer"}.get(
        name, name
    )
