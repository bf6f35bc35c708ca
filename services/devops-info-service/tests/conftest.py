"""A service without a server: requests are given to the application as a server gives them (ASGI)."""

from __future__ import annotations

import asyncio
import io
import json
from dataclasses import dataclass
from typing import Any

import pytest

from devops_info_service.app import create_app, create_service
from devops_info_service.log import Log
from devops_info_service.service import Service


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Asks a service; what it logs is in `log`."""

    def __init__(self, *, as_json: bool = False) -> None:
        self._stream = io.StringIO()
        self.service: Service = create_service(Log(self._stream, as_json=as_json))
        self.app = create_app(self.service)

    @property
    def log(self) -> list[str]:
        return self._stream.getvalue().splitlines()

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        raw = path.partition("?")[0].encode()
        fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": raw.decode(),
            "raw_path": raw,
            "query_string": path.partition("?")[2].encode(),
            "root_path": "",
            "headers": fields,
            "client": ("192.0.2.7", 4711),
            "server": ("192.0.2.1", 80),
            "state": {},
        }
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(dict(message))

        asyncio.run(self.app(scope, receive, send))
        start, *bodies = sent
        found = {name.decode(): value.decode() for name, value in start["headers"]}
        return Answer(start["status"], found, b"".join(message.get("body", b"") for message in bodies))


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def json_client() -> Client:
    return Client(as_json=True)
