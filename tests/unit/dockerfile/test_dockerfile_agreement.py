"""The nodes agree with those of the reference's own parser, where the package that wraps it is installed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
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


# The wrapped version is older: it takes text after a JSON array, and no blank between << and a name.
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
@settings(max_examples=400)
def test_both_read_the_same(rows: list[str], end: str) -> None:
    text = end.join(rows)
    assert ours(text) == theirs(text)
