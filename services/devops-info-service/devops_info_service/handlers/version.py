"""GET /version: which version of the service this is, and on which Python it runs."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from devops_info_service import NAME, VERSION
from devops_info_service.responses import as_json
from devops_info_service.service import Service


def version(service: Service, _request: Request) -> Response:
    """Return the versions."""
    return as_json({"name": NAME, "version": VERSION, "python_version": service.system["python_version"]})
