"""What every request gets whatever answers it: a log record, a measure, limits, an answer when its handler fails."""

from __future__ import annotations

import time
import traceback
from typing import NamedTuple

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from devops_info_service import responses
from devops_info_service.metrics import OTHER
from devops_info_service.service import Service
from devops_info_service.target import remote_address, target_of, user_agent

MAX_HEADERS = 16 << 10
"""Bytes of names and values of header fields."""


VERSIONS = frozenset({"1.0", "1.1"})
REFUSED = frozenset({431, 505})
"""Statuses after which nothing more is read from a connection."""


class Seen(NamedTuple):
    """A request as logs and metrics know it: `label` is its path where that is known, else OTHER."""

    method: str
    path: str
    escaped: str
    label: str
    remote: str

    @classmethod
    def of(cls, scope: Scope, paths: frozenset[str]) -> Seen:
        """Read a request."""
        path, escaped = target_of(scope)
        return cls(scope["method"], path, escaped, path if path in paths else OTHER, remote_address(scope))

    @property
    def message(self) -> str:
        """Return what the log says of the request."""
        if self.label == "/health" and self.method in ("GET", "HEAD"):
            return f"Health check from {self.remote}"
        return f"Request: {self.method} {self.escaped} from {self.remote}"


class Observe:
    """Wraps the application (ASGI middleware)."""

    def __init__(self, app: ASGIApp, service: Service, paths: frozenset[str]) -> None:
        self._app = app
        self._service = service
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, log and measure it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        service, log = self._service, self._service.log
        seen = Seen.of(scope, self._paths)
        if not log.as_json:
            log.info(seen.message)
        if not await read_body(receive):
            return  # the client went away before it had asked
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if service.draining or status in REFUSED:
                    MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        try:
            await self._answer(seen, scope, receive, answer)
        except Exception as cause:
            self._log_failure(seen, cause)
            if status:
                raise  # part of an answer is on its way: only a broken connection tells the client
            failed = responses.error(500, "The service failed to answer this request")
            await failed(scope, receive, answer)
        finally:
            elapsed = time.perf_counter() - start
            service.metrics.observe(seen.method, seen.label, status or 500, elapsed)
            if log.as_json:
                log.info(
                    seen.message,
                    method=seen.method,
                    path=seen.escaped,
                    remote_addr=seen.remote,
                    user_agent=user_agent(scope),
                    status=status,
                    duration_ms=round(elapsed * 1000, 3),
                )

    async def _answer(self, seen: Seen, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["http_version"] not in VERSIONS:
            await responses.error(505, "This service speaks HTTP/1.1 and HTTP/1.0")(scope, receive, send)
        elif sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADERS:
            await responses.error(431, f"The header is larger than {MAX_HEADERS} bytes")(scope, receive, send)
        elif seen.label is OTHER:
            # Here, since a route's pattern also matches a path with a line feed at its end.
            await responses.not_found(seen.escaped)(scope, receive, send)
        else:
            await self._app({**scope, "path": seen.path}, receive, send)

    def _log_failure(self, seen: Seen, cause: Exception) -> None:
        message = f"Failure: {seen.method} {seen.escaped}: {cause!r}"
        stack = "".join(traceback.format_exception(cause))
        if self._service.log.as_json:
            self._service.log.fail(message, stack=stack)
            return
        self._service.log.fail(message)
        for line in stack.strip().splitlines():
            self._service.log.fail(f"  {line}")


async def read_body(receive: Receive) -> bool:
    """Read a request to its end, keeping nothing; return False where the client goes away before that.

    No route has a use for a body. One that stays unread would break the connection for the next request. The server
    bounds the time that this may take.
    """
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return False
        if not message.get("more_body", False):
            return True
