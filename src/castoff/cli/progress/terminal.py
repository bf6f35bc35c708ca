"""Tty progress: the frame, redrawn in place with the few control sequences that every terminal knows.

The frame of a terminal that was made narrower has been wrapped by it; how many lines it takes is reckoned from the new
width before the cursor goes up. Where the stream is no terminal, only the last frame is written.
"""

from __future__ import annotations

import os

from castoff.cli.progress.frame import rows
from castoff.cli.progress.state import BuildState, failure_report, warning_report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from castoff.cli.progress.frame import Row
    from castoff.cli.progress.state import Record

_COLOURS = {"done": "\x1b[34m", "failed": "\x1b[31m", "canceled": "\x1b[33m", "faint": "\x1b[2m"}
_RESET = "\x1b[0m"
_HIDE_CURSOR, _SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
_CLEAR_LINE, _CLEAR_BELOW = "\x1b[K", "\x1b[J"
_FALLBACK = (80, 24)


class TtyDisplay:
    """Keeps the state of a build and draws it on each tick. Not thread-safe."""

    def __init__(self, write: Callable[[str], object], started: float, *, descriptor: int, colour: bool) -> None:
        """Begin with nothing on the screen.

        Args:
            write: takes text for the terminal.
            started: when the build began, in seconds since the epoch.
            descriptor: the terminal's, for its size; a descriptor that is no terminal, or -1, gets the last frame only.
            colour: whether lines are coloured.
        """
        self.state = BuildState(started)
        self._write = write
        self._descriptor = descriptor
        self._live = descriptor >= 0 and os.isatty(descriptor)
        self._colour = colour
        self._drawn: list[int] = []

    def apply(self, record: Record) -> None:
        """Take a record in; nothing is drawn."""
        self.state.apply(record)

    def tick(self, now: float) -> None:
        """Draw the frame of the moment."""
        if self._live and self.state.vertices:
            width, height = terminal_size(self._descriptor)
            found = rows(self.state, width, height, now)
            start = _HIDE_CURSOR if not self._drawn else ""
            self._write(start + self._up(width) + paint(found, colour=self._colour, live=True) + _CLEAR_BELOW)
            self._drawn = [len(row.text) for row in found]

    def finish(self, now: float) -> None:
        """Draw the last frame, which stays, and the reports of failures and warnings below it."""
        self.state.ended = now
        width, height = terminal_size(self._descriptor)
        text = ""
        if self.state.vertices:
            found = rows(self.state, width, height, now, final=True)
            text = self._up(width) + paint(found, colour=self._colour, live=self._live and bool(self._drawn))
        if self._drawn:
            text += _CLEAR_BELOW + _SHOW_CURSOR
            self._drawn = []
        text += "".join(line + "\n" for line in warning_report(self.state) + failure_report(self.state))
        self._write(text)

    def _up(self, width: int) -> str:
        """Return what moves the cursor to the first line of the frame that is on the screen."""
        lines = sum(max(1, -(-length // max(width, 1))) for length in self._drawn)
        return f"\r\x1b[{lines}A" if lines else ""


def paint(found: list[Row], *, colour: bool, live: bool) -> str:
    """Return rows as text for a terminal; `live` clears what stood on each line before."""
    end = _CLEAR_LINE + "\n" if live else "\n"
    if not colour:
        return "".join(row.text + end for row in found)
    return "".join(
        (f"{_COLOURS[row.style]}{row.text}{_RESET}" if row.style in _COLOURS else row.text) + end for row in found
    )


def terminal_size(descriptor: int) -> tuple[int, int]:
    """Return columns and lines of a terminal; 80 and 24 where it does not say, or is none."""
    try:
        size = os.get_terminal_size(descriptor)
    except (OSError, ValueError, OverflowError):
        return _FALLBACK
    return size.columns or _FALLBACK[0], size.lines or _FALLBACK[1]
