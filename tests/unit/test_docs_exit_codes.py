"""docs/exit-codes.md has every class of error with its exit code."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from castoff import errors
from castoff.cli import errors as cli_errors
from castoff.cli.main import EXIT_RUN_FAILED

PAGE = (Path(__file__).parents[2] / "docs" / "exit-codes.md").read_text(encoding="utf-8")


def test_the_table_of_errors_is_that_of_the_code() -> None:
    table = {name: int(code) for name, code in re.findall(r"^\| `(\w+)` \| (\d+) \|", PAGE, re.MULTILINE)}
    classes = {
        name: value.exit_code
        for name, value in inspect.getmembers(errors, inspect.isclass)
        if issubclass(value, errors.CastoffError) and value.__module__ == errors.__name__
    }
    assert table == classes


def test_the_table_of_codes_has_every_code() -> None:
    listed: set[int] = set()
    for row in re.findall(r"^\| ((?:\d+(?:, )?)+) \|", PAGE, re.MULTILINE):
        listed |= {int(code) for code in row.split(", ")}
    used = {value.exit_code for value in vars(errors).values() if hasattr(value, "exit_code")}
    used |= {cli_errors.EXIT_INTERRUPTED, cli_errors.EXIT_BROKEN_PIPE, cli_errors.EXIT_NO_SPACE}
    used |= {cli_errors.EXIT_REFUSED, cli_errors.EXIT_BUG}
    assert used <= listed
    assert str(EXIT_RUN_FAILED) in PAGE
