"""What a registry answers where it refuses: the error codes of the distribution specification."""

from __future__ import annotations

import json

CODES = {
    "BLOB_UNKNOWN": 404,
    "BLOB_UPLOAD_INVALID": 400,
    "BLOB_UPLOAD_UNKNOWN": 404,
    "DENIED": 403,
    "DIGEST_INVALID": 400,
    "MANIFEST_BLOB_UNKNOWN": 400,
    "MANIFEST_INVALID": 400,
    "MANIFEST_UNKNOWN": 404,
    "NAME_INVALID": 400,
    "NAME_UNKNOWN": 404,
    "SIZE_INVALID": 400,
    "TOOMANYREQUESTS": 429,
    "UNAUTHORIZED": 401,
    "UNKNOWN": 500,
    "UNSUPPORTED": 405,
}
"""Every code that is given, with the HTTP status that it usually has."""


class RefusalError(Exception):
    """A request that is refused.

    Attributes:
        code: one of `CODES`.
        status: the HTTP status.
        message: what is wrong, for people.
        headers: further headers of the answer.
    """

    def __init__(self, code: str, message: str, *, status: int = 0, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.status = status or CODES[code]
        self.message = message
        self.headers = headers

    def body(self) -> bytes:
        """Return the JSON document that says so (distribution specification, section "Error Codes")."""
        return json.dumps({"errors": [{"code": self.code, "message": self.message}]}).encode() + b"\n"
