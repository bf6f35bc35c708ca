"""Reading a Dockerfile: what its instructions hold, and what its errors say and point at."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castoff.dockerfile import instructions as ins
from castoff.dockerfile.parser import parse, parse_trigger
from castoff.dockerfile.source import MAX_LINE
from castoff.errors import ParseError


def only(text: str) -> ins.Instruction:
    """Return the second instruction of a Dockerfile whose first is a FROM."""
    return parse(f"FROM a\n{text}".encode("utf-8", "surrogateescape")).instructions[1]


def refused(text: str) -> ParseError:
    with pytest.raises(ParseError) as caught:
        parse(text.encode("utf-8", "surrogateescape"))
    return caught.value


def test_from_with_platform_and_name() -> None:
    head = parse(b"FROM --platform=$BUILDPLATFORM golang:1.22 As Builder\n").instructions[0]
    assert isinstance(head, ins.From)
    assert (head.base, head.name, head.name_written, head.as_written) == ("golang:1.22", "builder", "Builder", "As")
    assert head.platform == "$BUILDPLATFORM"


def test_continuations_comments_and_line_numbers() -> None:
    run = only("RUN one \\\n# a comment\n   two \\\n\n  three\nUSER x")
    assert isinstance(run, ins.Run)
    assert run.command == ("one    two   three",)
    assert (run.location.start_line, run.location.end_line) == (2, 6)


def test_an_empty_continuation_line_is_a_warning() -> None:
    dockerfile = parse(b"FROM a\nRUN x \\\n\n y\n")
    assert [warning.rule for warning in dockerfile.warnings] == ["NoEmptyContinuation"]


def test_the_escape_directive_changes_continuations() -> None:
    dockerfile = parse(b"# escape=`\nFROM a\nCOPY c:\\x `\n  d:\\\n")
    copy = dockerfile.instructions[1]
    assert isinstance(copy, ins.Copy)
    assert (copy.sources, copy.dest, dockerfile.escape) == (("c:\\x",), "d:\\", "`")


@pytest.mark.parametrize(
    ("value", "warns"),
    [
        ("docker/dockerfile:1", False),
        ("docker/dockerfile:1.7", False),
        ("docker.io/docker/dockerfile:1", False),
        ("docker/dockerfile:1@sha256:" + "0" * 64, False),
        ("docker/dockerfile:1.999", True),
        ("docker/dockerfile:2", True),
        ("docker/dockerfile:1-labs", True),
        ("example.com/other", True),
    ],
)
def test_the_syntax_directive_is_accepted(value: str, warns: bool) -> None:
    assert bool(parse(f"# syntax={value}\nFROM a\n".encode()).warnings) == warns


def test_directives_after_a_shebang_line() -> None:
    dockerfile = parse(b"#!/usr/bin/env x\n# check=skip=all\nFROM a\n")
    assert dockerfile.directive("check") == "skip=all"
    assert dockerfile.directive("syntax") == ""


def test_byte_order_mark_and_windows_line_ends() -> None:
    dockerfile = parse(b"\xef\xbb\xbfFROM a\r\nRUN x \\\r\n y\r\n")
    run = dockerfile.instructions[1]
    assert isinstance(run, ins.Run)
    assert run.command == ("x  y",)
    assert dockerfile.lines == ("FROM a", "RUN x \\", " y")


def test_heredocs_keep_their_content() -> None:
    copy = only("COPY <<-A <<'B' x /dest/\n\tone $X\n\tA\n\ttwo\nB\n")
    assert isinstance(copy, ins.Copy)
    assert copy.files == (ins.InlineSource("A", "one $X\n", True), ins.InlineSource("B", "\ttwo\n", False))
    assert copy.sources == ("x",)
    assert copy.location.end_line == 6


def test_run_flags() -> None:
    run = only(
        "RUN --mount=type=cache,target=/c --mount=type=tmpfs,target=/t --network=none --security=insecure make -j"
    )
    assert isinstance(run, ins.Run)
    assert run.mounts == ("type=cache,target=/c", "type=tmpfs,target=/t")
    assert (run.network, run.security, run.command) == ("none", "insecure", ("make -j",))


def test_exec_form_and_its_fallback() -> None:
    exec_form, shell_form = only('CMD ["a", "b\\u00e9"]'), only("CMD ['a']")
    assert isinstance(exec_form, ins.Cmd)
    assert isinstance(shell_form, ins.Cmd)
    assert (exec_form.command, exec_form.shell_form) == (("a", "bé"), False)
    assert (shell_form.command, shell_form.shell_form) == (("['a']",), True)


@pytest.mark.parametrize("text", ["CMD [NaN]", 'CMD ["a", 1e999]', 'CMD ["a"] x'])
def test_what_is_not_json_is_shell_form(text: str) -> None:
    command = only(text)
    assert isinstance(command, ins.Cmd)
    assert command.shell_form


def test_add_flags() -> None:
    add = only("ADD --chown=1:2 --chmod=644 --link --keep-git-dir=false --unpack --exclude=a --exclude=b x y /z")
    assert isinstance(add, ins.Add)
    assert (add.chown, add.chmod, add.link, add.keep_git_dir, add.unpack) == ("1:2", "644", True, False, True)
    assert (add.excludes, add.sources, add.dest) == (("a", "b"), ("x", "y"), "/z")


def test_healthcheck_times() -> None:
    health = only("HEALTHCHECK --interval=1m30s --timeout=500ms --start-period=1h --retries=3 CMD curl x | grep y")
    assert isinstance(health, ins.Healthcheck)
    assert health.check.test == ("CMD-SHELL", "curl x | grep y")
    assert (health.check.interval, health.check.timeout) == (90_000_000_000, 500_000_000)
    assert (health.check.start_period, health.check.retries) == (3_600_000_000_000, 3)


def test_labels_old_and_new() -> None:
    old, new = only("LABEL a b c"), only('LABEL a="b c" d=e')
    assert isinstance(old, ins.Label)
    assert isinstance(new, ins.Label)
    assert old.labels == (ins.Variable("a", "b c", legacy=True),)
    assert new.labels == (ins.Variable("a", '"b c"'), ins.Variable("d", "e"))


def test_comments_describe_arguments() -> None:
    argument = only("# V the version\nARG V=1")
    assert isinstance(argument, ins.Arg)
    assert argument.args[0].description == "the version"


def test_a_trigger_takes_the_place_of_the_from_that_brought_it() -> None:
    head = parse(b"FROM a\n").instructions[0]
    run = parse_trigger("RUN <<E\nx\nE", head.location)
    assert isinstance(run, ins.Run)
    assert run.heredocs[0].content == "x\n"
    assert run.location == head.location
    with pytest.raises(ParseError, match="single expression"):
        parse_trigger("RUN a\nRUN b", head.location)


@pytest.mark.parametrize(
    ("text", "message", "hint", "line", "columns"),
    [
        ("FROM a\nRUM x\n", "unknown instruction: RUM", "did you mean RUN?", 2, (0, 3)),
        ("FROM a\nCOPY --form=b c d\n", "unknown flag: --form", "did you mean from?", 2, (5, 11)),
        ("FROM a\nRUN --device=x y\n", "unknown flag: --device", "stable", 2, (4, 12)),
        ("FROM a\nRUN --network=lan x\n", "invalid network mode", "default", 2, (4, 17)),
        ("FROM a\nRUN x \\\n  && y\n\nFRM b\n", "unknown instruction: FRM", "FROM", 5, (0, 3)),
        ("RUN x\n", "no build stage in current context", "before the first FROM", 1, (None, None)),
        ("FROM a b\n", "either one or three", "FROM base AS name", 1, (0, 4)),
        ("FROM a AS 1b\n", "invalid name for build stage", None, 1, (10, 12)),
        ("FROM a\nSHELL bash\n", "JSON form", "SHELL [", 2, (0, 5)),
        ("FROM a\nRUN <<E\nx\n", "unterminated heredoc", "E ends it", 2, (None, None)),
        ("# escape=x\nFROM a\n", "invalid escape token", None, 1, (9, 10)),
        ("# escape=`\n# escape=`\nFROM a\n", "only one escape parser directive", None, 2, (None, None)),
        ("FROM a\nHEALTHCHECK --interval=3 CMD x\n", "duration", "30s", 2, (12, 24)),
        ("FROM a\nONBUILD FROM b\n", "isn't allowed as an ONBUILD trigger", None, 2, (0, 7)),
        ('FROM a\nCMD [["x"]]\n', "comprised of strings only", None, 2, (None, None)),
    ],
)
def test_errors_point_at_the_place(
    text: str, message: str, hint: str | None, line: int, columns: tuple[int | None, int | None]
) -> None:
    error = refused(text)
    assert message in error.message
    assert hint is None or (error.hint and hint in error.hint)
    assert error.location
    assert error.location.start_line == line
    assert (error.location.start_column, error.location.end_column) == columns


def test_an_empty_file_is_refused() -> None:
    assert "cannot be empty" in refused("").message
    assert "no instructions" in refused("\n# only a comment\n").message


def test_a_line_that_is_too_long_is_refused_where_it_is_reached() -> None:
    long = "x" * MAX_LINE
    assert "unknown instruction: NOPE" in refused(f"NOPE\nRUN {long[:-5]}").message
    error = refused(f"FROM a\nRUN {long}\n")
    assert "greater than max allowed size" in error.message
    assert error.location
    assert error.location.start_line == 2
    fits = "x" * (MAX_LINE - len("RUN \n"))
    parse(f"FROM a\nRUN {fits}\n".encode())


@pytest.mark.parametrize(
    "text",
    [
        "FROM a\nRUN x \\ # why\n  && y\n",
        "FROM a\nCOPY a \\ # why\n  /b\n",
        "FROM a\nRUN x \\\n  y \\  # why\nUSER z\n",
        "FROM a\nRUN x \\ # why \\\n  y\n",
    ],
)
def test_a_comment_after_a_continuation_is_an_error_that_says_so(text: str) -> None:
    error = refused(text)
    assert "comment can't follow the line continuation" in error.message
    assert error.location
    line = text.split("\n")[error.location.start_line - 1]
    assert line[error.location.start_column : error.location.end_column].startswith("\\")
    assert line[error.location.start_column : error.location.end_column].rstrip(" \\").endswith("# why")


def test_a_comment_after_a_continuation_of_env_is_named_in_the_hint() -> None:
    assert "comment can't follow" in (refused("FROM a\nENV A=1 \\ # why\n  B=2\n").hint or "")


@pytest.mark.parametrize(
    "text", ["RUN echo ' \\ # x'", 'RUN grep "a \\ # b" c', "RUN a\\ #b", "RUN a \\#b", "RUN a # b"]
)
def test_a_number_sign_that_is_none_of_that_is_left_alone(text: str) -> None:
    assert isinstance(only(text), ins.Run)


@given(st.binary(max_size=200))
def test_any_bytes_give_a_dockerfile_or_a_parse_error(data: bytes) -> None:
    try:
        parse(b"FROM a\n" + data)
    except ParseError as error:
        assert error.location is not None


WORDS = (
    "RUN |COPY |ENV |ONBUILD |HEALTHCHECK |CMD |<<E|\nE\n|\\\n|# escape=`\n|--mount=|type=cache|--from=x |\r\n|\udce9|é"
)
PIECES = st.sampled_from([*WORDS.split("|"), *"#='[],\"| \ta${}\u2003"])


@given(st.lists(PIECES, max_size=25))
def test_any_pieces_give_a_dockerfile_or_a_parse_error(pieces: list[str]) -> None:
    try:
        dockerfile = parse("".join(["FROM a\n", *pieces]).encode("utf-8", "surrogateescape"))
    except ParseError as error:
        assert error.location is not None
    else:
        lines = [item.location.start_line for item in dockerfile.instructions]
        assert lines == sorted(set(lines))
