"""Shows a recorded build that is fully cached. The fast path imports this module: it must stay light.

Nothing but `os` and `time` is imported here, and nothing heavier by what it imports; `json` only for rawjson.
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from castoff.cli.progress.observer import Display, Stream
    from castoff.cli.progress.state import Record

MODES = ("auto", "tty", "plain", "rawjson", "quiet")


def resolve_mode(mode: str, out: Stream, environ: Mapping[str, str]) -> str:
    """Return which of tty, plain, rawjson and quiet is meant by a value of ``--progress``.

    ``auto`` is the value of ``BUILDKIT_PROGRESS`` where that is one of the modes, else tty on a terminal that is not
    dumb, else plain.
    """
    if mode == "auto":
        mode = environ.get("BUILDKIT_PROGRESS", "auto")
    if mode not in MODES or mode == "auto":
        return "tty" if out.isatty() and environ.get("TERM") != "dumb" else "plain"
    return mode


def open_display(mode: str, out: Stream, started: float, environ: Mapping[str, str]) -> Display:
    """Return the display of a build.

    Args:
        mode: a mode, as `resolve_mode` returns it.
        out: where it is shown.
        started: when the build began, in seconds since the epoch.
        environ: for NO_COLOR.
    """

    def write(text: str) -> None:
        out.write(text)
        out.flush()

    if mode == "quiet":
        from castoff.cli.progress.quiet import QuietDisplay

        return QuietDisplay(write, started)
    if mode == "rawjson":
        from castoff.cli.progress.rawjson import RawJsonDisplay

        return RawJsonDisplay(write, started)
    if mode == "plain":
        from castoff.cli.progress.plain import PlainDisplay

        return PlainDisplay(write, started)
    from castoff.cli.progress.terminal import TtyDisplay

    descriptor = out.fileno() if out.isatty() else -1
    colour = descriptor >= 0 and not environ.get("NO_COLOR")
    return TtyDisplay(write, started, descriptor=descriptor, colour=colour)


def replay(records: Iterable[Record], mode: str, out: Stream, *, started: float | None = None) -> None:
    """Show a recorded build, with one write.

    Args:
        records: as `castoff.cli.progress.recording.cached_records` gives them.
        mode: a value of ``--progress``.
        out: where it is shown, standard error as a rule.
        started: when this process began, in seconds since the epoch, for the time in the heading; None for now.
    """
    now = time.time()
    mode = resolve_mode(mode, out, os.environ)
    buffer = _Buffer(out)
    display = open_display(mode, buffer, now if started is None else started, os.environ)
    for record in records:
        kind = record[0]
        if kind == "v":
            display.apply((*record[:4], now, record[5]))
        elif kind == "s":
            display.apply((*record[:3], now, *record[4:]))
        else:
            display.apply(record)
    display.finish(now)
    if buffer.parts:
        out.write("".join(buffer.parts))
        out.flush()


class _Buffer:
    """Collects what is written, and is for the rest the stream that it stands for."""

    __slots__ = ("_out", "parts")

    def __init__(self, out: Stream) -> None:
        self._out = out
        self.parts: list[str] = []

    def write(self, text: str, /) -> None:
        """Keep text."""
        self.parts.append(text)

    def isatty(self) -> bool:
        """Tell whether the stream is a terminal."""
        return self._out.isatty()

    def fileno(self) -> int:
        """Return the stream's descriptor."""
        return self._out.fileno()

    def flush(self) -> None:
        """Do nothing."""
