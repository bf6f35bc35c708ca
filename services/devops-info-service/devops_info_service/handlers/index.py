"""GET /: all facts, as JSON or, for clients that prefer it, as a page."""

from __future__ import annotations

import time

from starlette.requests import Request
from starlette.responses import Response

from devops_info_service import DESCRIPTION, FRAMEWORK, NAME, VERSION
from devops_info_service.facts import human_duration, timestamp
from devops_info_service.negotiation import prefers_html
from devops_info_service.responses import as_json, text
from devops_info_service.service import Service
from devops_info_service.target import client_of, user_agent


def index(service: Service, request: Request) -> Response:
    """Return the facts in the form that the client rates higher."""
    facts = facts_of(service, request)
    vary = {"Vary": "Accept"}
    if not prefers_html(",".join(request.headers.getlist("accept"))):
        return as_json(facts, headers=vary)
    policy = {"Content-Security-Policy": service.page.policy, "Referrer-Policy": "no-referrer"}
    return text(service.page.render(facts), "text/html; charset=utf-8", vary | policy)


def facts_of(service: Service, request: Request) -> dict[str, object]:
    """Return what GET / reports, in the order in which it is reported."""
    uptime = int(service.uptime)
    return {
        "service": {"name": NAME, "version": VERSION, "description": DESCRIPTION, "framework": FRAMEWORK},
        "system": service.system,
        "runtime": {
            "uptime_seconds": uptime,
            "uptime_human": human_duration(uptime),
            "current_time": timestamp(time.time()),
            "timezone": "UTC",
        },
        "request": {
            # The address is the connection's: anyone can write an X-Forwarded-For.
            "client_ip": client_of(request.scope)[0],
            "user_agent": user_agent(request.scope),
            "method": request.method,
            "path": request.scope["path"],
        },
        "endpoints": service.endpoints,
    }
