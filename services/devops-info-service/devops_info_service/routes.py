"""The route table: every path, what it is for, and the handler that answers it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from devops_info_service.handlers.health import health
from devops_info_service.handlers.index import index
from devops_info_service.handlers.metrics import metrics
from devops_info_service.handlers.openapi import openapi
from devops_info_service.handlers.ready import ready
from devops_info_service.handlers.version import version
from devops_info_service.service import Service


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A route. `listed` tells whether GET / lists it: the document about the service is none of its facts."""

    path: str
    description: str
    answer: Callable[[Service, Request], Response]
    listed: bool = True


ENDPOINTS = (
    Endpoint("/", "Facts about the service, the system and the request", index),
    Endpoint("/health", "Liveness: the process answers", health),
    Endpoint("/ready", "Readiness: 503 while the service drains", ready),
    Endpoint("/version", "Version of the service and of its runtime", version),
    Endpoint("/metrics", "Metrics in the Prometheus text format", metrics),
    Endpoint("/openapi.json", "This description of the service, as OpenAPI 3.1", openapi, listed=False),
)


def listed_endpoints() -> list[dict[str, object]]:
    """Return what GET / says of the routes."""
    return [{"path": e.path, "method": "GET", "description": e.description} for e in ENDPOINTS if e.listed]
