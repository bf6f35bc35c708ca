"""Rules for the instructions of a stage, taken in order with what is in scope at each."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from castoff.dockerfile import instructions as ins
from castoff.dockerfile.lint import rules
from castoff.dockerfile.lint.heads import ArgumentInfo, GlobalArguments
from castoff.dockerfile.lint.stages import SecretUse, StageView
from castoff.dockerfile.mounts import parse_mount
from castoff.dockerfile.suggest import nearest
from castoff.dockerfile.text import quote
from castoff.dockerfile.words import WordLexer

if TYPE_CHECKING:
    from castoff.dockerfile.lint.findings import Findings
    from castoff.dockerfile.lint.scope import LintScope

_NOT_IN_ENVIRONMENT = frozenset({"BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"})
_SECRET = re.compile(
    r"(?:_|^)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|$)", re.IGNORECASE
)
_NO_SECRET = re.compile(r"(?:_|^)(?:public|file|version)(?:_|$)", re.IGNORECASE)
_REMOTE = re.compile(r"(?:https?|git|ssh)://|[a-zA-Z0-9_-]+@[a-zA-Z0-9.-]+:.", re.IGNORECASE)
_EVERYTHING = ("*", "**", "**/*")
_HEREDOC_LEXER = WordLexer(skip_quotes=True)


@dataclass(frozen=True, slots=True)
class Checker:
    """Takes the instructions of one stage in order."""

    view: StageView
    scope: LintScope
    arguments: GlobalArguments
    lexer: WordLexer
    findings: Findings

    def take(self, item: ins.Instruction) -> None:
        """Check one instruction, and do to the stage's scope what it does.

        Raises:
            CastoffError: something in it can't be expanded or is not valid; the plan says so too.
        """
        one = _One(self, item, self.findings.above(item.comments))
        match item:
            case ins.Arg():
                one.arg(item)
            case ins.Env():
                one.env(item)
            case ins.Label():
                one.pairs(item.labels)
            case ins.Run():
                one.run(item)
            case ins.Copy() | ins.Add():
                one.transfer(item)
            case ins.Workdir():
                one.workdir(item)
            case ins.Expose():
                one.expose(item)
            case ins.Shell():
                self.view.has_shell = bool(item.shell)
            case ins.Cmd() | ins.Entrypoint():
                one.once()
                one.command(item)
            case ins.Healthcheck():
                one.once()
            case _:
                for text in _plain_words(item):
                    one.word(text)


def _plain_words(item: ins.Instruction) -> tuple[str, ...]:
    """Return what is expanded of an instruction that nothing else is asked of."""
    match item:
        case ins.User():
            return (item.user,)
        case ins.Volume():
            return item.volumes
        case ins.StopSignal():
            return (item.signal,)
        case _:
            return ()


@dataclass(frozen=True, slots=True)
class _One:
    """One instruction at its turn."""

    checker: Checker
    item: ins.Instruction
    findings: Findings

    def note(self, rule: rules.Rule, detail: str) -> None:
        self.findings.add(rule, self.item.location, detail)

    def word(self, text: str, lexer: WordLexer | None = None) -> str:
        """Expand a word; variables that nothing sets are noted."""
        if "$" not in text and lexer is None:
            return self.checker.lexer.word(text, {})
        view = self.checker.view
        expansion = (lexer or self.checker.lexer).expand(text, view.env)
        if view.knows_env:
            for name in sorted(expansion.unmatched - view.args - _NOT_IN_ENVIRONMENT):
                near = nearest(name, view.env)
                detail = f"Usage of undefined variable '${name}'" + (f" (did you mean ${near}?)" if near else "")
                self.note(rules.UNDEFINED_VAR, detail)
        return expansion.text

    def secret(self, name: str) -> None:
        """Check that the name of a variable is not that of a secret."""
        if _SECRET.search(name) and not _NO_SECRET.search(name):
            detail = f"Do not use ARG or ENV instructions for sensitive data ({self.item.kind} {quote(name)})"
            self.note(rules.SECRETS_USED_IN_ARG_OR_ENV, detail)

    def pairs(self, pairs: tuple[ins.Variable, ...]) -> list[tuple[str, str]]:
        """Expand the names and values of ENV or LABEL."""
        expanded = [(self.word(pair.name), self.word(pair.value or "")) for pair in pairs]
        keyword = self.item.keyword
        for _ in (pair for pair in pairs if pair.legacy):
            detail = f'"{keyword} key=value" should be used instead of legacy "{keyword} key value" format'
            self.note(rules.LEGACY_KEY_VALUE_FORMAT, detail)
        return expanded

    def env(self, item: ins.Env) -> None:
        for name, value in self.pairs(item.env):
            self.secret(name)
            self.checker.view.env[name] = value

    def arg(self, item: ins.Arg) -> None:
        view, arguments, given = self.checker.view, self.checker.arguments, self.checker.scope.build_args
        for variable in item.args:
            name, value = variable.name, variable.value
            self.secret(name)
            inherited = False
            if name in given:
                value = given[name]
            elif value is not None:
                value = self.word(value)
            elif name in arguments.values:
                value, inherited = arguments.values[name], True
            if value is not None and name not in _NOT_IN_ENVIRONMENT:
                view.env[name] = value
            if not inherited:
                view.declared[name] = ArgumentInfo(name, value or "", variable.description, item.location)
            view.used.add(name)
            view.args.add(name)

    def run(self, item: ins.Run) -> None:
        view = self.checker.view
        for text in item.mounts:
            mount = parse_mount(text, self.word)
            if mount.type == "secret":
                name = mount.source or mount.id or posixpath.basename(mount.target)
                view.secrets.setdefault(name, SecretUse(name, mount.required, item.location))
            elif mount.type == "ssh":
                name = mount.id or "default"
                view.ssh.setdefault(name, SecretUse(name, mount.required, item.location))

    def transfer(self, item: ins.Copy | ins.Add) -> None:
        for text in (item.chown, item.chmod, item.checksum if isinstance(item, ins.Add) else ""):
            self.word(text)
        sources = [self.word(source) for source in item.sources]
        self.word(item.dest)
        for file in item.files:
            if file.expand:
                self.word(file.content, _HEREDOC_LEXER)
        if not isinstance(item, ins.Copy) or not item.from_:
            for source in sources:
                self._ignored(source)

    def _ignored(self, source: str) -> None:
        ignore = self.checker.scope.ignore
        if ignore is None or ignore.has_exceptions or _REMOTE.match(source):
            return
        path = posixpath.normpath(source) if source else "."
        path = path[1:] if path.startswith("//") else path
        if path in (".", "/") and not any(pattern in _EVERYTHING for pattern in ignore.patterns):
            return
        if ignore.excludes(path):
            verb = self.item.kind.capitalize()
            detail = f"Attempting to {verb} file {quote(path)} that is excluded by .dockerignore"
            self.note(rules.COPY_IGNORED_FILE, detail)

    def workdir(self, item: ins.Workdir) -> None:
        view = self.checker.view
        path = self.word(item.path)
        if not view.workdir_set and not path.startswith("/"):
            detail = f"Relative workdir {quote(path)} can have unexpected results if the base image changes"
            self.note(rules.WORKDIR_RELATIVE_PATH, detail)
        view.workdir_set = True

    def expose(self, item: ins.Expose) -> None:
        for text in item.ports:
            for port in self.checker.lexer.words(text, self.checker.view.env):
                *host, container = port.split(":")
                protocol = container.partition("/")[2]
                if protocol != protocol.lower():
                    detail = f"Defined protocol '{port}' in EXPOSE instruction should be lowercase"
                    self.note(rules.EXPOSE_PROTO_CASING, detail)
                if any(host):
                    detail = f"EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
                    self.note(rules.EXPOSE_INVALID_FORMAT, detail)

    def command(self, item: ins.Cmd | ins.Entrypoint) -> None:
        if item.shell_form and not self.checker.view.has_shell:
            detail = (
                f"JSON arguments recommended for {item.keyword} to prevent unintended behavior related to OS signals"
            )
            self.note(rules.JSON_ARGS_RECOMMENDED, detail)

    def once(self) -> None:
        """Note an earlier instruction of the same kind, which does nothing."""
        latest, kind = self.checker.view.latest, self.item.kind
        if kind in latest:
            detail = (
                f"Multiple {self.item.keyword} instructions should not be used in the same stage because only the last "
                "one will be used"
            )
            self.findings.add(rules.MULTIPLE_INSTRUCTIONS_DISALLOWED, latest[kind], detail)
        latest[kind] = self.item.location
