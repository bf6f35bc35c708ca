"""What a container printed, on disk: lines of JSON as in Docker's json-file, in two files of a bounded size."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CURRENT, OLD = "log.jsonl", "log.1.jsonl"
MAX_BYTES = 10 << 20
"""The size of one of the two files, in bytes."""
_MAX_LINE = 16 << 10
_PERIOD = 0.1


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line, or a part of a long one.

    Attributes:
        data: its bytes, with the line feed if it ends the line.
        stream: ``stdout`` or ``stderr``.
        time: seconds since the epoch.
    """

    data: bytes
    stream: str
    time: float

    @classmethod
    def parse(cls, line: bytes) -> LogLine | None:
        """Read a line of JSON; None for what is none, as after a crash."""
        try:
            value = json.loads(line)
            moment = datetime.fromisoformat(value["time"]).timestamp()
            return cls(value["log"].encode("utf-8", "surrogateescape"), str(value["stream"]), moment)
        except (ValueError, KeyError, TypeError, AttributeError):
            return None


def encode_lines(lines: list[bytes], stream: str, when: float) -> bytes:
    """Return lines of JSON for lines that came at one time; bytes that are not UTF-8 are kept as lone surrogates.

    A container may print a million lines a second, and waits for this: what they have in common is made once.
    """
    stamp = datetime.fromtimestamp(when, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    tail = f',"stream":"{stream}","time":"{stamp}"}}\n'
    quote = json.encoder.encode_basestring_ascii
    texts = [line.decode("utf-8", "surrogateescape") for line in lines]
    return "".join([f'{{"log":{quote(text)}{tail}' for text in texts]).encode("ascii")


class LogWriter:
    """Writes what a container prints; when a file is full it takes the place of the older one."""

    def __init__(self, folder: str, max_bytes: int = MAX_BYTES) -> None:
        """Continue the log in a folder.

        Raises:
            OSError: it can't be opened.
        """
        self._folder = folder
        self._max = max_bytes
        self._partial: dict[str, bytes] = {}
        self._open()

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        file = os.open(f"{self._folder}/{CURRENT}", flags, 0o600)
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":
            size += os.write(file, b"\n")  # a monitor was killed in the middle of a line
        self._file, self._size = file, size

    def write(self, stream: str, data: bytes) -> None:
        """Write what came on a stream; what is not a whole line yet waits. A full disk loses lines, nothing else."""
        parts = (self._partial.pop(stream, b"") + data).split(b"\n")
        lines = [part + b"\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])
        if lines and parts[-1] and len(parts[-1]) < _MAX_LINE:
            self._partial[stream] = lines.pop()
        if lines:
            self._append(stream, lines)

    def flush(self) -> None:
        """Write what waits for the end of its line."""
        for stream, data in list(self._partial.items()):
            del self._partial[stream]
            self._append(stream, [data])

    def _append(self, stream: str, lines: list[bytes]) -> None:
        block = encode_lines(lines, stream, time.time())
        try:
            if self._size and self._size + len(block) > self._max:
                self._rotate()
            written = os.write(self._file, block)
            if written < len(block):
                os.ftruncate(self._file, self._size)  # the disk is full: half a line would spoil the next one
            else:
                self._size += written
        except OSError:
            return

    def _rotate(self) -> None:
        """Begin a new file; the open one stays in use where that can't be done."""
        previous = self._file
        with contextlib.suppress(FileNotFoundError):  # the open one is the older one since an earlier attempt
            os.rename(f"{self._folder}/{CURRENT}", f"{self._folder}/{OLD}")
        self._open()
        os.close(previous)

    def close(self) -> None:
        """Write what is left, and close."""
        self.flush()
        os.close(self._file)


def read_log(folder: str, *, tail: int | None = None, since: float = 0.0) -> list[LogLine]:
    """Return what a container has printed.

    Args:
        folder: of the container.
        tail: only so many of the last lines; None for all.
        since: only what came at this time or later, in seconds since the epoch.

    Raises:
        OSError: the log can't be read.
    """
    file = _try_open(f"{folder}/{CURRENT}")
    if file is None:
        return []
    with file:
        return _existing(folder, file, tail, since)


def follow_log(
    folder: str, alive: Callable[[], bool], *, tail: int | None = None, since: float = 0.0
) -> Iterator[LogLine]:
    """Yield what a container has printed and, as it comes, what it prints, until it has ended.

    Args:
        folder: of the container.
        alive: tells whether more may come.
        tail: only so many of the last lines that there are at the beginning; None for all.
        since: only what came at this time or later, in seconds since the epoch.

    Raises:
        OSError: the log can't be read.
    """
    file = _try_open(f"{folder}/{CURRENT}")
    try:
        if file is not None:
            yield from _existing(folder, file, tail, since)
        while True:
            may_come = alive()
            if file is None:
                file = _try_open(f"{folder}/{CURRENT}")
            if file is not None:
                yield from _lines(file, since)
                newer = _replaced(f"{folder}/{CURRENT}", file)
                if newer is not None:
                    yield from _lines(file, since)
                    file.close()
                    file = newer
                    continue
            if not may_come:
                return
            time.sleep(_PERIOD)
    finally:
        if file is not None:
            file.close()


def _existing(folder: str, file: BinaryIO, tail: int | None, since: float) -> list[LogLine]:
    kept: deque[LogLine] = deque(maxlen=tail)
    old = _try_open(f"{folder}/{OLD}")
    if old is not None:
        with old:
            if not os.path.sameopenfile(old.fileno(), file.fileno()):  # else it has just become the older one
                kept.extend(_lines(old, since))
    kept.extend(_lines(file, since))
    return list(kept)


def _lines(file: BinaryIO, since: float) -> Iterator[LogLine]:
    """Yield the whole lines from where a file stands; a line that is being written is left for later."""
    while True:
        start = file.tell()
        raw = file.readline()
        if not raw.endswith(b"\n"):
            file.seek(start)
            return
        line = LogLine.parse(raw)
        if line is not None and line.time >= since:
            yield line


def _try_open(path: str) -> BinaryIO | None:
    try:
        return open(path, "rb")
    except FileNotFoundError:
        return None


def _replaced(path: str, file: BinaryIO) -> BinaryIO | None:
    """Return the file that has taken the place of an open one; None where none has."""
    newer = _try_open(path)
    if newer is None or os.path.sameopenfile(newer.fileno(), file.fileno()):
        if newer is not None:
            newer.close()
        return None
    return newer
