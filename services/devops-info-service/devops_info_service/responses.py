"""The answers' common form: JSON with two spaces of indent, lengths, and headers that keep caches and guessing away."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus

from starlette.responses import Response

ALLOWED = "GET, HEAD"
_SAFETY = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def text(content: str, media_type: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return a 200 with text of a media type."""
    body = content.encode("utf-8", "replace")
    # Given as a header: as media_type it would get a charset, also where it has one or, as JSON, knows none.
    return Response(body, headers={"Content-Type": media_type, **_SAFETY, **(headers or {})})


def as_json(content: Mapping[str, object], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return JSON."""
    body = (json.dumps(content, ensure_ascii=False, indent=2) + "\n").encode("utf-8", "replace")
    return Response(body, status, {"Content-Type": "application/json", **_SAFETY, **(headers or {})})


def error(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return the JSON that every failure has: the status in words, and a sentence."""
    return as_json({"error": HTTPStatus(status).phrase, "message": message}, status, headers)


def not_found(path: str) -> Response:
    """Return the 404; `path` is as the client wrote it, percent signs and all."""
    return error(404, f"There is nothing at {path}; GET / lists the endpoints")


def method_not_allowed(method: str) -> Response:
    """Return the 405, which names the methods that are allowed."""
    return error(405, f"{method} is not supported here; use {ALLOWED}", {"Allow": ALLOWED})
