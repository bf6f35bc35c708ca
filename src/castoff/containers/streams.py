"""Connects a process with the standard streams of castoff: directly, through pipes, or through a pseudo-terminal."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pty
import select
import termios
import threading
import tty
from typing import TYPE_CHECKING

from castoff.errors import UsageError

if TYPE_CHECKING:
    from types import TracebackType

_CHUNK = 1 << 16


class Streams:
    """The three descriptors that a process gets, and the copying behind them.

    A stream of castoff's that is a file or pipe is handed over as it is. One that is a terminal is copied through a
    pipe: without ``-t`` a process must not take it for its own. With ``-t`` all three are a new pseudo-terminal.
    """

    def __init__(self, stdio: tuple[int, int, int], *, terminal: bool, interactive: bool) -> None:
        """Prepare the streams.

        Args:
            stdio: castoff's own standard input, output and error.
            terminal: whether the process gets a pseudo-terminal.
            interactive: whether the process reads castoff's standard input; otherwise it has none.

        Raises:
            UsageError: terminal and interactive, and standard input is no terminal.
        """
        if terminal and interactive and not os.isatty(stdio[0]):
            raise UsageError("the input device is no terminal", hint="leave out -t")
        self._stdio = stdio
        self._terminal = terminal
        self._interactive = interactive
        self._given: list[int] = []
        self._outputs: list[threading.Thread] = []
        self._input: threading.Thread | None = None
        self._stop_read, self._stop_write = os.pipe()
        self._master = -1
        self._saved: list[object] | None = None
        self.descriptors = self._open_terminal() if terminal else self._open_pipes()

    def _open_terminal(self) -> tuple[int, int, int]:
        self._master, slave = pty.openpty()
        self._given.append(slave)
        self.resize()
        return slave, slave, slave

    def _open_pipes(self) -> tuple[int, int, int]:
        if not self._interactive:
            stdin = os.open(os.devnull, os.O_RDONLY)
            self._given.append(stdin)
        elif os.isatty(self._stdio[0]):
            stdin, write_end = os.pipe()
            self._given.append(stdin)
            self._input = threading.Thread(target=self._copy_input, args=(write_end, True), daemon=True)
        else:
            stdin = self._stdio[0]
        return stdin, self._output(self._stdio[1]), self._output(self._stdio[2])

    def _output(self, target: int) -> int:
        if not os.isatty(target):
            return target
        read_end, write_end = os.pipe()
        self._given.append(write_end)
        self._outputs.append(threading.Thread(target=_copy_output, args=(read_end, target), daemon=True))
        return write_end

    def begin(self) -> None:
        """Start copying, once the process has its descriptors; a terminal becomes raw."""
        for descriptor in self._given:
            os.close(descriptor)
        self._given.clear()
        if self._terminal:
            self._outputs.append(
                threading.Thread(target=_copy_output, args=(self._master, self._stdio[1]), daemon=True)
            )
            if self._interactive:
                self._saved = termios.tcgetattr(self._stdio[0])
                tty.setraw(self._stdio[0], termios.TCSADRAIN)
                self._input = threading.Thread(target=self._copy_input, args=(self._master, False), daemon=True)
        for thread in self._outputs:
            thread.start()
        if self._input is not None:
            self._input.start()

    def resize(self) -> None:
        """Give the pseudo-terminal the size of castoff's own terminal."""
        if self._master < 0:
            return
        for descriptor in self._stdio:
            if os.isatty(descriptor):
                with contextlib.suppress(OSError):
                    size = fcntl.ioctl(descriptor, termios.TIOCGWINSZ, bytes(8))
                    fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)
                return

    def _copy_input(self, target: int, close: bool) -> None:
        poll = select.poll()
        poll.register(self._stdio[0], select.POLLIN)
        poll.register(self._stop_read, select.POLLIN)
        try:
            while all(descriptor != self._stop_read for descriptor, _ in poll.poll()):
                data = os.read(self._stdio[0], _CHUNK)
                if not data:
                    break
                _write_all(target, data)
        except OSError:
            return  # the process reads no more, or the terminal is gone
        finally:
            if close:
                os.close(target)

    def finish(self) -> None:
        """Copy what is left of the output; the process has ended. The terminal is what it was."""
        try:
            for thread in self._outputs:
                if thread.ident is not None:
                    thread.join()
        finally:
            self._restore()

    def _restore(self) -> None:
        if self._saved is not None:
            termios.tcsetattr(self._stdio[0], termios.TCSADRAIN, self._saved)  # type: ignore[arg-type]
            self._saved = None

    def __enter__(self) -> Streams:
        """Return the streams themselves."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of everything, and restore the terminal, whatever happened."""
        self._restore()
        os.write(self._stop_write, b"s")
        if self._input is not None and self._input.ident is not None:
            self._input.join(1)
        for descriptor in (*self._given, self._stop_read, self._stop_write):
            os.close(descriptor)
        self._given.clear()
        if self._master >= 0:
            os.close(self._master)
            self._master = -1


def _copy_output(source: int, target: int) -> None:
    """Copy until the other end is closed; what can't be written is read all the same, lest the process block."""
    broken = False
    while True:
        try:
            data = os.read(source, _CHUNK)
        except OSError as error:
            if error.errno == errno.EIO:  # a pseudo-terminal that nobody has open any more
                return
            raise
        if not data:
            os.close(source)
            return
        if not broken:
            try:
                _write_all(target, data)
            except OSError:
                broken = True


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            # The terminal was made non-blocking by whoever shares it.
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            poll.poll()
