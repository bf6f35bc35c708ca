"""Rules for FROM: the arguments in it, and its platform."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from castoff.dockerfile.lint import rules
from castoff.dockerfile.suggest import nearest
from castoff.dockerfile.text import quote
from castoff.errors import CastoffError, ExpansionError, InvalidReferenceError
from castoff.oci.platform import Platform
from castoff.oci.reference import Reference

if TYPE_CHECKING:
    from castoff.dockerfile.instructions import Arg, From
    from castoff.dockerfile.lint.findings import Findings
    from castoff.dockerfile.words import Expansion, WordLexer
    from castoff.location import SourceRange


@dataclass(frozen=True, slots=True)
class ArgumentInfo:
    """A build argument as it is declared.

    Attributes:
        name: its name.
        value: what it has; "" for none.
        description: the comment above it.
        location: where it is declared.
        needs: the arguments that its default is made of.
    """

    name: str
    value: str
    description: str
    location: SourceRange
    needs: frozenset[str] = frozenset()


@dataclass(slots=True)
class GlobalArguments:
    """The arguments that FROM may use: `values` of those that have one, `declared` before the first FROM."""

    values: dict[str, str]
    declared: dict[str, ArgumentInfo] = field(default_factory=dict)

    @classmethod
    def read(
        cls, arguments: Sequence[Arg], automatic: Mapping[str, str], given: Mapping[str, str], lexer: WordLexer
    ) -> GlobalArguments:
        """Take the ARGs before the first FROM; `given` are the build arguments.

        Raises:
            ExpansionError: a default can't be expanded.
        """
        found = cls(dict(automatic))
        for item in arguments:
            for variable in item.args:
                name, value = variable.name, variable.value
                needs: frozenset[str] = frozenset()
                if name in given:
                    value = given[name]
                elif value is not None:
                    expansion = lexer.expand(value, found.values)
                    value, needs = expansion.text, expansion.matched - {name}
                    if name in expansion.matched and name in found.declared:
                        needs |= found.declared[name].needs
                if value is not None:
                    found.values[name] = value
                found.declared[name] = ArgumentInfo(name, value or "", variable.description, item.location, needs)
        return found


@dataclass(frozen=True, slots=True)
class Head:
    """A FROM, expanded: the base's name ("" where it can't be told), the platform, the arguments that it uses."""

    base: str
    platform: Platform | None
    used: frozenset[str]


def check_defaults(heads: Sequence[From], arguments: GlobalArguments, lexer: WordLexer, findings: Findings) -> None:
    """Check that every FROM has a valid base where no build arguments are given; `arguments` are the defaults."""
    names = set()
    for head in heads:
        try:
            base = lexer.word(head.base, arguments.values)
        except ExpansionError:
            return
        try:
            if base.lower() not in names:
                Reference.parse(base)
        except InvalidReferenceError:
            detail = f"Default value for ARG {head.base} results in empty or invalid base image name"
            findings.add(rules.INVALID_DEFAULT_ARG_IN_FROM, head.location, detail)
        names.add(head.name)


def check_head(head: From, arguments: GlobalArguments, lexer: WordLexer, findings: Findings) -> Head:
    """Check the arguments and the platform of a FROM."""
    findings = findings.above(head.comments)
    name = _expanded(head.base, arguments, lexer)
    if name is None:
        return Head("", None, frozenset())
    _check_declared(head, name, arguments, findings)
    platform = _expanded(head.platform, arguments, lexer) if head.platform else None
    if platform is None:
        return Head(name.text, None, name.matched)
    _check_declared(head, platform, arguments, findings)
    _check_redundant(head, platform, arguments, findings)
    parsed = _platform(platform.text)
    if parsed is not None and not platform.matched and not platform.unmatched:
        _check_constant(head, platform.text, parsed, findings)
    return Head(name.text, parsed, name.matched | platform.matched)


def _expanded(text: str, arguments: GlobalArguments, lexer: WordLexer) -> Expansion | None:
    try:
        return lexer.expand(text, arguments.values)
    except ExpansionError:
        return None


def _platform(text: str) -> Platform | None:
    try:
        return Platform.parse(text)
    except CastoffError:
        return None


def _check_declared(head: From, expansion: Expansion, arguments: GlobalArguments, findings: Findings) -> None:
    for name in sorted(expansion.unmatched):
        if name in arguments.declared or name in arguments.values:
            continue
        near = nearest(name, dict.fromkeys((*arguments.declared, *arguments.values)))
        detail = f"FROM argument '{name}' is not declared" + (f" (did you mean {near}?)" if near else "")
        findings.add(rules.UNDEFINED_ARG_IN_FROM, head.location, detail)


def _check_redundant(head: From, platform: Expansion, arguments: GlobalArguments, findings: Findings) -> None:
    if platform.matched != {"TARGETPLATFORM"} or platform.unmatched:
        return
    if platform.text == arguments.values.get("TARGETPLATFORM"):
        detail = f"Setting platform to predefined {head.platform} in FROM is redundant as this is the default behavior"
        findings.add(rules.REDUNDANT_TARGET_PLATFORM, head.location, detail)


def _check_constant(head: From, text: str, platform: Platform, findings: Findings) -> None:
    if platform.os in head.name or platform.architecture in head.name:
        return
    detail = f"FROM --platform flag should not use constant value {quote(text)}"
    findings.add(rules.FROM_PLATFORM_FLAG_CONST_DISALLOWED, head.location, detail)
