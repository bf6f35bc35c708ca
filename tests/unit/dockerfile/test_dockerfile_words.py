"""Expansion: operators, quotes, limits; and the patterns of ``${x#p}``, checked against regular expressions."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castoff.dockerfile.patterns import ShellPattern, trim_prefix, trim_suffix
from castoff.dockerfile.words import MAX_EXPANDED, WordLexer
from castoff.errors import ExpansionError

ENV = {"A": "one", "EMPTY": "", "PATH_": "/usr/local/bin", "SP": "a  b"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$A", "one"),
        ("${A}x", "onex"),
        ("${NO:-d}", "d"),
        ("${EMPTY-d}", ""),
        ("${EMPTY:-$A}", "one"),
        ("${A:+set}", "set"),
        ("${NO+set}", ""),
        ("${PATH_##*/}", "bin"),
        ("${PATH_#*/}", "usr/local/bin"),
        ("${PATH_%/*}", "/usr/local"),
        ("${PATH_%%/*}", ""),
        ("${PATH_/local/x}", "/usr/x/bin"),
        ("${PATH_//\\//-}", "-usr-local-bin"),
        ("'$A'", "$A"),
        ('"$A"', "one"),
        ("\\$A", "$A"),
        ("a\\", "a"),
        ("$", "$"),
        ("$1x", "x"),
        ("\udcff$A", "\ufffdone"),
    ],
)
def test_a_word_is_expanded(text: str, expected: str) -> None:
    assert WordLexer().word(text, ENV) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("${A", "missing '}'"),
        ("${}", "bad substitution"),
        ("${A:=x}", "unsupported modifier"),
        ("${A:#x}", "unsupported modifier"),
        ("${NO:?say so}", "NO: say so"),
        ("${NO?}", "NO: is not allowed to be unset"),
        ("${EMPTY:?}", "EMPTY: is not allowed to be empty"),
        ("'open", "single-quote"),
        ('"open', "double-quote"),
        ("${A#\\q}", "invalid pattern"),
        ("${A:-" * 500 + "}" * 500, "nested more than"),
    ],
)
def test_a_malformed_word_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ExpansionError) as caught:
        WordLexer().word(text, ENV)
    assert reason in caught.value.message
    assert len(caught.value.message) < 500


def test_words_are_split_after_expansion() -> None:
    assert WordLexer().words('x$SP "$SP"', ENV) == ("xa", "b", "a  b")


def test_doubling_variables_meet_a_limit() -> None:
    env = {"A": "x"}
    with pytest.raises(ExpansionError, match="longer than"):
        for _ in range(40):
            env["A"] = WordLexer().word("$A$A", env)
    assert len(env["A"]) <= MAX_EXPANDED


def test_another_escape_character() -> None:
    assert WordLexer(escape="`").word("c:\\$A`$A", ENV) == "c:\\one$A"


def test_display_keeps_quotes_and_unset_variables() -> None:
    assert WordLexer().for_display().word("echo \"$A\" '$A' $NO ${NO:-x}", ENV) == "echo \"one\" '$A' $NO ${NO:-x}"


def as_regex(pattern: str, star: str) -> str:
    return "".join(star if char == "*" else "." if char == "?" else re.escape(char) for char in pattern)


PATTERNS = st.text("ab*?\n", max_size=7)
VALUES = st.text("ab\n", max_size=12)


@given(PATTERNS, VALUES, st.booleans())
def test_prefixes_are_those_of_a_regular_expression(pattern: str, value: str, longest: bool) -> None:
    match = re.match(as_regex(pattern, ".*" if longest else ".*?"), value)
    assert trim_prefix(pattern, value, longest=longest) == (value[match.end() :] if match else value)


@given(PATTERNS, VALUES, st.booleans())
def test_suffixes_are_prefixes_of_the_reverse(pattern: str, value: str, longest: bool) -> None:
    reverse = trim_prefix(pattern[::-1], value[::-1], longest=longest)[::-1]
    assert trim_suffix(pattern, value, longest=longest) == reverse


@given(PATTERNS, VALUES)
def test_the_first_match_is_that_of_a_regular_expression(pattern: str, value: str) -> None:
    match = re.search(as_regex(pattern, ".*"), value)
    expected = value[: match.start()] + "X" + value[match.end() :] if match else value
    assert ShellPattern(pattern).replace(value, "X", every=False) == expected


@given(PATTERNS.filter(lambda pattern: pattern.strip("*") != ""), VALUES)
def test_every_match_is_replaced(pattern: str, value: str) -> None:
    assert ShellPattern(pattern).replace(value, "X", every=True) == re.sub(as_regex(pattern, ".*"), "X", value)


@given(st.text(st.sampled_from("${}:-+?#%/\\\"'ab\u00e9 <"), max_size=30))
def test_any_text_gives_a_result_or_an_expansion_error(text: str) -> None:
    for lexer in (WordLexer(), WordLexer(raw_quotes=True, keep_unset=True), WordLexer(skip_quotes=True)):
        try:
            expansion = lexer.expand(text, {"a": "b*", "b": ""})
        except ExpansionError:
            continue
        assert lexer.word(text, {"a": "b*", "b": ""}) == expansion.text
