"""The reference's own cases for build checks, and for links in a build context."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from castoff.context.followlinks import follow_links
from castoff.context.ignore import IgnorePatterns
from castoff.dockerfile.parser import read
from castoff.errors import CastoffError
from castoff.fs.entry import FileEntry
from castoff.oci.config import ContainerConfig, ImageConfig
from castoff.oci.platform import Platform
from castoff.plan.graph import PlanRequest
from castoff.plan.linting import check
from castoff.plan.planner import plan
from castoff.plan.resolver import ContextKind, ResolvedBase

if TYPE_CHECKING:
    from castoff.dockerfile.lint.linter import LintResult

Case = dict[str, Any]

HOST = Platform("linux", "amd64")
_HOLE = re.compile(r"\{\{.*?\}\}")
_BASE = "localhost:5000/buildkit/testbaseimageplatform:latest"


@dataclass
class Images:
    """A resolver that has every image."""

    platform: Platform
    asked: list[str] = field(default_factory=list)

    def context_kind(self, _name: str) -> ContextKind:
        return "none"

    def resolve(self, name: str, _platform: Platform, _location: object) -> ResolvedBase:
        self.asked.append(name)
        return ResolvedBase(name, name, ImageConfig(self.platform, ContainerConfig(env=("PATH=/bin",))))


def request(case: Case) -> PlanRequest:
    attributes = case.get("attrs", {})
    arguments = [(key.removeprefix("build-arg:"), value) for key, value in attributes.items() if "build-arg:" in key]
    wanted = attributes.get("platform")
    return PlanRequest(
        build_args=tuple(arguments),
        build_platform=HOST,
        target_platform=Platform.parse(wanted) if wanted else None,
    )


def checked(case: Case, *, all_stages: bool) -> tuple[LintResult, CastoffError | None]:
    """Check the Dockerfile of a case; the error is that of a build, as far as it comes before any step."""
    text = _HOLE.sub(_BASE, case["dockerfile"])
    images = Images(Platform("linux", "arm64") if _BASE in text else HOST)
    ignore = IgnorePatterns.parse(case["dockerignore"].encode()) if "dockerignore" in case else None
    reading = read(text.encode())
    result = check(reading, request(case), images, ignore, all_stages=all_stages)
    error: CastoffError | None = reading.error
    if error is None:
        try:
            plan(reading.dockerfile, request(case), images)
        except CastoffError as caught:
            error = caught
    return result, error or result.violation()


def rows(result: LintResult) -> list[tuple[str, int, str]]:
    return [(item.rule.name, item.location.start_line, item.detail) for item in result.findings]


def expected_rows(warnings: list[Case]) -> list[tuple[str, int, str]]:
    return [(item["rule"], item["line"], _HOLE.sub(_BASE, item["detail"])) for item in warnings]


@pytest.mark.conformance("lint")
def test_lint_case(case: Case) -> None:
    result, error = checked(case, all_stages=False)
    assert rows(result) == expected_rows(case["warnings"])
    for finding, warning in zip(result.findings, case["warnings"], strict=True):
        assert finding.rule.description == warning["description"]
        assert finding.rule.url == (warning["url"] or "")
    whole, _ = checked(case, all_stages=True)
    wanted = expected_rows(case["lint_only_warnings"] if "lint_only_warnings" in case else case["warnings"])
    if "lint_only_warnings" in case:  # the reference's test does not look at their lines, and has a wrong one
        assert [(rule, detail) for rule, _, detail in rows(whole)] == [(rule, detail) for rule, _, detail in wanted]
    else:
        assert rows(whole) == wanted
    if "build_error" in case:
        assert error is not None
        assert error.location is not None
        assert error.location.start_line == case["error_line"]
        words = case["build_error"].split(": ")[-1].split(" (did you mean ")
        assert words[0] in error.message or "invalid argument" in words[0]
        assert len(words) == 1 or f"did you mean {words[1].removesuffix(')')}" == error.hint
    elif "build_error_regex" not in case:  # those come of files that are not there, once steps run
        assert error is None


@pytest.mark.conformance("followlinks")
def test_followlinks_case(case: Case) -> None:
    entries = {
        item["path"].encode(): FileEntry(
            path=item["path"].encode(),
            mode={"dir": 0o040755, "file": 0o100644, "symlink": 0o120777}[item["op"]],
            link=item.get("target", "").encode(),
        )
        for item in case["fs"]
    }

    def listdir(folder: bytes) -> list[bytes]:
        return sorted(path.rpartition(b"/")[2] for path in entries if path.rpartition(b"/")[0] == folder)

    found = follow_links(entries.get, listdir, [path.encode() for path in case["paths"]])
    assert [path.decode() for path in found] == (case["expected"] or [])
