"""The connections of a monitor: what is to be sent waits here until the other side takes it."""

from __future__ import annotations

import json
import socket
from collections import deque
from typing import TYPE_CHECKING, Any

from castoff.containers.channel import MAX_MESSAGE

if TYPE_CHECKING:
    from collections.abc import Callable

    from castoff.containers.loop import Loop

_CONGESTED = 8
"""How many frames may wait for a client before the container has to wait too."""


class Client:
    """One connection. A client that goes away, or sends what makes no sense, is dropped and nothing else happens."""

    def __init__(self, loop: Loop, end: socket.socket, dropped: Callable[[Client], None]) -> None:
        self._loop = loop
        self._end = end
        self._dropped = dropped
        self._pending: deque[bytes] = deque()
        self._frame: Callable[[bytes, bytes], None] | None = None
        self._relieved: Callable[[], None] | None = None
        self._held = False
        end.setblocking(False)

    def serve(self, frame: Callable[[bytes, bytes], None], relieved: Callable[[], None] | None = None) -> None:
        """Call back with the kind and the data of each frame that comes, and when a congestion is over."""
        self._frame = frame
        self._relieved = relieved
        self._watch()

    def hold(self, *, held: bool) -> None:
        """Take nothing from the client for now, or again. Idempotent."""
        if held != self._held:
            self._held = held
            if not self._pending:
                self._watch()

    def _watch(self) -> None:
        if not self.is_open:
            return
        if self._held:
            self._loop.forget(self._end.fileno())
        else:
            self._loop.watch(self._end.fileno(), self._receive)

    def _receive(self) -> None:
        try:
            data = self._end.recv(MAX_MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
        elif self._frame is not None:
            self._frame(data[:1], data[1:])

    @property
    def is_open(self) -> bool:
        """Whether the other side is there, as far as is known."""
        return self._end.fileno() >= 0

    @property
    def is_congested(self) -> bool:
        """Whether the other side is slower than what it is sent."""
        return len(self._pending) >= _CONGESTED

    @property
    def has_pending(self) -> bool:
        """Whether something waits to be sent."""
        return bool(self._pending)

    def send(self, message: bytes) -> None:
        """Send a message, in its turn."""
        if not self.is_open:
            return
        self._pending.append(message)
        if len(self._pending) == 1:
            self._flush()

    def reply(self, value: dict[str, Any]) -> None:
        """Send a JSON object, in its turn."""
        self.send(json.dumps(value).encode())

    def _flush(self) -> None:
        was_congested = self.is_congested
        while self._pending:
            try:
                self._end.send(self._pending[0])
            except BlockingIOError:
                self._loop.watch(self._end.fileno(), self._flush, writing=True)
                break
            except OSError:
                self.close()
                break
            self._pending.popleft()
        if not self._pending:
            self._watch()
        if was_congested and not self.is_congested and self._relieved is not None:
            self._relieved()

    def close(self) -> None:
        """Drop the connection. Idempotent."""
        if not self.is_open:
            return
        self._loop.forget(self._end.fileno())
        self._end.close()
        self._pending.clear()
        if self._relieved is not None:
            self._relieved()
        self._dropped(self)
