"""Each rule has something to say where it should, and says nothing of the same text mended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from castoff.context.ignore import IgnorePatterns
from castoff.dockerfile.lint.linter import LintResult, lint
from castoff.dockerfile.lint.rules import RULES
from castoff.dockerfile.lint.scope import LintScope
from castoff.dockerfile.parser import read
from castoff.errors import DockerfileError
from castoff.oci.config import ContainerConfig, ImageConfig
from castoff.oci.platform import Platform

if TYPE_CHECKING:
    from castoff.location import SourceRange

AMD64 = Platform("linux", "amd64")
IMAGE = ImageConfig(AMD64, ContainerConfig(env=("PATH=/bin", "HOME=/root")))
SCOPE = LintScope(automatic={"TARGETPLATFORM": "linux/amd64", "BUILDPLATFORM": "linux/amd64"}, platform=AMD64)


def known(config: ImageConfig = IMAGE) -> Callable[[str, Platform, SourceRange], ImageConfig | None]:
    return lambda _name, _platform, _location: config


def checked(text: str, scope: LintScope = SCOPE) -> LintResult:
    return lint(read(text.encode()), scope)


def found(text: str, scope: LintScope = SCOPE) -> list[tuple[str, int]]:
    return [(finding.rule.name, finding.location.start_line) for finding in checked(text, scope).findings]


BAD_AND_GOOD = [
    ("StageNameCasing", 1, "FROM scratch AS Base", "FROM scratch AS base"),
    ("FromAsCasing", 1, "FROM scratch as base", "from scratch as base"),
    ("NoEmptyContinuation", 4, "FROM scratch\nUSER \\\n\n1", "FROM scratch\nUSER \\\n# why\n1"),
    ("ConsistentInstructionCasing", 2, "FROM scratch\nuser 1\nUSER 2", "FROM scratch\nUSER 1\nUSER 2"),
    ("DuplicateStageName", 2, "FROM scratch AS a\nFROM scratch AS a", "FROM scratch AS a\nFROM scratch AS b"),
    ("ReservedStageName", 1, "FROM scratch AS context", "FROM scratch AS contexts"),
    ("JSONArgsRecommended", 2, "FROM scratch\nCMD run it", 'FROM scratch\nCMD ["run", "it"]'),
    ("MaintainerDeprecated", 2, "FROM scratch\nMAINTAINER me", "FROM scratch\nLABEL maintainer=me"),
    ("UndefinedArgInFrom", 1, "FROM scratch$NONE", "ARG NONE\nFROM scratch$NONE"),
    ("WorkdirRelativePath", 2, "FROM scratch\nWORKDIR app", "FROM scratch\nWORKDIR /x\nWORKDIR app"),
    ("UndefinedVar", 2, "FROM scratch\nUSER $NOBODY", "FROM scratch\nARG NOBODY\nUSER $NOBODY"),
    ("MultipleInstructionsDisallowed", 2, 'FROM scratch\nCMD ["a"]\nCMD ["b"]', 'FROM scratch\nCMD ["a"]'),
    ("LegacyKeyValueFormat", 2, "FROM scratch\nENV a b", "FROM scratch\nENV a=b"),
    ("RedundantTargetPlatform", 1, "FROM --platform=$TARGETPLATFORM a", "FROM --platform=$BUILDPLATFORM a"),
    ("SecretsUsedInArgOrEnv", 2, "FROM scratch\nARG API_KEY", "FROM scratch\nARG PUBLIC_KEY"),
    ("InvalidDefaultArgInFrom", 2, "ARG V\nFROM a:$V", "ARG V=1\nFROM a:$V"),
    ("FromPlatformFlagConstDisallowed", 1, "FROM --platform=linux/arm64 a", "FROM --platform=linux/arm64 a AS arm64"),
    ("ExposeProtoCasing", 2, "FROM scratch\nEXPOSE 80/UDP", "FROM scratch\nEXPOSE 80/udp"),
    ("ExposeInvalidFormat", 2, "FROM scratch\nEXPOSE 80:80", "FROM scratch\nEXPOSE 80"),
]


@pytest.mark.parametrize(("rule", "line", "bad", "good"), BAD_AND_GOOD, ids=[row[0] for row in BAD_AND_GOOD])
def test_a_rule_finds_what_is_bad_and_only_that(rule: str, line: int, bad: str, good: str) -> None:
    assert found(bad) == [(rule, line)]
    assert found(good) == []


def test_every_rule_is_tested_here() -> None:
    others = {"CopyIgnoredFile", "InvalidBaseImagePlatform", "InvalidDefinitionDescription"}
    assert {row[0] for row in BAD_AND_GOOD} | others == {rule.name for rule in RULES}
    assert len(RULES) == 22


def test_descriptions_are_checked_where_they_are_asked_for() -> None:
    text = "# check=experimental=InvalidDefinitionDescription\n# Why\nARG a\n# base it is\nFROM scratch AS base"
    assert found(text) == [("InvalidDefinitionDescription", 3)]
    assert found(text.partition("\n")[2]) == []


@pytest.mark.parametrize(
    ("patterns", "source", "count"),
    [
        ("a", "a", 1),
        ("a", "./a/b", 1),
        ("a", "b", 0),
        ("a", ".", 0),
        ("*", ".", 1),
        ("*\n!b", "a", 0),
        ("a", "https://example.com/a", 0),
    ],
)
def test_ignored_sources_are_found(patterns: str, source: str, count: int) -> None:
    scope = replace(SCOPE, ignore=IgnorePatterns.parse(patterns.encode()))
    assert found(f"FROM scratch\nADD {source} /x", scope) == [("CopyIgnoredFile", 2)] * count
    assert found(f"FROM scratch AS a\nFROM scratch\nCOPY --from=a {source} /x", scope) == []


def test_a_base_for_another_platform_is_found() -> None:
    scope = replace(SCOPE, base=known(ImageConfig(Platform("linux", "arm64"))))
    (finding,) = checked("FROM a", scope).findings
    assert finding.detail == (
        'Base image a was pulled with platform "linux/arm64", expected "linux/amd64" for current build'
    )


def test_variables_of_a_base_are_known_from_its_config() -> None:
    text = "FROM a\nWORKDIR $HOME\nUSER $HOEM"
    (finding,) = checked(text, replace(SCOPE, base=known())).findings
    assert finding.detail == "Usage of undefined variable '$HOEM' (did you mean $HOME?)"


def test_no_variable_is_undefined_where_the_base_is_not_known() -> None:
    result = checked("FROM a AS b\nFROM b\nUSER $SOMEBODY")
    assert result.findings == ()
    assert result.unknown == ("a",)


def test_triggers_of_a_base_are_checked_at_the_line_that_brings_them_in() -> None:
    config = ImageConfig(AMD64, ContainerConfig(on_build=("ENV a b", "nonsense")))
    assert found("\nFROM a", replace(SCOPE, base=known(config))) == [("LegacyKeyValueFormat", 2)]
    assert found("FROM scratch AS a\nONBUILD ENV a b\n\nFROM a") == [("LegacyKeyValueFormat", 4)]


def test_only_what_the_target_needs_is_checked_unless_all_is_asked_for() -> None:
    text = "FROM scratch AS a\nENV a b\nFROM scratch AS b\nENV a b\nFROM scratch\nRUN --mount=from=b,target=/x y"
    assert found(text) == [("LegacyKeyValueFormat", 4)]
    assert found(text, replace(SCOPE, target="a")) == [("LegacyKeyValueFormat", 2)]
    assert found(text, replace(SCOPE, target="0")) == [("LegacyKeyValueFormat", 2)]
    assert found(text, replace(SCOPE, all_stages=True)) == [("LegacyKeyValueFormat", 2), ("LegacyKeyValueFormat", 4)]


def test_stages_of_a_named_context_are_not_looked_into() -> None:
    scope = replace(SCOPE, is_context=lambda name: name == "a")
    assert found("FROM scratch AS a\nENV a b", scope) == []


def test_what_can_be_read_is_checked_before_an_error() -> None:
    reading = read(b"FROM scratch AS Base\nMAINTAINER me\nNONSENSE\nENV a b\n")
    assert reading.error is not None
    names = [finding.rule.name for finding in lint(reading, SCOPE).findings]
    assert names == ["StageNameCasing", "MaintainerDeprecated"]


@pytest.mark.parametrize(
    ("above", "expected"),
    [
        ("# check=skip=LegacyKeyValueFormat", []),
        ("# check=skip=all", []),
        ("# check=skip=Other,LegacyKeyValueFormat why", []),
        ("# check=skip=Other", ["LegacyKeyValueFormat"]),
        ("# check=nonsense", ["LegacyKeyValueFormat"]),
        ("# check it", ["LegacyKeyValueFormat"]),
    ],
)
def test_a_comment_switches_rules_off_for_one_instruction(above: str, expected: list[str]) -> None:
    text = f"FROM scratch\n{above}\nENV a b\n"
    assert [name for name, _ in found(text)] == expected
    assert found(text + "ENV a b") == [(name, 3) for name in expected] + [("LegacyKeyValueFormat", 4)]


def test_the_build_argument_stands_in_for_the_directive() -> None:
    text = "# check=skip=all\nFROM scratch\nENV a b"
    scope = replace(SCOPE, build_args={"BUILDKIT_DOCKERFILE_CHECK": "error=true"})
    result = checked(text, scope)
    error = result.violation()
    assert error is not None
    assert error.message == "lint violation found for rules: LegacyKeyValueFormat"
    assert error.location is not None
    assert error.location.start_line == 3
    assert checked(text).violation() is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("skip", 'invalid check option "skip"'),
        ("skpi=all", 'invalid check option "skpi"'),
        ("error=perhaps", 'failed to parse check option "error=perhaps"'),
    ],
)
def test_options_that_can_not_be_read_are_refused(options: str, message: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        checked(f"# syntax=docker/dockerfile:1\n# check={options}\nFROM scratch")
    assert caught.value.message == f"failed to parse check options: {message}"
    assert caught.value.location is not None
    assert caught.value.location.start_line == 2
    assert caught.value.hint


def test_a_later_option_of_a_kind_replaces_the_earlier_one() -> None:
    assert found("# check=skip=all;error=true;skip=Other\nFROM scratch\nENV a b") == [("LegacyKeyValueFormat", 3)]


def test_instructions_that_can_not_be_expanded_do_not_stop_the_check() -> None:
    assert found("FROM scratch\nUSER ${a\nENV a b") == [("LegacyKeyValueFormat", 3)]


def test_rules_have_names_in_addresses() -> None:
    slugs = {rule.slug for rule in RULES}
    assert {"json-args-recommended", "from-as-casing", "no-empty-continuation"} <= slugs
