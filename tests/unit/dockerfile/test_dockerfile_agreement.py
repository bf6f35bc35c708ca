"""The nodes agree with those of the reference's own parser, where the package that wraps it is installed."""

from __future__ import annotations

import os
import re

import pytest
from dockerfile_corpus import corpus
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from castoff.dockerfile.nodes import parse_nodes
from castoff.dockerfile.source import Source
from castoff.errors import ParseError

oracle = pytest.importorskip("dockerfile", reason="the package dockerfile is not installed", exc_type=ImportError)

Rows = list[tuple[str, tuple[str, ...], tuple[str, ...], int, int]]


def ours(text: str) -> Rows | None:
    try:
        tree = parse_nodes(Source.read(text.encode(), "Dockerfile"))
    except ParseError:
        return None
    rows = []
    for node in tree.nodes:
        words = node.words()
        keyword = node.keyword.lower()
        if keyword in ("env", "label"):
            words = [word for index, word in enumerate(words) if index % 3 != 2]
        rows.append((keyword, node.flags, () if keyword == "onbuild" else tuple(words), node.start_line, node.end_line))
    return rows


def theirs(text: str) -> Rows | None:
    try:
        commands = oracle.parse_string(text)
    except oracle.GoParseError:
        return None
    rows = []
    for command in commands:
        keyword = (command.cmd or "").lower()
        words = () if keyword == "onbuild" else tuple(command.value)
        rows.append((keyword, tuple(command.flags), words, command.start_line, command.end_line))
    return rows


_ESCAPE = re.compile(r"(?i)^[ \t]*#[ \t]*escape[ \t]*=[ \t]*`", re.MULTILINE)
_CHECK = re.compile(r"(?i)^[ \t]*#[ \t]*check[ \t]*=", re.MULTILINE)
_DIRECTIVE = re.compile(r"(?i)^[ \t]*#[ \t]*(?:check|escape|syntax)[ \t]*=", re.MULTILINE)
_HEREDOC_BLANK = re.compile(r"<<-?[ \t\r]")
_AFTER_ARRAY = re.compile(r"\][ \t]*\S")
EXAMPLES = int(os.environ.get("CASTOFF_FUZZ_EXAMPLES", "0"))


def is_told_apart(text: str) -> bool:
    """Say whether a text may be read in another way by the wrapped version, which is older than the dialect.

    It takes text after a JSON array and no blank between ``<<`` and a name, and a backslash escapes in flags there
    whatever ``# escape=`` says. It does not know ``# check=``, so directives end there, and none that follows is one
    too many. Its words end at a zero byte.
    """
    if "\0" in text or "\\u0000" in text:
        return True
    if (_ESCAPE.search(text) and "--" in text) or (_CHECK.search(text) and len(_DIRECTIVE.findall(text)) > 1):
        return True
    return bool(_HEREDOC_BLANK.search(text) or _AFTER_ARRAY.search(text))


LINES = st.sampled_from(
    [
        "FROM a AS b",
        "# a comment",
        "",
        "  RUN x \\",
        "   y",
        "RUN --mount=type=cache,target='/a b' \\",
        'RUN ["a", "b"]',
        "RUN <<EOF",
        "COPY <<A <<-'B' /x",
        "EOF",
        "A",
        "\tB",
        "COPY --from=x --chown=1:2 a\u00a0b c",
        'ENV A=1 B="x y" C=z\\ z',
        "ENV A  some text ",
        "LABEL x='y'",
        "ARG A B=c 'D=e f'",
        "ONBUILD RUN x",
        "HEALTHCHECK --interval=3s CMD x y",
        'HEALTHCHECK CMD ["x"]',
        "EXPOSE 80  81",
        'CMD [ "\\u00e9" ]',
        "CMD ['x']",
        "# escape=`",
        "RUN c `",
        "\\",
        'VOLUME ["/a"]',
        "STOPSIGNAL 9",
        "nonsense here",
        "-- x",
        "RUN -- x --y",
        'COPY --a\\ b="c d" e f',
    ]
)


@given(st.lists(LINES, min_size=1, max_size=8), st.sampled_from(["\n", "\r\n"]))
@settings(max_examples=max(400, EXAMPLES))
def test_both_read_the_same(rows: list[str], end: str) -> None:
    text = end.join(rows)
    assume(not is_told_apart(text))
    assert ours(text) == theirs(text)


@pytest.mark.parametrize("text", corpus(), ids=range(len(corpus())))
def test_both_read_every_file_that_is_found_the_same(text: str) -> None:
    if not is_told_apart(text):
        assert ours(text) == theirs(text)


PIECES = st.sampled_from(
    [
        "\\",
        "`",
        '"',
        "'",
        "$",
        "#",
        "<<EOF",
        "EOF",
        "[",
        "]",
        "--a=b ",
        "=",
        " ",
        "\t",
        "\r",
        "\n",
        "\\\n",
        ",",
        "{",
        "é",
    ]
)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """Draw a file of the corpus with some lines and characters changed."""
    rows = draw(st.sampled_from(corpus())).split("\n")
    for _ in range(draw(st.integers(1, 4))):
        index = draw(st.integers(0, len(rows) - 1))
        row = rows[index]
        match draw(st.integers(0, 5)):
            case 0:
                rows.insert(index, draw(LINES))
            case 1:
                rows.insert(draw(st.integers(0, len(rows))), row)
            case 2 if len(rows) > 1:
                del rows[index]
            case 3:
                rows[index] = row.rstrip() + draw(st.sampled_from([" \\", "\\ ", " #", "\r"]))
            case 4:
                place = draw(st.integers(0, len(row)))
                rows[index] = row[:place] + draw(PIECES) + row[place:]
            case _:
                place = draw(st.integers(0, len(row)))
                rows[index] = row[:place] + row[place + 1 :]
    return "\n".join(rows)


@given(mutated())
@settings(max_examples=max(300, EXAMPLES))
def test_both_read_changed_files_the_same(text: str) -> None:
    assume(not is_told_apart(text))
    assert ours(text) == theirs(text)
