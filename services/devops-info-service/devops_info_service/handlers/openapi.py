"""GET /openapi.json: the service described as OpenAPI 3.1."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from devops_info_service import DESCRIPTION, NAME, VERSION
from devops_info_service.responses import as_json
from devops_info_service.service import Service

Schema = dict[str, object]

TEXT: Schema = {"type": "string"}
NAMED: Schema = {"type": "string", "minLength": 1}
WHOLE: Schema = {"type": "integer", "minimum": 0}
TIME: Schema = {"type": "string", "format": "date-time", "pattern": "^\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\dZ$"}


def record(**members: Schema) -> Schema:
    """Return the schema of an object that has just these members."""
    return {"type": "object", "properties": members, "required": list(members), "additionalProperties": False}


ERROR = record(error=NAMED, message=NAMED)
FACTS = record(
    service=record(name=NAMED, version=NAMED, description=NAMED, framework=NAMED),
    system=record(
        hostname=NAMED,
        platform=NAMED,
        platform_version=NAMED,
        architecture=NAMED,
        cpu_count={"type": "integer", "minimum": 1},
        python_version=NAMED,
    ),
    runtime=record(uptime_seconds=WHOLE, uptime_human=NAMED, current_time=TIME, timezone={"const": "UTC"}),
    request=record(client_ip=TEXT, user_agent=TEXT, method={"enum": ["GET", "HEAD"]}, path=NAMED),
    endpoints={"type": "array", "items": record(path=NAMED, method=NAMED, description=NAMED)},
)
HEALTH = record(status={"const": "healthy"}, timestamp=TIME, uptime_seconds=WHOLE)
VERSIONS = record(name=NAMED, version=NAMED, python_version=NAMED)


def openapi(_service: Service, _request: Request) -> Response:
    """Return the document."""
    return as_json(document())


def document() -> Schema:
    """Return the description of every route and of what it answers."""
    page = {"application/json": {"schema": FACTS}, "text/html": {"schema": TEXT}}
    return {
        "openapi": "3.1.0",
        "info": {"title": NAME, "version": VERSION, "description": DESCRIPTION},
        "paths": {
            "/": operations("Facts about the service, the system and the request", {"200": answer("The facts", page)}),
            "/health": operations("Liveness", {"200": json_answer("The process answers", HEALTH)}),
            "/ready": operations(
                "Readiness",
                {
                    "200": json_answer("Requests may come", record(status={"const": "ready"})),
                    "503": json_answer("The service is being stopped", record(status={"const": "draining"})),
                },
            ),
            "/version": operations("Versions", {"200": json_answer("Of the service and of its runtime", VERSIONS)}),
            "/metrics": operations(
                "Metrics", {"200": answer("In the Prometheus text format", {"text/plain": {"schema": TEXT}})}
            ),
            "/openapi.json": operations("This document", {"200": json_answer("OpenAPI", {"type": "object"})}),
        },
    }


def operations(summary: str, responses: dict[str, object]) -> Schema:
    """Return the two operations of a path: HEAD has GET's answers, without their bodies."""
    refused = {"default": json_answer("The request can't be answered", ERROR)}
    bodiless = {status: {"description": "As GET's, without the body"} for status in (*responses, "default")}
    return {
        "get": {"summary": summary, "responses": responses | refused},
        "head": {"summary": f"{summary}, the headers only", "responses": bodiless},
    }


def json_answer(description: str, schema: Schema) -> Schema:
    """Return the description of a JSON answer."""
    return answer(description, {"application/json": {"schema": schema}})


def answer(description: str, content: dict[str, dict[str, Schema]]) -> Schema:
    """Return the description of an answer with a body of one of several media types."""
    return {"description": description, "content": content}
