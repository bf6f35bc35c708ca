"""Any input is read or refused with a sentence, and work grows no faster than the input.

``CASTOFF_FUZZ_EXAMPLES=N`` asks for N inputs for each of the parts (`./run fuzz N`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any

import pytest
from dockerfile_corpus import corpus
from hypothesis import given, settings
from hypothesis import strategies as st

from castoff.context.ignore import IgnorePatterns
from castoff.dockerfile.directives import detect_syntax
from castoff.dockerfile.lint.linter import lint
from castoff.dockerfile.lint.scope import LintScope
from castoff.dockerfile.mounts import parse_mount
from castoff.dockerfile.parser import parse, parse_trigger, read
from castoff.dockerfile.words import WordLexer
from castoff.errors import CastoffError, ContextError, DockerfileError, ExpansionError, ParseError
from castoff.oci.config import ImageConfig
from castoff.plan.graph import PlanRequest
from castoff.plan.planner import plan
from castoff.plan.resolver import ContextKind, ResolvedBase

if TYPE_CHECKING:
    from castoff.location import SourceRange
    from castoff.oci.platform import Platform

EXAMPLES = int(os.environ.get("CASTOFF_FUZZ_EXAMPLES", "0"))
fuzz = settings(max_examples=max(200, EXAMPLES))

KEYWORDS = (
    "FROM ARG ENV LABEL RUN COPY ADD WORKDIR USER EXPOSE VOLUME ENTRYPOINT CMD SHELL STOPSIGNAL HEALTHCHECK ONBUILD"
    " MAINTAINER from Run NONSENSE"
).split()
TOKENS = st.sampled_from(
    [
        *(f"\n{keyword} " for keyword in KEYWORDS),
        *"\\`'\"$#%/:;,=-?+[]{}<>@*!^&|~ \t\r\n\v\f\x00\x85é\ufeff",
        *(
            "# check=",
            "# escape=`\n",
            "# syntax=",
            "skip=all",
            "<<EOF",
            "<<-'E'",
            "\nEOF\n",
            "\nE\n",
            "\\\n",
            "--",
            "[[",
        ),
        *("scratch", "a", "b", " AS a", "0", "9" * 30, "/", "..", "/./", "**", "http://", "git@", "linux/amd64", "1h"),
        *(
            "--from=",
            "--mount=type=",
            "cache",
            "secret",
            "bind,from=",
            ",target=/x",
            "--platform=",
            "--chmod=",
            "--link",
        ),
        *("${", "${a", ":-", ":?", "##", "%%", "//", "$a", "$$", "CMD [", '"a"', '\\u0041"', "--interval=", "sha256:"),
    ]
)
TEXTS = st.lists(TOKENS, max_size=30).map("".join)
FILES = st.one_of(
    st.binary(max_size=200),
    TEXTS.map(lambda text: ("FROM scratch" + text).encode()),
    st.builds(
        lambda text, place, token: (text[: place % len(text)] + token + text[place % len(text) :]).encode(),
        st.sampled_from(corpus()),
        st.integers(0, 1 << 20),
        TEXTS,
    ),
)
ENVIRONMENTS = st.dictionaries(st.sampled_from(["a", "b", "_", "A1"]), TEXTS, max_size=3)


class Images:
    """A resolver that has every image, of one layer and with a trigger."""

    def context_kind(self, name: str) -> ContextKind:
        return "local" if name == "b" else "none"

    def resolve(self, name: str, platform: Platform, location: SourceRange | None) -> ResolvedBase:
        del location
        return ResolvedBase(name, name, ImageConfig(platform), "context-local" if name == "b" else "image")


@given(FILES, ENVIRONMENTS)
@fuzz
def test_any_file_is_planned_or_refused(data: bytes, build_args: dict[str, str]) -> None:
    detect_syntax(data)
    reading = read(data)
    scope = LintScope(build_args=build_args, all_stages=True, ignore=IgnorePatterns.of(["a", "**/b"]))
    with suppress(DockerfileError):
        for finding in lint(reading, scope).findings:
            assert 1 <= finding.location.start_line <= finding.location.end_line
            assert finding.location.end_line <= max(1, data.count(b"\n") + 1)
    try:
        graph = plan(parse(data), PlanRequest(build_args=tuple(build_args.items())), Images())
    except CastoffError as error:
        assert error.message
        assert error.exit_code in (2, 3)
        return
    assert reading.error is None
    assert graph.stages


@given(TEXTS, ENVIRONMENTS, st.builds(WordLexer, *[st.sampled_from("\\`"), *[st.booleans()] * 5]))
@fuzz
def test_any_word_is_expanded_or_refused(text: str, env: dict[str, str], lexer: WordLexer) -> None:
    try:
        expansion = lexer.expand(text, env)
    except ExpansionError as error:
        assert error.message
        with pytest.raises(ExpansionError):
            lexer.word(text, env)
        return
    assert lexer.word(text, env) == expansion.text
    assert expansion.matched <= env.keys()
    assert not expansion.unmatched & env.keys()


@given(st.one_of(st.binary(max_size=100), TEXTS.map(str.encode)), st.lists(TEXTS, max_size=3))
@fuzz
def test_any_ignore_file_is_read_or_refused(data: bytes, paths: list[str]) -> None:
    with suppress(ContextError):
        patterns = IgnorePatterns.parse(data)
        for path in paths:
            verdict = patterns.excludes(path)
            if "/" not in path and path:
                assert patterns.match(path)[0] == verdict
            patterns.may_descend(path)
            assert not verdict or patterns.deciding(path)


@given(TEXTS)
@fuzz
def test_any_mount_and_trigger_is_read_or_refused(text: str) -> None:
    with suppress(ParseError, ExpansionError):
        parse_mount(text, lambda word: WordLexer().word(word, {"a": "x"}))
    with suppress(ParseError):
        parse_trigger(text, None)


@dataclass
class Steps:
    """Counts the lines of Python that run. What the interpreter does within one is not seen."""

    count: int = 0

    def __call__(self, _frame: FrameType, event: str, _argument: Any) -> Steps:
        self.count += event == "line"
        return self


def steps(work: Callable[[], object]) -> int:
    """Return how many lines run."""
    before = sys.gettrace()
    counter = Steps()
    sys.settrace(counter)
    try:
        with suppress(CastoffError):
            work()
    finally:
        sys.settrace(before)
    return counter.count


def file(text: str) -> Callable[[], object]:
    data = text.encode()

    def work() -> None:
        with suppress(DockerfileError):
            lint(read(data), LintScope(all_stages=True))

    return work


def planned(text: str) -> Callable[[], object]:
    data = text.encode()
    return lambda: plan(parse(data), PlanRequest(), Images())


def word(text: str, **env: str) -> Callable[[], object]:
    return lambda: WordLexer().expand(text, env)


def ignored(patterns: str, path: str) -> Callable[[], object]:
    return lambda: IgnorePatterns.parse(patterns.encode()).excludes(path)


GROWING: dict[str, Callable[[int], Callable[[], object]]] = {
    "instructions": lambda n: file("FROM scratch\n" + "RUN x\n" * n),
    "stages": lambda n: file("FROM scratch AS s0\n" + "".join(f"FROM s{i} AS s{i + 1}\n" for i in range(n))),
    "copies": lambda n: file(
        "FROM a AS s0\n" + "".join(f"FROM b AS s{i + 1}\nCOPY --from=s{i} a b\n" for i in range(n))
    ),
    "arguments and stages": lambda n: file("".join(f"ARG a{i}=1\n" for i in range(n)) + "FROM $a0\n" * n),
    "variables": lambda n: file("FROM scratch\n" + "".join(f"ENV variable{i}=$x{i}\n" for i in range(4 * n))),
    "planned variables": lambda n: planned("FROM scratch\n" + "".join(f"ENV variable{i}=x\n" for i in range(4 * n))),
    "planned labels": lambda n: planned("FROM scratch\n" + "".join(f"LABEL label{i}=x\n" for i in range(4 * n))),
    "planned ports": lambda n: planned("FROM scratch\n" + "".join(f"EXPOSE {i + 1}\n" for i in range(4 * n))),
    "planned stages": lambda n: planned(
        "FROM scratch AS s0\n" + "".join(f"FROM s{i} AS s{i + 1}\nONBUILD ENV a=b\n" for i in range(n))
    ),
    "planned commands": lambda n: planned("FROM a\n" + "ARG b=c\nRUN x $b\n" * n),
    "triggers": lambda n: file("FROM scratch AS a\n" + "ONBUILD ENV a=b\n" * n + "FROM a\n"),
    "continuations": lambda n: file("FROM a\nRUN \\\n" + "b \\\n" * n + "c"),
    "comments": lambda n: file("FROM a\nRUN \\\n" + "# b\n" * n + "\n" * n + "# check=skip=all\n" * n + "USER c"),
    "heredocs": lambda n: file("FROM a\nRUN " + "<<A " * n + "\n" + "A\n" * n),
    "open heredocs": lambda n: file("FROM a\n" + "RUN <<A\n" * n),
    "pairs": lambda n: file("FROM a\nENV " + "a='b c' " * n),
    "flags": lambda n: file("FROM a\nRUN " + "--mount=type=cache,target=/a " * n + "x"),
    "fields": lambda n: file("FROM a\nRUN --mount=" + "type=cache," * n + "target=/a x"),
    "escapes": lambda n: file("FROM a\nRUN " + "\\ #" * n),
    "nested triggers": lambda n: file("FROM a\n" + "ONBUILD " * n + "x"),
    "expansion": lambda n: word("$a" * n + "'b' \"c\" " * n, a="x y"),
    "nested expansion": lambda n: word("${a:-" * n + "}" * n),
    "open braces": lambda n: word("${a:-b" * n),
    "prefixes": lambda n: word("${a##*a*b*c}" * 8, a="ab" * n),
    "suffixes": lambda n: word("${a%%*a*b*c}${a%a*b*c}" * 8, a="ab" * n),
    "replacements": lambda n: word("${a//a*c/x}${a//?/y}", a="ab" * n),
    "patterns": lambda n: ignored("a*b\n**/c\n!d\n" * n, "x/y"),
    "stars": lambda n: ignored("*a" * n + "b", "a" * 200),
    "double stars": lambda n: ignored("**/a/" * n + "b", "a/" * 50 + "c"),
    "names": lambda n: ignored("*a*b*c\n!*a?b", "ab" * n),
}


@pytest.mark.parametrize("name", GROWING)
def test_work_grows_no_faster_than_the_input(name: str) -> None:
    make, size = GROWING[name], 100
    small, large = steps(make(size)), steps(make(4 * size))
    assert large <= 6 * small + 1000, (small, large)


# These would take minutes where a regular expression goes back and forth over its input.
LONG: dict[str, Callable[[int], Callable[[], object]]] = {
    "blanks in a directive": lambda n: file("# syntax=a" + " " * n + "b\nFROM a"),
    "blanks after an escape": lambda n: file("FROM a\nRUN x \\" + " " * n + "x"),
    "escapes and blanks": lambda n: file("FROM a\nRUN " + "\\ " * (n // 2) + "x"),
    "digits before a heredoc": lambda n: file("FROM a\nRUN " + "1" * n + "<<A"),
    "angles": lambda n: file("FROM a\nRUN " + "<" * n),
    "quotes": lambda n: file("FROM a\nRUN " + "'\"" * (n // 2)),
    "tabs in a heredoc": lambda n: file("FROM a\nCOPY <<-A x\n" + "\t" * n + "b\nA\n"),
    "a duration": lambda n: file("FROM a\nHEALTHCHECK --interval=" + "1" * n + " CMD x"),
    "a name": lambda n: file("FROM " + "a" * n + "\nUSER $" + "a" * (n // 2)),
    "a secret": lambda n: file("FROM scratch\nARG " + "_key" * (n // 4) + "s"),
    "brackets": lambda n: ignored("[" * n, "a"),
    "stars in a name": lambda n: ignored("*a" * 50 + "b", "a" * (n // 16)),
}


@pytest.mark.parametrize("name", LONG)
def test_the_longest_line_is_read(name: str) -> None:
    with suppress(CastoffError):
        LONG[name](65_000)()
