"""Checks a Dockerfile: each rule says what BuildKit's build checks say, in the same words, of the same line."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from castoff.dockerfile.instructions import Arg, From
from castoff.dockerfile.lint import language, rules
from castoff.dockerfile.lint.commands import Checker
from castoff.dockerfile.lint.findings import Finding, Findings, violation
from castoff.dockerfile.lint.heads import GlobalArguments, check_defaults, check_head
from castoff.dockerfile.lint.options import LintOptions
from castoff.dockerfile.lint.stages import SCRATCH, Stages, StageView
from castoff.dockerfile.words import WordLexer
from castoff.errors import CastoffError, DockerfileError, ExpansionError

if TYPE_CHECKING:
    from castoff.dockerfile.instructions import Instruction
    from castoff.dockerfile.lint.scope import LintScope
    from castoff.dockerfile.parser import Dockerfile, Reading
    from castoff.oci.config import ImageConfig

OPTIONS_ARG = "BUILDKIT_DOCKERFILE_CHECK"
"""The build argument that stands in for the ``# check=`` directive."""


@dataclass(frozen=True, slots=True)
class LintResult:
    """What a check came to.

    Attributes:
        findings: sorted by line and detail, each once.
        options: the options that were in force.
        stages: the stages that were looked at, as they are at their end.
        unknown: names of bases whose variables are not known, so that none was called undefined there.
    """

    findings: tuple[Finding, ...]
    options: LintOptions
    stages: Stages
    unknown: tuple[str, ...] = ()

    def violation(self) -> DockerfileError | None:
        """Return the error that the findings are where ``error=true`` asks for one."""
        return violation(self.findings) if self.options.error else None


def lint_options(dockerfile: Dockerfile, scope: LintScope) -> LintOptions:
    """Return the options that the build argument or the directive sets.

    Raises:
        DockerfileError: they can't be read.
    """
    if OPTIONS_ARG in scope.build_args:
        try:
            return LintOptions.parse(scope.build_args[OPTIONS_ARG])
        except DockerfileError as error:
            error.message = f"failed to parse build-arg:{OPTIONS_ARG}: {error.message}"
            raise
    try:
        return LintOptions.parse(dockerfile.directive("check"))
    except DockerfileError as error:
        error.message = f"failed to parse check options: {error.message}"
        error.location = dockerfile.directive_location("check")
        raise


def lint(reading: Reading, scope: LintScope) -> LintResult:
    """Check a Dockerfile, or as much of it as could be read. Nothing is executed and nothing is fetched.

    Args:
        reading: what `castoff.dockerfile.parser.read` gave.
        scope: what it is checked for.

    Raises:
        DockerfileError: the options of checks can't be read.
    """
    dockerfile = reading.dockerfile
    options = lint_options(dockerfile, scope)
    return _Linter(dockerfile, scope, Findings(options)).run(whole=reading.error is None)


class _Linter:
    """One check."""

    def __init__(self, dockerfile: Dockerfile, scope: LintScope, findings: Findings) -> None:
        self.dockerfile = dockerfile
        self.scope = scope
        self.findings = findings
        self.lexer = WordLexer(dockerfile.escape)
        self.stages = Stages()
        self.unknown: dict[str, None] = {}

    def run(self, *, whole: bool) -> LintResult:
        for warning in self.dockerfile.warnings:
            if warning.rule == rules.NO_EMPTY_CONTINUATION.name:
                self.findings.add(rules.NO_EMPTY_CONTINUATION, warning.location, "Empty continuation line")
        for item in self.dockerfile.instructions:
            language.check_instruction(item, self.findings)
        if whole:
            self._check_whole()
        found = dict.fromkeys(self.findings.all)
        ordered = sorted(found, key=lambda finding: (finding.location.start_line, finding.detail))
        return LintResult(tuple(ordered), self.findings.options, self.stages, tuple(self.unknown))

    def _check_whole(self) -> None:
        items = self.dockerfile.instructions
        heads = [item for item in items if isinstance(item, From)]
        if not heads:
            return
        first = items.index(heads[0])
        language.check_stage_names(heads, self.findings)
        language.check_casing(items[first:], self.findings)
        before = [item for item in items[:first] if isinstance(item, Arg)]
        try:
            defaults = GlobalArguments.read(before, self.scope.automatic, {}, self.lexer)
            check_defaults(heads, defaults, self.lexer, self.findings)
            arguments = GlobalArguments.read(before, self.scope.automatic, self.scope.build_args, self.lexer)
        except ExpansionError:
            return  # The plan refuses it, with its place.
        self.stages.arguments = arguments.declared
        self._take_heads(items[first:], arguments)
        self._take_stages(arguments)

    def _take_heads(self, items: tuple[Instruction, ...], arguments: GlobalArguments) -> None:
        view: StageView | None = None
        for item in items:
            if isinstance(item, From):
                expanded = check_head(item, arguments, self.lexer, self.findings)
                replaced = bool(item.name) and self.scope.is_context(item.name)
                view = StageView(len(self.stages.all), item, expanded, [], replaced=replaced)
                view.used |= expanded.used
                self.stages.add(view)
            elif view is not None and not view.replaced:
                view.commands.append(item)

    def _take_stages(self, arguments: GlobalArguments) -> None:
        target = self.stages.target(self.scope.target)
        wanted = self.stages.reachable(target) if target is not None else set()
        for view in self.stages.all:
            if not self.scope.all_stages and view.index not in wanted:
                continue
            view.take_triggers(view.start(self._config(view)))
            checker = Checker(view, self.scope, arguments, self.lexer, self.findings)
            for item in view.commands:
                with contextlib.suppress(CastoffError):  # The plan says what is wrong with it.
                    checker.take(item)

    def _config(self, view: StageView) -> ImageConfig | None:
        """Return the config of the image that a stage stands on; None where it stands on none, or it is not known."""
        name = view.head.name if view.replaced else view.expanded.base
        if view.base is not None or (name == SCRATCH and not view.replaced):
            return None
        wanted = view.expanded.platform or self.scope.platform
        config = self.scope.base(name, wanted, view.head.location) if name else None
        if config is None:
            self.unknown[name] = None
            return None
        got = config.platform
        if (got.os, got.architecture) != (wanted.os, wanted.architecture):
            detail = f'Base image {name} was pulled with platform "{got}", expected "{wanted}" for current build'
            self.findings.add(rules.INVALID_BASE_IMAGE_PLATFORM, view.head.location, detail)
        return config
