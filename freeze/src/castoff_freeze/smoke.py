"""The smoke description: what the service is asked, before and after it is frozen.

A TOML file::

    [service]
    port = 8000                  # or port-variable = "PORT": a free port is chosen where the network is shared
    ready = "/health"            # asked until it answers
    start-seconds = 30
    environment = { LOG_FORMAT = "json" }

    [[request]]
    method = "POST"
    path = "/items"
    headers = { accept = "application/json" }
    json = { name = "tea" }      # or body = "text"
    status = 201
    ignore = ["id", "links.*.href"]
    compare = "body"             # or "type": status and content type only

    [[command]]                  # instead of a service: runs of the entry itself
    arguments = ["--version"]
    stdin = ""
    exit = 0
    ignore-output = false
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from castoff_freeze.errors import UsageError

_MAX_FILE = 1 << 20
_T = TypeVar("_T")
_METHODS = frozenset("GET HEAD POST PUT PATCH DELETE OPTIONS".split())


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request and what it should be answered.

    Attributes:
        method: in upper case.
        path: with its query, beginning with ``/``.
        headers: sent besides Host and Content-Length.
        body: bytes to send.
        status: expected status code.
        ignore: members of a JSON answer that may differ, as ``a.b``; ``*`` is any member or index.
        whole: whether the body is compared too.
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    status: int = 200
    ignore: tuple[str, ...] = ()
    whole: bool = True

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True)
class Command:
    """One run of the entry.

    Attributes:
        arguments: after the entry's own.
        stdin: what it reads.
        exit: expected exit code.
        whole: whether the output is compared.
    """

    arguments: tuple[str, ...] = ()
    stdin: bytes = b""
    exit: int = 0
    whole: bool = True

    def __str__(self) -> str:
        return " ".join(("command", *self.arguments))


@dataclass(frozen=True, slots=True)
class Smoke:
    """A smoke description.

    Attributes:
        requests: asked in this order of one process; none where commands are run.
        commands: run one after the other, each a process.
        port: TCP port that the service listens on.
        port_variable: environment variable that sets the port, or "".
        ready: path that is asked until it answers, or "" to wait for the port alone.
        start_seconds: how long the service may take to be ready.
        environment: variables of the process.
    """

    requests: tuple[Request, ...] = ()
    commands: tuple[Command, ...] = ()
    port: int = 8000
    port_variable: str = ""
    ready: str = ""
    start_seconds: float = 30.0
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def asked(self) -> tuple[Request | Command, ...]:
        """Return the requests or commands."""
        return self.requests or self.commands


def read_smoke(path: str) -> Smoke:
    """Read a smoke description.

    Raises:
        UsageError: it can't be read, or says something that is unknown.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(_MAX_FILE + 1)
    except OSError as error:
        raise UsageError(f"cannot read the smoke description {path}: {error.strerror}") from error
    if len(text) > _MAX_FILE:
        raise UsageError(f"the smoke description {path} is larger than {_MAX_FILE} bytes")
    try:
        document = tomllib.loads(text.decode())
    except ValueError as error:
        raise UsageError(f"the smoke description {path} is not TOML: {error}") from error
    try:
        return _smoke(document)
    except _WrongError as error:
        raise UsageError(f"smoke description {path}: {error}") from error


class _WrongError(Exception):
    """One thing is wrong with a description; the message says what."""


class _Table:
    """A table of the description, whose members are taken out one by one; what is left at the end is unknown."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise _WrongError(f"{where} must be a table")
        self._rest: dict[str, Any] = dict(value)
        self._where = where

    def take(self, name: str, kind: type[_T], default: _T) -> _T:
        value = self._rest.pop(name, default)
        wrong = isinstance(value, bool) and kind is not bool
        if wrong or not isinstance(value, kind):
            raise _WrongError(f"{self._where}: {name} must be {_KINDS[kind]}")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        value = self.take(name, list, [])
        if not all(isinstance(item, str) for item in value):
            raise _WrongError(f"{self._where}: {name} must hold texts only")
        return tuple(value)

    def pairs(self, name: str) -> dict[str, str]:
        value = self.take(name, dict, {})
        if not all(isinstance(item, str) for item in value.values()):
            raise _WrongError(f"{self._where}: {name} must hold texts only")
        return value

    def has(self, name: str) -> bool:
        return name in self._rest

    def end(self) -> None:
        if self._rest:
            raise _WrongError(f"{self._where}: nothing is known of {', '.join(sorted(self._rest))}")


_KINDS: dict[type, str] = {
    str: "a text",
    int: "a whole number",
    list: "a list",
    dict: "a table",
    bool: "true or false",
    object: "a value",
}


def _smoke(document: dict[str, Any]) -> Smoke:
    top = _Table(document, "the file")
    service = _Table(top.take("service", dict, {}), "[service]")
    requests = tuple(
        _request(_Table(item, f"[[request]] {number}")) for number, item in enumerate(top.take("request", list, []), 1)
    )
    commands = tuple(
        _command(_Table(item, f"[[command]] {number}")) for number, item in enumerate(top.take("command", list, []), 1)
    )
    top.end()
    if bool(requests) == bool(commands):
        raise _WrongError("it must hold either requests or commands")
    port = service.take("port", int, 8000)
    if not 0 < port < 65536:
        raise _WrongError(f"[service]: port must be from 1 to 65535, not {port}")
    smoke = Smoke(
        requests,
        commands,
        port=port,
        port_variable=service.take("port-variable", str, ""),
        ready=service.take("ready", str, ""),
        start_seconds=float(service.take("start-seconds", int, 30)),
        environment=service.pairs("environment"),
    )
    service.end()
    return smoke


def _request(table: _Table) -> Request:
    method = table.take("method", str, "GET").upper()
    path = table.take("path", str, "/")
    headers = {name.lower(): value for name, value in table.pairs("headers").items()}
    body = table.take("body", str, "").encode()
    if method not in _METHODS:
        raise _WrongError(f"{method} is not a method that can be asked")
    if not path.startswith("/") or any(ord(letter) < 33 for letter in path):
        raise _WrongError(f"the path {path!r} must begin with / and have no blanks")
    if any(letter in text for pair in headers.items() for text in pair for letter in "\r\n"):
        raise _WrongError("a header cannot hold line breaks")
    if table.has("json"):
        body = json.dumps(table.take("json", object, None), separators=(",", ":")).encode()
        headers.setdefault("content-type", "application/json")
    compare = table.take("compare", str, "body")
    if compare not in ("body", "type"):
        raise _WrongError(f"compare is either body or type, not {compare!r}")
    request = Request(
        method, path, headers, body, table.take("status", int, 200), table.texts("ignore"), compare == "body"
    )
    table.end()
    return request


def _command(table: _Table) -> Command:
    command = Command(
        table.texts("arguments"),
        table.take("stdin", str, "").encode(),
        table.take("exit", int, 0),
        not table.take("ignore-output", bool, False),
    )
    table.end()
    return command
