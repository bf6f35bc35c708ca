"""Bodies of requests as they come from a connection: of a given size, or in chunks (RFC 9112, section 7.1)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

from castoff.registry.server.failures import RefusalError
from castoff.registry.server.wire import BLOCK

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r?\n")
_MAX_LINE = 4 << 10
_MAX_TRAILERS = 64


class Stream(Protocol):
    """A connection that is read."""

    def read1(self, size: int, /) -> bytes:
        """Return some bytes, as soon as there are any."""

    def readline(self, size: int, /) -> bytes:
        """Return a line, or as many bytes of it."""


class SizedBody:
    """A body whose size is known.

    Attributes:
        length: its size in bytes.
    """

    def __init__(self, stream: Stream, length: int) -> None:
        self.length = length
        self._stream = stream
        self._left = length

    @property
    def is_read(self) -> bool:
        """Whether all of it was read."""
        return not self._left

    def blocks(self) -> Iterator[bytes]:
        """Yield the bytes as they come.

        Raises:
            ConnectionError: it ended too early.
        """
        while self._left:
            data = self._stream.read1(min(self._left, BLOCK))
            if not data:
                raise ConnectionError("the body of the request ended too early")
            self._left -= len(data)
            yield data


class ChunkedBody:
    """A body in chunks, whose end is marked."""

    length = None

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.is_read = False

    def blocks(self) -> Iterator[bytes]:
        """Yield the bytes as they come.

        Raises:
            ConnectionError: it ended too early.
            RefusalError: a chunk is not well formed.
        """
        while not self.is_read:
            left = self._chunk_size()
            if not left:
                self._skip_trailers()
                self.is_read = True
                return
            while left:
                data = self._stream.read1(min(left, BLOCK))
                if not data:
                    raise ConnectionError("the body of the request ended too early")
                left -= len(data)
                yield data
            if self._line().strip(b"\r\n"):
                raise _malformed()

    def _chunk_size(self) -> int:
        match = _CHUNK.fullmatch(self._line())
        if match is None:
            raise _malformed()
        return int(match[1], 16)

    def _skip_trailers(self) -> None:
        for _ in range(_MAX_TRAILERS):
            if not self._line().strip(b"\r\n"):
                return
        raise _malformed()

    def _line(self) -> bytes:
        line = self._stream.readline(_MAX_LINE)
        if not line:
            raise ConnectionError("the body of the request ended too early")
        if not line.endswith(b"\n"):
            raise _malformed()
        return line


def _malformed() -> RefusalError:
    return RefusalError("UNSUPPORTED", "the body of the request is not well formed", status=400)
