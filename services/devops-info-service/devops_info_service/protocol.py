"""HTTP/1.1 on a connection, with an end to every wait: uvicorn's protocol has none for a client that is slow."""

from __future__ import annotations

import asyncio
import enum
import json
import sys
from http import HTTPStatus

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


class Phase(enum.Enum):
    """What a connection waits for, and for how many seconds at most."""

    IDLE = None  # the next request: uvicorn's own keep-alive time
    HEADER = 5.0
    BODY = 10.0
    ANSWER = 15.0  # the service's, and its client's that reads it
    END = 1.0  # the client reads the last answer and closes


class DeadlineProtocol(H11Protocol):
    """A connection that is closed when its client or the service takes too long over a part of a request."""

    _phase = Phase.IDLE
    _served = 0  # requests that were answered: the same phase of the next one has a time of its own
    _watched: tuple[Phase, int] | None = None
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request as for a header that has begun."""
        super().connection_made(transport)
        self._watch(Phase.HEADER)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget every time limit."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._cancel()

    def data_received(self, data: bytes) -> None:
        """Take what the client sends; what comes after the last answer is thrown away."""
        if self._phase is Phase.END:
            return
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """Go on to the next request."""
        self._served += 1
        super().on_response_complete()
        self._look()

    def send_400_response(self, msg: str) -> None:
        """Refuse a request that breaks the protocol; h11 says whether it is malformed (400) or too large (431)."""
        cause = sys.exception()
        status = cause.error_status_hint if isinstance(cause, h11.RemoteProtocolError) else 400
        self._refuse(status, msg)

    def shutdown(self) -> None:
        """Close the connection, after the request that has begun to arrive."""
        if self._phase is Phase.END:
            self.transport.abort()
        elif not (self._phase is Phase.HEADER and self._has_part()):
            super().shutdown()

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: a client that asks for a web socket gets a plain answer, and can't fill the log."""

    def _has_part(self) -> bool:
        return bool(self.conn.trailing_data[0])

    def _look(self) -> None:
        """Find out what the connection waits for now."""
        if self._phase is Phase.END or self.transport.is_closing():
            return
        answering = self.cycle is not None and not self.cycle.response_complete
        if self.conn.their_state is h11.SEND_BODY:
            phase = Phase.BODY
        elif answering:
            phase = Phase.ANSWER
        elif self._has_part() or not self._served:
            phase = Phase.HEADER
        else:
            phase = Phase.IDLE
        self._watch(phase)

    def _watch(self, phase: Phase) -> None:
        """Start the phase's time, unless it runs already."""
        if self._watched == (phase, self._served):
            return
        self._cancel()
        self._phase, self._watched = phase, (phase, self._served)
        if phase.value is not None:
            self._timer = self.loop.call_later(phase.value, self._expire)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        self._timer = None
        if self._phase is Phase.BODY or (self._phase is Phase.HEADER and self._has_part()):
            self._refuse(408, "The request took too long to arrive.")
        else:
            self.transport.abort()

    def _refuse(self, status: int, message: str) -> None:
        """Send the last answer and close; a request that is being answered is broken off."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()  # half an answer is sent: there is no way to send another
            return
        phrase = HTTPStatus(status).phrase
        body = (json.dumps({"error": phrase, "message": message}, indent=2) + "\n").encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
            (b"connection", b"close"),
        ]
        events = (
            h11.Response(status_code=status, headers=[*self.server_state.default_headers, *headers], reason=phrase),
            h11.Data(data=body),
            h11.EndOfMessage(),
        )
        # One write; and an end of what is sent instead of a close, which would take the answer back where the client
        # has sent more than was read.
        self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
        self._watch(Phase.END)
        self.flow.resume_reading()
        self.transport.write_eof()
