"""Requests and answers of a registry as values, without a socket."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Protocol

from castoff.registry.server.failures import RefusalError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

BLOCK = 1 << 16
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
_CONTENT_RANGE = re.compile(r"(?:bytes )?(\d{1,18})-(\d{1,18})(?:/(?:\d{1,18}|\*))?", re.ASCII)


class Body(Protocol):
    """The body of a request, which is read once."""

    @property
    def length(self) -> int | None:
        """The bytes that it has; None where only its end tells."""

    def blocks(self) -> Iterator[bytes]:
        """Yield the bytes as they come.

        Raises:
            ConnectionError: it ended too early.
            RefusalError: it is not well formed.
        """


class NoBody:
    """The body of a request that has none."""

    length = 0

    def blocks(self) -> Iterator[bytes]:
        """Yield nothing."""
        return iter(())


@dataclass(frozen=True, slots=True)
class Request:
    """One request.

    Attributes:
        method: in upper case.
        path: decoded, without the query.
        query: the last value of each parameter, decoded.
        headers: looked up without regard to case.
        body: the body.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body = field(default_factory=NoBody)

    def header(self, name: str) -> str:
        """Return a header; "" where it is absent."""
        return self.headers.get(name) or ""

    def content(self, limit: int) -> bytes:
        """Return the whole body.

        Raises:
            RefusalError: it is larger than `limit` bytes.
            ConnectionError: it ended too early.
        """
        data = bytearray()
        if (self.body.length or 0) <= limit:
            for block in self.body.blocks():
                data += block
                if len(data) > limit:
                    break
            else:
                return bytes(data)
        raise RefusalError("SIZE_INVALID", f"the body may have {limit} bytes at most", status=413)


@dataclass(frozen=True, slots=True)
class Response:
    """One answer.

    Attributes:
        status: the HTTP status.
        headers: all but Content-Length, Date and Connection.
        body: its bytes, where they are few.
        file: what it is sent from else; the receiver closes it. None also in the answer to HEAD.
        span: of the file, the first byte to send and how many.
    """

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    file: BinaryIO | None = None
    span: tuple[int, int] = (0, 0)

    @property
    def length(self) -> int:
        """The bytes of its body."""
        return self.span[1] or len(self.body)


def parse_range(text: str, size: int) -> tuple[int, int] | None:
    """Return the first byte and the number of bytes that a Range header asks for; None to send all (RFC 9110, 14.2).

    Several ranges, other units and what is not well formed count as none.

    Raises:
        RefusalError: it lies outside of the blob.
    """
    match = _RANGE.fullmatch(text.replace(" ", ""))
    if match is None or not (match[1] or match[2]):
        return None
    if match[1]:
        first = int(match[1])
        last = min(int(match[2]), size - 1) if match[2] else size - 1
        if match[2] and int(match[2]) < first:
            return None
    else:
        first, last = max(size - int(match[2]), 0), size - 1
        if int(match[2]) == 0:
            first = size
    if first >= size:
        raise RefusalError(
            "SIZE_INVALID",
            f"the blob has {size} bytes",
            status=416,
            headers=(("Content-Range", f"bytes */{size}"),),
        )
    return first, last - first + 1


def parse_content_range(text: str) -> tuple[int, int]:
    """Return the first and the last byte of a chunk: ``FIRST-LAST``, as in the distribution specification.

    Raises:
        RefusalError: it is not well formed.
    """
    match = _CONTENT_RANGE.fullmatch(text.strip())
    if match is None or int(match[2]) < int(match[1]):
        raise RefusalError("BLOB_UPLOAD_INVALID", f"the Content-Range {text[:64]!r} is not FIRST-LAST")
    return int(match[1]), int(match[2])
