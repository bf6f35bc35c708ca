"""Rules that look at instructions one by one, and at the Dockerfile as a whole; nothing is expanded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from castoff.dockerfile.instructions import Arg, From, Maintainer
from castoff.dockerfile.lint import rules
from castoff.dockerfile.text import quote

if TYPE_CHECKING:
    from castoff.dockerfile.instructions import Instruction
    from castoff.dockerfile.lint.findings import Findings

_RESERVED = ("context", "scratch")


def check_instruction(item: Instruction, findings: Findings) -> None:
    """Check what can be told of one instruction as it stands."""
    findings = findings.above(item.comments)
    if isinstance(item, Maintainer):
        findings.add(
            rules.MAINTAINER_DEPRECATED, item.location, "Maintainer instruction is deprecated in favor of using label"
        )
    elif isinstance(item, Arg):
        _check_description(item, tuple(variable.name for variable in item.args), findings)
    elif isinstance(item, From) and item.name:
        _check_stage_head(item, findings)
        _check_description(item, (item.name,), findings)


def _check_stage_head(item: From, findings: Findings) -> None:
    if item.name_written != item.name_written.lower():
        findings.add(rules.STAGE_NAME_CASING, item.location, f"Stage name '{item.name_written}' should be lowercase")
    if item.keyword in (item.keyword.lower(), item.keyword.upper()):
        lower = item.keyword == item.keyword.lower()
        if item.as_written != (item.as_written.lower() if lower else item.as_written.upper()):
            detail = f"'{item.as_written}' and '{item.keyword}' keywords' casing do not match"
            findings.add(rules.FROM_AS_CASING, item.location, detail)


def _check_description(item: Instruction, names: tuple[str, ...], findings: Findings) -> None:
    if not item.comments or not names or item.comments[-1].split(" ")[0] in names:
        return
    example = names[0] if len(names) == 1 else "<arg_key>"
    detail = f"Comment for {item.kind} should follow the format: `# {example} <description>`"
    findings.add(rules.INVALID_DEFINITION_DESCRIPTION, item.location, detail)


def check_stage_names(heads: Sequence[From], findings: Findings) -> None:
    """Check that the names of stages are unique, and free to be used."""
    seen = set()
    for head in heads:
        if head.name in _RESERVED:
            detail = f"Stage name should not use the same name as reserved stage {quote(head.name)}"
            findings.add(rules.RESERVED_STAGE_NAME, head.location, detail)
        if head.name and head.name in seen:
            detail = f"Duplicate stage name {quote(head.name)}, stage names should be unique"
            findings.add(rules.DUPLICATE_STAGE_NAME, head.location, detail)
        seen.add(head.name)


def check_casing(items: Sequence[Instruction], findings: Findings) -> None:
    """Check that keywords are written as most of them are; `items` are all from the first FROM on."""
    lower = sum(1 for item in items if item.keyword == item.keyword.lower())
    upper = sum(1 for item in items if item.keyword == item.keyword.upper())
    mostly_lower = lower > upper
    wanted = "lowercase" if mostly_lower else "uppercase"
    for item in items:
        if item.keyword != (item.keyword.lower() if mostly_lower else item.keyword.upper()):
            detail = f"Command '{item.keyword}' should match the case of the command majority ({wanted})"
            findings.add(rules.CONSISTENT_INSTRUCTION_CASING, item.location, detail)
