"""Makes the application: the route table behind the middleware that logs and measures."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from devops_info_service import responses
from devops_info_service.log import Log
from devops_info_service.observe import Observe
from devops_info_service.routes import ENDPOINTS, Endpoint, listed_endpoints
from devops_info_service.service import Service


def create_service(log: Log) -> Service:
    """Return the state of a service that starts now."""
    return Service(log, listed_endpoints())


def create_app(service: Service) -> Starlette:
    """Return the application of a service: an ASGI callable."""
    paths = frozenset(endpoint.path for endpoint in ENDPOINTS)
    app = Starlette(
        routes=[Route(entry.path, _bind(entry, service), methods=["GET"], name=entry.path) for entry in ENDPOINTS],
        middleware=[Middleware(Observe, service=service, paths=paths)],
        exception_handlers={405: _wrong_method},
    )
    app.router.redirect_slashes = False
    return app


def _bind(entry: Endpoint, service: Service) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return entry.answer(service, request)

    return endpoint


async def _wrong_method(request: Request, _cause: Exception) -> Response:
    return responses.method_not_allowed(request.method)
