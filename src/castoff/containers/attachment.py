"""A terminal, or other streams, joined to a container that lives: what the user types and the container prints."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import struct
import termios
import threading
import tty
from typing import TYPE_CHECKING

from castoff.containers.channel import CHUNK, receive_message

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

DETACH_KEYS = b"\x10\x11"
"""Ctrl-P Ctrl-Q, as in Docker."""
_FORWARDED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
_PATIENCE = 3
LOST = 255
"""The exit code of a container whose monitor has gone without a word."""


class KeyWatch:
    """Finds the keys that detach in what is typed; a first one waits until it is clear what follows it."""

    def __init__(self, keys: bytes = DETACH_KEYS) -> None:
        self._keys = keys
        self._seen = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Return what is to be passed on, and whether the keys have come."""
        passed = bytearray()
        for byte in data:
            if byte == self._keys[self._seen]:
                self._seen += 1
                if self._seen == len(self._keys):
                    self._seen = 0
                    return bytes(passed), True
                continue
            passed += self._keys[: self._seen]
            self._seen = 1 if byte == self._keys[0] else 0
            if not self._seen:
                passed.append(byte)
        return bytes(passed), False


def terminal_size(descriptors: tuple[int, ...]) -> tuple[int, int] | None:
    """Return rows and columns of the first of some descriptors that is a terminal; None where none is."""
    for descriptor in descriptors:
        if os.isatty(descriptor):
            with contextlib.suppress(OSError):
                rows, columns, _, _ = struct.unpack("4H", fcntl.ioctl(descriptor, termios.TIOCGWINSZ, bytes(8)))
                return rows, columns
    return None


class Attachment:
    """Copies between a container and castoff's own streams, until the container ends or the user detaches."""

    def __init__(
        self,
        end: socket.socket,
        stdio: tuple[int, int, int],
        *,
        terminal: bool,
        interactive: bool,
        forward_signals: bool = True,
    ) -> None:
        """Take a connection on which attaching has begun.

        Args:
            end: the connection; it stays the caller's.
            stdio: castoff's standard input, output and error.
            terminal: whether the container has a pseudo-terminal.
            interactive: whether standard input is passed on.
            forward_signals: whether signals that castoff gets are the container's.
        """
        self._end = end
        self._stdio = stdio
        self._terminal = terminal
        self._interactive = interactive
        self._forward_signals = forward_signals
        self._keys = KeyWatch()
        self._pending: list[bytes] = []
        self._reads = interactive
        self._asked = 0
        self._saved: list[Any] | None = None
        self._previous: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def run(self) -> int | None:
        """Copy; return the container's exit code, or None where the user has detached."""
        self._end.setblocking(False)
        try:
            self._take_signals()
            self._resize()
            if self._terminal and self._interactive and os.isatty(self._stdio[0]):
                self._saved = termios.tcgetattr(self._stdio[0])
                tty.setraw(self._stdio[0], termios.TCSADRAIN)
            elif not self._interactive:
                self._queue(b"c")
            return self._copy()
        finally:
            if self._saved is not None:
                termios.tcsetattr(self._stdio[0], termios.TCSADRAIN, self._saved)
            for number, handler in self._previous.items():
                signal.signal(number, handler)

    def _copy(self) -> int | None:
        while True:
            poll = select.poll()
            poll.register(self._end, select.POLLIN | (select.POLLOUT if self._pending else 0))
            if self._reads and not self._pending:
                poll.register(self._stdio[0], select.POLLIN)
            for descriptor, events in poll.poll():
                if descriptor == self._stdio[0] and descriptor != self._end.fileno():
                    if self._read_input():
                        return None
                    continue
                if events & select.POLLOUT:
                    self._flush()
                if events & ~select.POLLOUT:
                    code = self._receive()
                    if code is not None:
                        return code

    def _read_input(self) -> bool:
        """Pass input on; tell whether the user detaches."""
        try:
            data = os.read(self._stdio[0], CHUNK)
        except OSError:
            data = b""
        if not data:
            self._reads = False
            self._queue(b"c")
            return False
        detach = False
        if self._saved is not None:
            data, detach = self._keys.feed(data)
        if data:
            self._queue(b"i" + data)
        return detach

    def _receive(self) -> int | None:
        """Take one frame; return the exit code at the end."""
        try:
            data = receive_message(self._end)
        except BlockingIOError:
            return None
        if not data:
            return LOST
        kind = data[:1]
        if kind == b"x":
            return int(json.loads(data[1:])["code"])
        target = self._stdio[2] if kind == b"e" else self._stdio[1]
        view = memoryview(data)[1:]
        while view:
            try:
                view = view[os.write(target, view) :]
            except BlockingIOError:
                poll = select.poll()
                poll.register(target, select.POLLOUT)
                poll.poll()
        return None

    def _queue(self, frame: bytes) -> None:
        self._pending.append(frame)
        self._flush()

    def _flush(self) -> None:
        while self._pending:
            try:
                self._end.send(self._pending[0])
            except BlockingIOError:
                return
            except OSError:
                self._pending.clear()  # the end of the connection is read in its turn
                return
            del self._pending[0]

    def _take_signals(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        if self._terminal:
            self._previous[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, self._resized)
        if self._forward_signals:
            for name in _FORWARDED:
                number = getattr(signal, name)
                self._previous[number] = signal.signal(number, self._forward)

    def _forward(self, number: int, _: FrameType | None) -> None:
        if number in (signal.SIGINT, signal.SIGTERM):
            self._asked += 1
            if self._asked >= _PATIENCE:
                number = signal.SIGKILL
        with contextlib.suppress(OSError):
            self._end.send(b"s%d" % number)

    def _resized(self, _: int, __: FrameType | None) -> None:
        self._resize()

    def _resize(self) -> None:
        size = terminal_size(self._stdio) if self._terminal else None
        if size is not None:
            with contextlib.suppress(OSError):
                self._end.send(b"r%d %d" % size)
