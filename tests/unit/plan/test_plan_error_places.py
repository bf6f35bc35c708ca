"""Errors of the language and of the plan point at the word, and say what to write instead."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from castoff.dockerfile.parser import parse
from castoff.errors import CastoffError
from castoff.oci.config import ImageConfig
from castoff.plan.graph import PlanRequest
from castoff.plan.planner import plan
from castoff.plan.resolver import ContextKind, ResolvedBase

if TYPE_CHECKING:
    from castoff.location import SourceRange
    from castoff.oci.platform import Platform

BASE = "FROM a AS b\n"


class Images:
    """A resolver that has every image."""

    def context_kind(self, _name: str) -> ContextKind:
        return "none"

    def resolve(self, name: str, platform: Platform, _location: SourceRange | None) -> ResolvedBase:
        return ResolvedBase(name, name, ImageConfig(platform))


@pytest.mark.parametrize(
    ("text", "word", "hint"),
    [
        ("FORM a", "FORM", "did you mean FROM?"),
        ("FROM a AZ b", "FROM", "did you mean AS?"),
        ("FROM --platform=$BULDPLATFORM a", "$BULDPLATFORM", "did you mean BUILDPLATFORM?"),
        ("FROM --platform=x/y/z/w a", "x/y/z/w", "a platform looks like linux/amd64 or linux/arm/v7"),
        (BASE + "COPY --form=b x y", "--form", "did you mean from?"),
        (BASE + "COPY --from=$b x y", "--from", None),
        (BASE + "COPY --from=5 x y", "5", "the stages are numbered from 0 to 0"),
        (BASE + "COPY --from=b x y", "b", "b needs b"),
        (BASE + "COPY --chmod=abc x y", "abc", "write --chmod=755"),
        (BASE + "COPY x", "COPY", "write COPY source destination"),
        (BASE + "RUN --mount=type=cach,target=/x y", "cach", "did you mean cache?"),
        (BASE + "RUN --mount=type=cache,tarrget=/x y", "tarrget", "did you mean target?"),
        (BASE + "RUN x \\\n  --mount \\\n && y\nRUN --mount=target=/x,mode=9 x", "9", "write an octal number"),
        (BASE + "ENV a=b c", "c", "a value with spaces needs quotes"),
        (BASE + "LABEL", "LABEL", "write LABEL name=value"),
        (BASE + "EXPOSE 80 70000", "70000", "a port is a number from 0 to 65535"),
        (BASE + "EXPOSE 80/tpc", "80/tpc", "did you mean tcp?"),
        (BASE + "USER ${x", "${x", "an expression is ${name}"),
        (BASE + "STOPSIGNAL SIGTREM", "SIGTREM", "did you mean SIGTERM?"),
        (BASE + "STOPSIGNAL TREM", "TREM", "did you mean TERM?"),
        (BASE + "COPY a b\n  c d", "c", "if this goes on from the line above"),
    ],
)
def test_an_error_points_at_the_word(text: str, word: str, hint: str | None) -> None:
    with pytest.raises(CastoffError) as caught:
        plan(parse(text.encode()), PlanRequest(), Images())
    where = caught.value.location
    assert where is not None
    line = text.split("\n")[where.start_line - 1]
    assert line[where.start_column : where.end_column] == word
    assert (caught.value.hint or "").startswith(hint or "")
    assert (caught.value.hint is None) == (hint is None)
