"""GET /health: the process answers."""

from __future__ import annotations

import time

from starlette.requests import Request
from starlette.responses import Response

from devops_info_service.facts import timestamp
from devops_info_service.responses import as_json
from devops_info_service.service import Service


def health(service: Service, _request: Request) -> Response:
    """Say that the process lives, and since when."""
    return as_json({"status": "healthy", "timestamp": timestamp(time.time()), "uptime_seconds": int(service.uptime)})
