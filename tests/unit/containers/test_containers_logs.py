"""The log of a container: lines, parts of lines, bytes that are no text, rotation, following."""

from __future__ import annotations

import json
import os
import resource
from typing import TYPE_CHECKING, BinaryIO

from castoff.containers.logs import CURRENT, OLD, LogLine, LogWriter, follow_log, read_log

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def texts(lines: list[LogLine]) -> list[bytes]:
    return [line.data for line in lines]


def test_lines_and_parts(tmp_path: Path) -> None:
    log = LogWriter(str(tmp_path))
    log.write("stdout", b"one\ntw")
    log.write("stderr", b"err\n")
    log.write("stdout", b"o\n\xff\x00\n")
    log.write("stdout", b"\r\nlast")
    assert texts(read_log(str(tmp_path))) == [b"one\n", b"err\n", b"two\n", b"\xff\x00\n", b"\r\n"]
    log.close()
    lines = read_log(str(tmp_path))
    assert lines[-1].data == b"last"
    assert [line.stream for line in lines[:2]] == ["stdout", "stderr"]
    first = json.loads((tmp_path / CURRENT).read_bytes().splitlines()[0])
    assert first["log"] == "one\n"
    assert first["time"].endswith("Z")


def test_tail_and_since(tmp_path: Path) -> None:
    log = LogWriter(str(tmp_path))
    log.write("stdout", b"".join(b"%d\n" % number for number in range(10)))
    log.close()
    assert texts(read_log(str(tmp_path), tail=2)) == [b"8\n", b"9\n"]
    assert read_log(str(tmp_path), tail=0) == []
    assert read_log(str(tmp_path), since=4e9) == []
    assert read_log(str(tmp_path / "gone")) == []


def test_size_is_bounded(tmp_path: Path) -> None:
    log = LogWriter(str(tmp_path), max_bytes=2000)
    for number in range(200):
        log.write("stdout", b"line %d\n" % number)
    log.close()
    assert os.path.getsize(tmp_path / CURRENT) <= 2000
    assert os.path.getsize(tmp_path / OLD) <= 2000
    kept = texts(read_log(str(tmp_path)))
    assert kept[-1] == b"line 199\n"
    assert kept == [b"line %d\n" % number for number in range(200 - len(kept), 200)]


def test_long_line_is_written_in_parts(tmp_path: Path) -> None:
    log = LogWriter(str(tmp_path))
    for _ in range(5):
        log.write("stdout", b"x" * 10_000)
    assert sum(len(line.data) for line in read_log(str(tmp_path))) >= 40_000
    log.close()
    assert b"".join(texts(read_log(str(tmp_path)))) == b"x" * 50_000


def test_damaged_lines_are_left_out(tmp_path: Path) -> None:
    log = LogWriter(str(tmp_path))
    log.write("stdout", b"good\n")
    log.close()
    with open(tmp_path / CURRENT, "ab") as file:
        file.write(b'{"log": 3}\n[]\nnonsense\n{"log":"cut')
    assert texts(read_log(str(tmp_path))) == [b"good\n"]


def test_following_through_a_rotation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("castoff.containers.logs._PERIOD", 0)
    log = LogWriter(str(tmp_path), max_bytes=700)
    steps = iter(range(40))

    def alive() -> bool:
        number = next(steps, None)
        if number is None:
            log.close()
            return False
        log.write("stdout", b"line %d\n" % number)
        return True

    log.write("stdout", b"before\n")
    seen = texts(list(follow_log(str(tmp_path), alive)))
    assert seen == [b"before\n", *(b"line %d\n" % number for number in range(40))]


def test_any_bytes_are_kept(tmp_path: Path) -> None:
    data = [bytes([number]) for number in range(256) if number != 10]
    data += ["äöü€\U0001f600 \u2028".encode(), b'"\\n\\"', b"\xed\xb2\x80", b""]
    log = LogWriter(str(tmp_path))
    for text in data:
        log.write("stdout", text + b"\n")
    log.write("stderr", b"\n".join(data) + b"\n")
    log.close()
    lines = read_log(str(tmp_path))
    assert texts(lines) == [text + b"\n" for text in data] * 2
    assert [line.stream for line in lines] == ["stdout"] * len(data) + ["stderr"] * len(data)


def test_full_disk_loses_lines_and_spoils_none(tmp_path: Path) -> None:
    log = LogWriter(str(tmp_path))
    log.write("stdout", b"first\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # As on a full disk, the kernel takes a part of the line first, and then nothing.
    resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(tmp_path / CURRENT) + 20, hard))
    try:
        log.write("stdout", b"lost\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    log.write("stdout", b"last\n")
    log.close()
    assert texts(read_log(str(tmp_path))) == [b"first\n", b"last\n"]
    assert (tmp_path / CURRENT).read_bytes().count(b"\n") == 2


def test_half_a_line_of_a_killed_monitor_does_not_spoil_the_next(tmp_path: Path) -> None:
    log = LogWriter(str(tmp_path))
    log.write("stdout", b"before\n")
    log.close()
    with open(tmp_path / CURRENT, "ab") as file:
        file.write(b'{"log":"hal')
    log = LogWriter(str(tmp_path))
    log.write("stdout", b"after\n")
    log.close()
    assert texts(read_log(str(tmp_path))) == [b"before\n", b"after\n"]


def test_log_goes_on_where_it_can_not_be_rotated(tmp_path: Path) -> None:
    (tmp_path / OLD / "in the way").mkdir(parents=True)
    log = LogWriter(str(tmp_path), max_bytes=300)
    for number in range(10):
        log.write("stdout", b"line %d\n" % number)
    (tmp_path / OLD / "in the way").rmdir()
    (tmp_path / OLD).rmdir()
    log.write("stdout", b"new\n")
    log.close()
    assert texts(read_log(str(tmp_path)))[-1] == b"new\n"


def test_nothing_is_read_twice_when_a_file_is_replaced_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from castoff.containers import logs

    writer = LogWriter(str(tmp_path), max_bytes=700)
    writer.write("stdout", b"one\n")
    open_ = logs._try_open

    def replace_first(path: str) -> BinaryIO | None:
        if path.endswith(OLD):
            os.rename(tmp_path / CURRENT, tmp_path / OLD)
        return open_(path)

    monkeypatch.setattr(logs, "_try_open", replace_first)
    assert texts(read_log(str(tmp_path))) == [b"one\n"]
    writer.close()
