"""Findings, and how they are collected: rules that are off say nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from castoff.errors import DockerfileError

if TYPE_CHECKING:
    from castoff.dockerfile.lint.options import LintOptions
    from castoff.dockerfile.lint.rules import Rule
    from castoff.location import SourceRange


@dataclass(frozen=True, slots=True)
class Finding:
    """A place where a rule has something to say.

    Attributes:
        rule: the rule.
        detail: one sentence.
        location: the instruction.
    """

    rule: Rule
    detail: str
    location: SourceRange


class Findings:
    """Takes what the rules find; all that are made of one share the list of findings."""

    def __init__(self, options: LintOptions) -> None:
        self.options = options
        self.all: list[Finding] = []

    def above(self, comments: Iterable[str]) -> Findings:
        """Return what takes the findings of one instruction, with the options of the comments above it."""
        if not comments:
            return self
        narrowed = Findings(self.options.above(comments))
        narrowed.all = self.all
        return narrowed

    def add(self, rule: Rule, location: SourceRange, detail: str) -> None:
        """Note a finding, unless its rule is off."""
        options = self.options
        if rule.experimental:
            if not options.experimental_all and rule.name not in options.experimental:
                return
        elif options.skip_all or rule.name in options.skip:
            return
        self.all.append(Finding(rule, detail, location))


def violation(findings: Iterable[Finding]) -> DockerfileError | None:
    """Return the error that findings are where ``error=true`` is set; None where there is none."""
    found = list(findings)
    if not found:
        return None
    names = ", ".join(sorted({finding.rule.name for finding in found}))
    return DockerfileError(
        f"lint violation found for rules: {names}",
        hint="mend them, or leave error=true out of the check directive",
        location=found[0].location,
    )
