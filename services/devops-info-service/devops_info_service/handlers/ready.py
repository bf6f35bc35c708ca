"""GET /ready: whether requests should come here."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from devops_info_service.responses import as_json
from devops_info_service.service import Service


def ready(service: Service, _request: Request) -> Response:
    """Say 503 from the moment on at which the service is told to stop."""
    return as_json({"status": "draining"}, 503) if service.draining else as_json({"status": "ready"})
