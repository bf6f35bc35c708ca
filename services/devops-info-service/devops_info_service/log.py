"""The log: a record a line on stderr, as text or as JSON."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from datetime import UTC, datetime
from typing import TextIO


class Log:
    """Writes records: ``2026/02/02 11:18:39 app.py:41: message``, or a JSON object each."""

    def __init__(self, stream: TextIO, *, as_json: bool) -> None:
        self._stream = stream
        self.as_json = as_json

    def info(self, message: str, **extra: object) -> None:
        """Record something that is as it should be; `extra` is in JSON records only."""
        self.record("info", message, caller(), extra)

    def fail(self, message: str, **extra: object) -> None:
        """Record something that is not; `extra` is in JSON records only."""
        self.record("error", message, caller(), extra)

    def record(self, level: str, message: str, source: str, extra: dict[str, object]) -> None:
        """Write a record whose place in the source is known."""
        if self.as_json:
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
            record = {"time": now, "level": level, "source": source, "message": message, **extra}
            line = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
        else:
            line = f"{time.strftime('%Y/%m/%d %H:%M:%S')} {source}: {one_line(message)}"
        try:
            self._stream.write(line.encode("utf-8", "replace").decode() + "\n")
            self._stream.flush()
        except OSError:
            pass  # nobody reads the log any more: that must not stop the service


class LibraryHandler(logging.Handler):
    """Takes what libraries complain of, so that it has the form of the rest."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write a library's record, and the trace of its exception a line at a time."""
        source = f"{os.path.basename(record.pathname)}:{record.lineno}"
        for line in self.format(record).strip().splitlines():
            self._log.record("error", line, source, {})


def caller() -> str:
    """Return file and line of what called the function that calls this one."""
    frame = sys._getframe(2)  # noqa: SLF001 - inspect.stack() reads source files
    return f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"


def one_line(text: str) -> str:
    r"""Escape what could end a log line, forge another or steer a terminal, as ``\n`` and ``\u202e`` are."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
