"""The standard streams of a container that lives: what it prints goes to its log and to all who are attached."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import termios
from functools import partial
from typing import TYPE_CHECKING

from castoff.containers.channel import CHUNK

if TYPE_CHECKING:
    from collections.abc import Callable

    from castoff.containers.clients import Client
    from castoff.containers.logs import LogWriter
    from castoff.containers.loop import Loop

_INPUT_PAUSE = 0.01
_MAX_INPUT = 1 << 16
"""How much input may wait for a container that does not read it, in bytes, before those who send it wait too."""


class Output:
    """The streams of a container's process, and of the next one after a restart.

    Args:
        loop: calls back.
        log: takes all output.
        terminal: whether the process has a pseudo-terminal.
        interactive: whether its standard input is open.
        signalled: called with the number of a signal that a client sends.
    """

    def __init__(
        self, loop: Loop, log: LogWriter, *, terminal: bool, interactive: bool, signalled: Callable[[int], None]
    ) -> None:
        self._loop = loop
        self._log = log
        self._clients: list[Client] = []
        self._sources: dict[int, bytes] = {}  # descriptor → kind of frame
        self._input = -1
        self._waiting = bytearray()
        self._close_when_written = False
        self._terminal = terminal
        self._interactive = interactive
        self._signalled = signalled
        self._size = (0, 0)
        self._given: tuple[int, ...] = ()

    def open_(self) -> tuple[int, int, int]:
        """Make the streams of a process that is about to start, and return what it gets.

        Raises:
            OSError: descriptors or pseudo-terminals have run out.
        """
        self._waiting.clear()
        self._close_when_written = False
        if self._terminal:
            self._given = self._open_terminal()
            self.resize(*self._size)
            return self._given[0], self._given[0], self._given[0]
        self._given = self._open_pipes(self._interactive)
        return self._given[0], self._given[1], self._given[2]

    def _open_terminal(self) -> tuple[int, ...]:
        master, slave = pty.openpty()
        os.set_blocking(master, False)
        self._sources[master] = b"o"
        self._input = master
        return (slave,)

    def _open_pipes(self, interactive: bool) -> tuple[int, ...]:
        if interactive:
            stdin, self._input = os.pipe()
            os.set_blocking(self._input, False)
        else:
            stdin = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        given = [stdin]
        for kind in (b"o", b"e"):
            read_end, write_end = os.pipe()
            os.set_blocking(read_end, False)
            self._sources[read_end] = kind
            given.append(write_end)
        return tuple(given)

    def begin(self) -> None:
        """Start copying; the process has its descriptors."""
        for descriptor in self._given:
            os.close(descriptor)
        self._given = ()
        self._resume()

    def _resume(self) -> None:
        if not any(client.is_congested for client in self._clients):
            for descriptor in self._sources:
                self._loop.watch(descriptor, partial(self._read, descriptor))

    def attach(self, client: Client) -> None:
        """Send a client what comes from now on, and take its input."""
        self._clients.append(client)
        client.serve(self._frame, self._resume)

    def detach(self, client: Client) -> None:
        """Forget a client. Idempotent."""
        if client in self._clients:
            self._clients.remove(client)
            self._resume()

    def _frame(self, kind: bytes, data: bytes) -> None:
        if kind == b"i" and self._input >= 0:
            self._waiting += data
            self._write()
        elif kind == b"c" and not self._terminal:
            self._close_when_written = True
            self._write()
        elif kind == b"s" and data.isdigit():
            self._signalled(int(data))
        elif kind == b"r":
            with contextlib.suppress(ValueError):
                rows, columns = data.split()
                self.resize(int(rows), int(columns))

    def resize(self, rows: int, columns: int) -> None:
        """Give the pseudo-terminal a size; nothing happens where there is none, or for a size that can't be."""
        if not (self._terminal and 0 < rows < 1 << 16 and 0 < columns < 1 << 16):
            return
        self._size = (rows, columns)
        if self._input >= 0:
            with contextlib.suppress(OSError):
                fcntl.ioctl(self._input, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def _write(self) -> None:
        """Write what waits for the container to read it."""
        if self._input < 0:
            self._waiting.clear()
            return
        while self._waiting:
            try:
                count = os.write(self._input, self._waiting[:CHUNK])
            except BlockingIOError:
                self._wait_to_write()
                return
            except OSError:
                self._close_input()
                return
            del self._waiting[:count]
        if self._input >= 0 and not self._terminal:
            self._loop.forget(self._input)
        self._hold_clients()
        if self._close_when_written:
            self._close_input()

    def _wait_to_write(self) -> None:
        self._hold_clients()
        if self._terminal:
            # It is watched for reading already, and one descriptor has one callback.
            self._loop.after("input", _INPUT_PAUSE, self._write)
        else:
            self._loop.watch(self._input, self._write, writing=True)

    def _hold_clients(self) -> None:
        held = len(self._waiting) > _MAX_INPUT
        for client in self._clients:
            client.hold(held=held)

    def _close_input(self) -> None:
        self._waiting.clear()
        self._hold_clients()
        if self._input >= 0 and not self._terminal:
            self._loop.forget(self._input)
            os.close(self._input)
        self._input = -1

    def _read(self, descriptor: int) -> None:
        self._read_portion(descriptor)

    def _read_portion(self, descriptor: int) -> bool:
        """Take one portion; tell whether there may be more at once."""
        try:
            data = os.read(descriptor, CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""  # EIO: nobody has the pseudo-terminal open
        if not data:
            self._loop.forget(descriptor)
            del self._sources[descriptor]
            if descriptor == self._input:
                self._input = -1
            os.close(descriptor)
            return False
        kind = self._sources[descriptor]
        self._log.write("stdout" if kind == b"o" else "stderr", data)
        for client in list(self._clients):
            client.send(kind + data)
        if any(client.is_congested for client in self._clients):
            for each in self._sources:
                self._loop.forget(each)
        return True

    def drain(self) -> None:
        """Take all that is left, since the process has ended, and let go of the descriptors. Idempotent."""
        for descriptor in self._given:
            os.close(descriptor)
        self._given = ()
        for descriptor in list(self._sources):
            while descriptor in self._sources and self._read_portion(descriptor):
                pass
        for descriptor in list(self._sources):
            self._loop.forget(descriptor)
            if descriptor == self._input:
                self._input = -1
            os.close(descriptor)
        self._sources.clear()
        self._close_input()
        self._log.flush()
