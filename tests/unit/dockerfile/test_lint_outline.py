"""The outline of a target: its arguments, secrets and ssh agents, and those of the stages that it needs."""

from __future__ import annotations

from castoff.dockerfile.lint.linter import lint
from castoff.dockerfile.lint.outline import Outline, outline
from castoff.dockerfile.lint.scope import LintScope
from castoff.dockerfile.parser import read

TEXT = b"""\
ARG prefix=v
# VERSION which one
ARG VERSION=${prefix}1
ARG UNUSED=1

FROM scratch AS other
ARG nothing

FROM scratch AS tools
# mirror where to fetch from
ARG mirror=here
RUN --mount=type=secret,id=key,required x
RUN --mount=type=secret,id=key --mount=type=secret,target=/a/b x

# app what it is all about
FROM scratch AS app
ARG VERSION
ARG late=$VERSION
RUN --mount=type=ssh --mount=from=tools,target=/x x
"""


def outlined(target: str, **build_args: str) -> Outline:
    result = lint(read(TEXT), LintScope(target=target, build_args=build_args))
    view = result.stages.target(target)
    assert view is not None
    return outline(result.stages, view)


def test_a_target_takes_what_it_and_its_stages_use() -> None:
    found = outlined("")
    assert (found.name, found.description) == ("app", "what it is all about")
    assert [(item.name, item.value, item.description) for item in found.args] == [
        ("prefix", "v", ""),
        ("VERSION", "v1", "which one"),
        ("mirror", "here", "where to fetch from"),
        ("late", "v1", ""),
    ]
    assert [(use.id, use.required, use.location.start_line) for use in found.secrets] == [
        ("key", True, 12),
        ("b", False, 13),
    ]
    assert [(use.id, use.required) for use in found.ssh] == [("default", False)]


def test_build_arguments_are_shown_with_the_values_that_they_have() -> None:
    assert {item.name: item.value for item in outlined("app", VERSION="2").args} == {
        "VERSION": "2",
        "mirror": "here",
        "late": "2",
    }


def test_a_stage_by_itself_takes_less() -> None:
    found = outlined("tools")
    assert [item.name for item in found.args] == ["mirror"]
    assert found.ssh == ()
    assert [item.name for item in outlined("other").args] == ["nothing"]
