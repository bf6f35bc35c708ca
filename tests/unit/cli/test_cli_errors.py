"""Errors as people see them, and their exit codes."""

from __future__ import annotations

import errno
import io
from pathlib import Path

import pytest

from castoff.cli.errors import Interrupted, render, report
from castoff.errors import (
    CastoffError,
    ContextError,
    ParseError,
    RunError,
    StoreError,
    UnsupportedError,
    UsageError,
)
from castoff.location import SourceRange

SOURCE = b"FROM scratch\nWORKDIR /build\nCOPY go.mod .\n\tRUNN go mod download\nCOPY main.go .\nUSER x\n"


def shown(error: CastoffError, source: bytes | None = SOURCE) -> str:
    return render(error, lambda _: source)


def test_place_with_columns_has_a_caret() -> None:
    error = ParseError(
        "unknown instruction RUNN", hint="did you mean RUN?", location=SourceRange("Dockerfile", 4, 4, 1, 5)
    )
    assert shown(error) == (
        "error: unknown instruction RUNN (did you mean RUN?)\n"
        "Dockerfile:4\n"
        "--------------------\n"
        "   2 |     WORKDIR /build\n"
        "   3 |     COPY go.mod .\n"
        "   4 | >>> \tRUNN go mod download\n"
        "     |     \t^^^^\n"
        "   5 |     COPY main.go .\n"
        "   6 |     USER x\n"
        "--------------------\n"
    )


def test_failed_step_is_told_as_buildkit_tells_it() -> None:
    error = RunError(
        'process "/bin/sh -c make" did not complete successfully: exit code: 2',
        returncode=2,
        location=SourceRange("Dockerfile", 3, 4),
    )
    assert shown(error) == (
        "Dockerfile:3-4\n"
        "--------------------\n"
        "   2 |     WORKDIR /build\n"
        "   3 | >>> COPY go.mod .\n"
        "   4 | >>> \tRUNN go mod download\n"
        "   5 |     COPY main.go .\n"
        "--------------------\n"
        'ERROR: failed to solve: process "/bin/sh -c make" did not complete successfully: exit code: 2\n'
    )


@pytest.mark.parametrize("where", [SourceRange("D", 99, 99), SourceRange("D", 0, 0), SourceRange("D", 5, 2)])
def test_place_that_is_not_in_the_text_is_only_named(where: SourceRange) -> None:
    assert shown(ParseError("bad", location=where)) == f"error: bad\n{where}\n"


def test_source_that_is_gone_is_only_named() -> None:
    assert shown(ParseError("bad", location=SourceRange("D", 7, 7)), None) == "error: bad\nD:7\n"


def test_caret_stays_within_the_line() -> None:
    text = shown(ParseError("bad", location=SourceRange("D", 6, 6, 4, 500)))
    assert "     |         ^^\n" in text
    assert "     |           ^\n" in shown(ParseError("bad", location=SourceRange("D", 6, 6, 900)))


def test_control_characters_of_a_source_do_not_reach_the_terminal() -> None:
    assert "\x1b" not in shown(ParseError("bad", location=SourceRange("D", 1, 1)), b"FROM \x1b[2J\xff\n")


def code_of(error: BaseException, environ: dict[str, str] | None = None) -> tuple[int, str]:
    out = io.StringIO()
    return report(error, out, environ or {}, lambda _: None), out.getvalue()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("x"), 2),
        (ParseError("x"), 3),
        (ContextError("x"), 1),
        (UnsupportedError("x", feature="y"), 4),
        (StoreError("x"), 6),
        (KeyboardInterrupt(), 130),
        (Interrupted(15), 143),
        (BrokenPipeError(), 141),
        (OSError(errno.ENOSPC, "No space left on device", "/x"), 6),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 1),
        (MemoryError(), 1),
        (ZeroDivisionError("division by zero"), 70),
    ],
)
def test_exit_codes(error: BaseException, code: int) -> None:
    got, text = code_of(error)
    assert got == code
    assert "Traceback" not in text
    assert text.count("\n") <= 2


def test_unexpected_error_asks_for_a_report() -> None:
    assert "CASTOFF_DEBUG=1" in code_of(KeyError("x"))[1]


def test_debug_shows_the_traceback() -> None:
    text = code_of(StoreError("the store is full"), {"CASTOFF_DEBUG": "1"})[1]
    assert text.startswith("castoff.errors.StoreError")
    assert text.endswith("error: the store is full\n")


def test_host_source_is_read_and_odd_files_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "Dockerfile"
    path.write_bytes(SOURCE)
    out = io.StringIO()
    report(ParseError("bad", location=SourceRange(str(path), 1, 1)), out, {})
    assert ">>> FROM scratch" in out.getvalue()
    for odd in (str(tmp_path), str(tmp_path / "gone"), "a\0b"):
        out = io.StringIO()
        assert report(ParseError("bad", location=SourceRange(odd, 1, 1)), out, {}) == 3
        assert ">>>" not in out.getvalue()
