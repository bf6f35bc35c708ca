"""Tty progress on a real pseudo-terminal, read back through a small screen."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import termios
import threading
from collections.abc import Iterator

import pytest

from castoff.cli.progress.terminal import TtyDisplay, terminal_size

START = 1_700_000_000.0
_TOKEN = re.compile(rb"\x1b\[([?0-9;]*)([A-Za-z])|(\r)|(\n)|([^\x1b\r\n]+)")


class Screen:
    """As much of a terminal as progress may use; anything else fails the test."""

    def __init__(self) -> None:
        self.lines: list[str] = [""]
        self.row = 0
        self.column = 0
        self.cursor = True
        self.styles: set[str] = set()

    def feed(self, data: bytes) -> None:
        position = 0
        while position < len(data):
            match = _TOKEN.match(data, position)
            assert match, data[position : position + 20]
            position = match.end()
            parameter, final, carriage, feed, text = match.groups()
            if carriage:
                self.column = 0
            elif feed:
                self.row += 1
                while self.row >= len(self.lines):
                    self.lines.append("")
            elif text:
                line = self.lines[self.row].ljust(self.column)
                shown = text.decode()
                self.lines[self.row] = line[: self.column] + shown + line[self.column + len(shown) :]
                self.column += len(shown)
            else:
                self._control(parameter.decode(), final.decode())

    def _control(self, parameter: str, final: str) -> None:
        if final == "A":
            assert self.row >= int(parameter), "the cursor went above the first line"
            self.row -= int(parameter)
        elif final == "K":
            self.lines[self.row] = self.lines[self.row][: self.column]
        elif final == "J":
            self.lines[self.row] = self.lines[self.row][: self.column]
            del self.lines[self.row + 1 :]
        elif final == "m":
            self.styles.add(parameter)
        else:
            assert (parameter, final) in {("?25", "l"), ("?25", "h")}
            self.cursor = final == "h"

    @property
    def text(self) -> list[str]:
        return [line.rstrip() for line in self.lines if line.strip()]


class Terminal:
    """A pseudo-terminal, and what has been written to it."""

    def __init__(self, columns: int, lines: int) -> None:
        self.master, self.slave = pty.openpty()
        self.resize(columns, lines)
        self.data = bytearray()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self.master, 65536)
            except OSError:
                return
            if not data:
                return
            self.data += data

    def write(self, text: str) -> None:
        os.write(self.slave, text.encode())

    def close(self) -> bytes:
        if self.slave >= 0:
            os.close(self.slave)
            self.slave = -1
            self._reader.join()
            os.close(self.master)
        return bytes(self.data)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal(60, 20)
    yield made
    made.close()


def test_frames_replace_one_another_and_the_last_stays(terminal: Terminal) -> None:
    terminal.write("$ castoff build .\n")
    display = TtyDisplay(terminal.write, START, descriptor=terminal.slave, colour=True)
    display.tick(START)
    display.apply(("v", "a", "[1/2] FROM scratch", "started", START, ""))
    display.tick(START + 0.1)
    display.apply(("v", "a", "[1/2] FROM scratch", "done", START + 0.2, ""))
    display.apply(("v", "b", "[2/2] RUN make", "started", START + 0.2, ""))
    for number in range(8):
        display.apply(("l", "b", b"line %d\n" % number, 1, START + number))
        display.tick(START + number)
    display.apply(("v", "b", "[2/2] RUN make", "done", START + 9, ""))
    display.finish(START + 9)
    terminal.write("$ ")
    screen = Screen()
    screen.feed(terminal.close())
    assert screen.text == [
        "$ castoff build .",
        "[+] Building 9.0s (2/2) FINISHED",
        " => [1/2] FROM scratch                                 0.2s",
        " => [2/2] RUN make                                     8.8s",
        "$",
    ]
    assert screen.cursor
    assert {"34", "2", "0"} <= screen.styles


def test_failure_is_red_and_its_output_stays_below(terminal: Terminal) -> None:
    display = TtyDisplay(terminal.write, START, descriptor=terminal.slave, colour=True)
    display.apply(("v", "b", "[2/2] RUN make", "started", START, ""))
    display.apply(("l", "b", b"no such target\n", 2, START + 1))
    display.tick(START + 1)
    display.apply(("v", "b", "[2/2] RUN make", "failed", START + 2, "exit code: 2"))
    display.finish(START + 2)
    screen = Screen()
    screen.feed(terminal.close())
    assert "31" in screen.styles
    assert screen.text[1:] == [
        " => ERROR [2/2] RUN make                               2.0s",
        "------",
        " > [2/2] RUN make:",
        "1.000 no such target",
        "------",
    ]


def test_no_colour_is_no_colour(terminal: Terminal) -> None:
    display = TtyDisplay(terminal.write, START, descriptor=terminal.slave, colour=False)
    display.apply(("v", "b", "[2/2] RUN make", "started", START, ""))
    display.tick(START + 1)
    display.apply(("v", "b", "[2/2] RUN make", "done", START + 2, ""))
    display.finish(START + 2)
    screen = Screen()
    screen.feed(terminal.close())
    assert not screen.styles


def test_size_is_asked_for_at_each_frame(terminal: Terminal) -> None:
    display = TtyDisplay(terminal.write, START, descriptor=terminal.slave, colour=False)
    for number in range(30):
        display.apply(("v", str(number), f"[{number}/30] RUN true", "started", START, ""))
    terminal.resize(50, 12)
    display.tick(START + 1)
    terminal.resize(70, 8)
    display.tick(START + 2)
    assert terminal_size(terminal.slave) == (70, 8)
    screen = Screen()
    screen.feed(terminal.close())
    assert len(screen.text) == 7
    assert {len(line) for line in screen.text[1:]} == {69}


def test_narrower_terminal_wraps_what_is_there(terminal: Terminal) -> None:
    """Rows that the terminal has wrapped since are counted as the two that they are."""
    written: list[str] = []
    display = TtyDisplay(written.append, START, descriptor=terminal.slave, colour=False)
    display.apply(("v", "a", "[1/2] RUN true", "started", START, ""))
    display.apply(("v", "b", "[2/2] RUN true", "started", START, ""))
    display.tick(START)
    terminal.resize(40, 20)
    display.tick(START + 1)
    assert written[1].startswith("\r\x1b[5A")  # the heading of 26 columns, and two rows of 59


def test_no_terminal_has_a_size_too() -> None:
    assert terminal_size(-1) == (80, 24)
