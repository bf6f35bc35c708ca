"""GET /metrics: the numbers for Prometheus."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from devops_info_service.responses import text
from devops_info_service.service import Service


def metrics(service: Service, _request: Request) -> Response:
    """Return all numbers in the text format 0.0.4."""
    return text(service.metrics.text(service.uptime), "text/plain; version=0.0.4; charset=utf-8")
