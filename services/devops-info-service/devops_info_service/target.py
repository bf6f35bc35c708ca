"""Reads from a request what logs and answers show of it."""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import unquote

from starlette.types import Scope

_MAPPED = "::ffff:"  # IPv4 as a socket for both sees it


class Target(NamedTuple):
    """The path of a request: decoded, and in the escaped form of the client, which has no control characters."""

    path: str
    escaped: str


def target_of(scope: Scope) -> Target:
    """Return the path; "/" for a target without one, and that of the address for one in absolute form.

    Raw targets hold visible ASCII only: the server refuses all else (RFC 9112, section 3.2).
    """
    raw: str = scope["raw_path"].decode("latin-1")
    if raw.startswith("/"):
        return Target(scope["path"], raw)
    scheme, found, rest = raw.partition("://")
    if not found or "/" in scheme:
        return Target(scope["path"] or "/", raw or "/")
    _, slash, path = rest.partition("/")
    escaped = slash + path or "/"
    return Target(unquote(escaped), escaped)


def client_of(scope: Scope) -> tuple[str, int]:
    """Return address and port of the other end of the connection; an empty address where there is none."""
    client: Any = scope.get("client")
    if not client:
        return "", 0
    host, port = client
    return (host.removeprefix(_MAPPED) if "." in host else host), port


def remote_address(scope: Scope) -> str:
    """Return address and port of the other end as one text."""
    host, port = client_of(scope)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def user_agent(scope: Scope) -> str:
    """Return the User-Agent, "" for none; what is not UTF-8 in it becomes U+FFFD."""
    for name, value in scope["headers"]:
        if name == b"user-agent":
            text: str = value.decode("utf-8", "replace")
            return text
    return ""
