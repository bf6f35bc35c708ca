"""Durations, quoting and suggestions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castoff.dockerfile.suggest import hint, nearest
from castoff.dockerfile.text import format_duration, parse_duration, quote, quote_all
from castoff.errors import ParseError


@pytest.mark.parametrize(
    ("text", "value", "shortest"),
    [
        ("0", 0, "0s"),
        ("1s", 10**9, "1s"),
        ("1.5s", 1_500_000_000, "1.5s"),
        ("90s", 90 * 10**9, "1m30s"),
        ("1h", 3600 * 10**9, "1h0m0s"),
        ("-2m", -120 * 10**9, "-2m0s"),
        ("500ms", 500_000_000, "500ms"),
        ("3us", 3000, "3µs"),
        (".5h1ns", 1_800_000_000_001, "30m0.000000001s"),
    ],
)
def test_durations(text: str, value: int, shortest: str) -> None:
    assert parse_duration(text) == value
    assert format_duration(value) == shortest


@given(st.integers(-(10**18), 10**18))
def test_durations_round_trip(value: int) -> None:
    assert parse_duration(format_duration(value)) == value


@pytest.mark.parametrize("text", ["", "-", "3", "s", "1x", "1s2", ".s", "999999999h"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ParseError):
        parse_duration(text)


def test_quoting() -> None:
    assert quote('a"b\\\n\x01\u200b\udcff♥') == '"a\\"b\\\\\\n\\x01\\u200b\\xff♥"'
    assert quote_all(("a", "b c")) == '["a" "b c"]'


def test_the_nearest_name() -> None:
    assert nearest("builer", ["builder", "base"]) == "builder"
    assert nearest("rnu", ["RUN"], case_sensitive=False) == "run"
    assert nearest("RNU", ["ENV", "ARG", "RUN"]) == "RUN"
    assert nearest("ubilder", ["builders", "builder"]) == "builder"
    assert nearest("builder", ["builder"]) is None
    assert nearest("xyz", ["builder"]) is None
    assert hint("form", ["from", "chown"]) == "did you mean from?"
