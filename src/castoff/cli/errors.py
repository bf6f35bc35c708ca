"""Errors as people see them: one sentence, the place in the source, a hint, and the exit code.

Exit codes: that of the class of a `CastoffError`; 130, 143 and 129 after SIGINT, SIGTERM and SIGHUP; 141 for a closed
pipe; 6 for a full disk; 2 for a value that is no text; 1 for other refusals of the operating system; 70 for an error
in castoff itself.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, TextIO

from castoff.errors import CastoffError, StepError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from castoff.location import SourceRange

    SourceReader = Callable[[str], bytes | None]
    """Gives the text of a source by the name that its `SourceRange` has; None where it can't be had."""

EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141
EXIT_NO_SPACE = 6
EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_BUG = 70

_SHORT_HINT_BLANKS = 3
_RULE = "-" * 20
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Interrupted(KeyboardInterrupt):
    """A signal asked castoff to end.

    Attributes:
        signal: its number.
    """

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


def report(
    error: BaseException, out: TextIO, environ: Mapping[str, str], read_source: SourceReader | None = None
) -> int:
    """Print an error and return the exit code.

    Args:
        error: what was raised.
        out: standard error.
        environ: where ``CASTOFF_DEBUG=1`` asks for the traceback too.
        read_source: gives source texts; None reads host files by the name of the location.
    """
    if environ.get("CASTOFF_DEBUG", "0") not in ("", "0"):
        import traceback

        traceback.print_exception(error, file=out)
    if isinstance(error, CastoffError):
        out.write(render(error, read_source or read_host_file))
        return error.exit_code
    if isinstance(error, Interrupted):
        return 128 + error.signal
    if isinstance(error, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    if isinstance(error, BrokenPipeError):
        return EXIT_BROKEN_PIPE
    if isinstance(error, OSError):
        return _report_os_error(error, out)
    if isinstance(error, UnicodeEncodeError):
        # Bytes of the command line or the environment, which Python holds as surrogates, in an image's JSON.
        near = _one_line(error.object[max(0, error.start - 20) : error.end])
        out.write(f"error: a value is not UTF-8 text, which is all that images can hold: {near}\n")
        return EXIT_USAGE
    if isinstance(error, MemoryError):
        out.write("error: out of memory\n")
        return EXIT_REFUSED
    out.write(
        f"error: something went wrong inside castoff ({type(error).__name__}: {_one_line(str(error))})\n"
        "hint: run the same command with CASTOFF_DEBUG=1 and report what it prints\n"
    )
    return EXIT_BUG


def _report_os_error(error: OSError, out: TextIO) -> int:
    reason = (error.strerror or str(error) or type(error).__name__).lower()
    where = f": {_one_line(os.fsdecode(error.filename))}" if isinstance(error.filename, str | bytes) else ""
    out.write(f"error: {reason}{where}\n")
    if error.errno in _FULL:
        out.write("hint: free some space, or choose another store with --root\n")
        return EXIT_NO_SPACE
    return EXIT_REFUSED


def render(error: CastoffError, read_source: SourceReader) -> str:
    """Return what is printed for an error: the sentence, the source lines, the hint.

    A step's error comes last, below the source, as users of BuildKit know it.
    """
    excerpt = ""
    if error.location is not None and (data := read_source(error.location.file)) is not None:
        excerpt = render_source(data, error.location)
    if not excerpt and error.location is not None:
        excerpt = f"{error.location}\n"
    message = _one_line(" ".join(error.message.splitlines()))
    hint = f"hint: {_one_line(error.hint)}\n" if error.hint else ""
    if error.hint and error.hint.startswith("did you mean ") and error.hint.count(" ") == _SHORT_HINT_BLANKS:
        message, hint = f"{message} ({_one_line(error.hint)})", ""  # in the sentence, as in BuildKit
    if isinstance(error, StepError):
        return f"{excerpt}ERROR: failed to solve: {message}\n{hint}"
    return f"error: {message}\n{excerpt}{hint}"


def render_source(data: bytes, where: SourceRange) -> str:
    """Return the lines around a place, those that are meant marked with ``>>>``, and a caret line below the column.

    Returns "" where the text has no such line (it has changed meanwhile).
    """
    lines = data.decode("utf-8", "replace").removeprefix("\ufeff").split("\n")
    if lines and not lines[-1]:
        lines.pop()
    first, last = where.start_line, min(where.end_line, len(lines))
    if not 1 <= first <= last:
        return ""
    around = 2 if first == last else 1
    shown = [f"{where}", _RULE]
    for number in range(max(1, first - around), min(len(lines), last + around) + 1):
        line = lines[number - 1].removesuffix("\r")
        mark = ">>>" if first <= number <= last else "   "
        shown.append(f" {number:3d} | {mark} {_one_line(line)}".rstrip())
        if number == first and where.start_column is not None:
            shown.append(_caret(line, number, where))
    return "\n".join([*shown, _RULE, ""])


def _caret(line: str, number: int, where: SourceRange) -> str:
    start = min(where.start_column or 0, len(line))
    end = where.end_column if where.end_column is not None and where.end_line == where.start_line else start + 1
    width = max(1, min(end, len(line)) - start)
    # Tabs are kept, so that the caret stands below the word whatever their width is.
    lead = "".join("\t" if c == "\t" else " " for c in line[:start])
    return f" {' ' * max(3, len(str(number)))} |     {lead}{'^' * width}"


def read_host_file(name: str) -> bytes | None:
    """Return the content of a small regular host file; None where it can't be had."""
    limit = 1 << 20
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    try:
        data = os.read(descriptor, limit + 1)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return data if len(data) <= limit else None


def _one_line(text: str) -> str:
    """Return text without control characters but tabs, which could rewrite the screen."""
    return "".join(c if c.isprintable() or c == "\t" else "?" for c in text)
