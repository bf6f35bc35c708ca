"""The .dockerignore language: verdicts, walks, what may be skipped; and name patterns."""

from __future__ import annotations

import posixpath
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castoff.context.globs import has_wildcards, match_component
from castoff.context.ignore import MAX_LINE, IgnorePatterns, IgnoreState, read_patterns
from castoff.context.pathpattern import Automaton, PathPattern, Token, _tokens
from castoff.errors import ContextError


def test_lines_become_patterns() -> None:
    data = b"\xef\xbb\xbf# comment\r\n\r\n /abs/./x/ \n!  keep/../kept\n#not\n  # a pattern\n/\n\xff\n"
    assert read_patterns(data) == ["abs/x", "!kept", "# a pattern", "/", "\udcff"]


def test_a_line_that_is_too_long_is_refused() -> None:
    with pytest.raises(ContextError, match="line 2"):
        read_patterns(b"a\n" + b"x" * MAX_LINE)


@pytest.mark.parametrize(
    ("patterns", "path", "excluded"),
    [
        ("node_modules", "node_modules/x/y", True),
        ("node_modules", "src/node_modules", False),
        ("**/node_modules", "src/a/node_modules/x", True),
        ("*.pyc", "a/b.pyc", False),
        ("**/*.pyc", "a/b.pyc", True),
        ("*\n!keep", "keep/file", False),
        ("*\n!keep/file", "keep/other", True),
        ("a\n!a/b\na/b/c", "a/b/c", True),
        ("a\n!a/b\na", "a/b", True),
        ("docs/**/*.md\n!docs/README.md", "docs/README.md", False),
        ("docs/**", "docs", False),
        ("docs/**", "docs/x", True),
        ("a?c/[x-z]", "abc/y", True),
        ("[^a]", "b", True),
        (r"a\*", "a*", True),
        (r"a\*", "ab", False),
        ("a.c", "abc", False),
        ("**", "anything/at/all", True),
        ("", "x", False),
    ],
)
def test_verdicts(patterns: str, path: str, excluded: bool) -> None:
    ignore = IgnorePatterns.parse(patterns.encode())
    assert ignore.excludes(path) == excluded
    assert bool(ignore) == bool(patterns)
    assert (ignore.deciding(path) != "") >= excluded


def test_the_deciding_pattern_is_named() -> None:
    ignore = IgnorePatterns.parse(b"*.log\nbuild\n!build/keep\n")
    assert ignore.deciding("a.log") == "*.log"
    assert ignore.deciding("build/keep/x") == "!build/keep"
    assert ignore.deciding("src") == ""


@pytest.mark.parametrize("pattern", ["[", "[]", "a[", "[a-]", "a\\", "[-x]", "!", r"a\q[b", "[[:nonsense:]]"])
def test_malformed_patterns_are_refused(pattern: str) -> None:
    with pytest.raises(ContextError):
        IgnorePatterns.of([pattern])


@pytest.mark.parametrize(
    ("patterns", "folder", "descend"),
    [
        (["a"], "a", False),
        (["a", "!a/b"], "a", True),
        (["a", "!b/c"], "a", False),
        (["a", "!**/c"], "a", True),
        (["a", "!a/b/c"], "a/x", False),
        (["a", "!a/*/c"], "a/x", True),
        (["a", "!a/x"], "a/x/y", True),
    ],
)
def test_folders_that_may_be_skipped(patterns: list[str], folder: str, descend: bool) -> None:
    assert IgnorePatterns.of(patterns).may_descend(folder) == descend


PIECES = st.sampled_from(["a", "b", "c", "/", "/", "*", "?", "**", "**/", "/**", "[ab]", "."])
TEXTS = st.lists(PIECES, min_size=1, max_size=8).map(
    lambda pieces: posixpath.normpath("".join(pieces).strip("/") or "a")
)
PATHS = st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=4)


@given(st.lists(st.tuples(st.booleans(), TEXTS), min_size=1, max_size=4), PATHS)
def test_a_walk_gives_the_same_verdicts_and_skips_nothing_that_is_kept(
    rules: list[tuple[bool, str]], parts: list[str]
) -> None:
    ignore = IgnorePatterns.of([("!" if exception else "") + text for exception, text in rules])
    state: IgnoreState | None = None
    skipped = False
    for count in range(1, len(parts) + 1):
        path = "/".join(parts[:count])
        excluded, state = ignore.match(path, state)
        assert excluded == ignore.excludes(path)
        assert excluded or not skipped
        skipped = skipped or (excluded and not ignore.may_descend(path))


ONE = st.sampled_from(["a", "b", "/", "[^/]", "[ab]"]).map(lambda charset: Token("one", charset))
LOOP = st.sampled_from(["[^/]", "[^/]", "."]).map(lambda charset: Token("loop", charset))
TOKENS = st.lists(ONE | LOOP | st.just(Token("folders", "folders")), max_size=8)


@given(TOKENS, PATHS.map("/".join))
def test_the_automaton_agrees_with_a_regular_expression(tokens: list[Token], path: str) -> None:
    text = "".join(
        "(?:.*/)?" if token.kind == "folders" else token.charset + "*" * (token.kind == "loop") for token in tokens
    )
    assert Automaton(tokens).matches(path) == bool(re.fullmatch(text, path))


@given(TEXTS, PATHS.map("/".join))
def test_the_made_expressions_agree_with_the_automaton(text: str, path: str) -> None:
    shape, tokens = _tokens(text)
    if shape == "regex":
        assert PathPattern.compile(text).matches(path) == Automaton(tokens).matches(path)


def test_many_stars_end() -> None:
    long = "/".join(["a" * 200] * 10)
    ignore = IgnorePatterns.of(["*a" * 30 + "b", "**/" + "*a*/**/" * 8 + "b", "a" + "**b" * 10 + "c"])
    assert not ignore.excludes(long)
    assert not match_component("*a" * 40 + "b", "a" * 250)


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("*.go", "main.go", True),
        ("*.go", "main.go.txt", False),
        ("*", "a/b", False),
        ("a*b*c", "aXbYbZc", True),
        ("[a-c]?", "bz", True),
        ("[^a-c]?", "bz", False),
        (r"\*", "*", True),
        (r"[\]]", "]", True),
        ("[z-a]", "b", False),
        ("é?", "éü", True),
    ],
)
def test_names(pattern: str, name: str, matches: bool) -> None:
    assert match_component(pattern, name) == matches


@pytest.mark.parametrize("pattern", ["[", "[]a]", "[a", "a[-]", "\\", "[a-", "[\\"])
def test_malformed_names_are_refused(pattern: str) -> None:
    with pytest.raises(ContextError, match="malformed"):
        match_component(pattern, "a")


def test_wildcards_are_seen_unless_escaped() -> None:
    assert has_wildcards("a*")
    assert has_wildcards("a[b]")
    assert not has_wildcards(r"a\*b\?")
