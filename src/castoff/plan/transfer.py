"""COPY and ADD."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from castoff.dockerfile.words import WordLexer
from castoff.errors import PlanError
from castoff.plan.paths import check_mode, clean, destination, source_kind
from castoff.plan.stagescope import Made
from castoff.plan.step import ContextSource, CopyStep, InlineFile, Source

if TYPE_CHECKING:
    from castoff.dockerfile import instructions as ins
    from castoff.plan.stagescope import StageScope

_HEREDOC_LEXER = WordLexer(skip_quotes=True)


def copy(item: ins.Copy, scope: StageScope) -> Made:
    """Take a COPY.

    Raises:
        ExpansionError: a variable can't be expanded.
        PlanError: a source, a flag or the stage is not one that COPY can have.
    """
    step = replace(_transfer(item, scope), source=_source(item, scope), parents=item.parents)
    for path in step.sources:
        kind = source_kind(path)
        if kind != "local":
            what = "a git ref" if kind == "git" else "a URL"
            raise PlanError(f"source can't be {what} for COPY", hint="ADD takes it")
    return _made(item, step, scope)


def add(item: ins.Add, scope: StageScope) -> Made:
    """Take an ADD.

    Raises:
        ExpansionError: a variable can't be expanded.
        PlanError: a flag does not fit the sources.
    """
    checksum = scope.word(item.checksum)
    step = replace(
        _transfer(item, scope),
        is_add=True,
        checksum=checksum,
        keep_git_dir=item.keep_git_dir,
        unpack=item.unpack,
    )
    if checksum and len(step.sources) != 1:
        raise PlanError("checksum can't be specified for multiple sources")
    if checksum and source_kind(step.sources[0]) == "local":
        raise PlanError("checksum requires HTTP(S) or Git sources")
    return _made(item, step, scope)


def _source(item: ins.Copy, scope: StageScope) -> Source:
    if not item.from_:
        return ContextSource()
    if WordLexer(scope.build.lexer.escape).word(item.from_, {}) != item.from_:
        raise PlanError(
            "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope "
            "as a workaround"
        )
    return scope.source(item.from_, item.location)


def _transfer(item: ins.TransferBase, scope: StageScope) -> CopyStep:
    step = CopyStep(
        sources=tuple(scope.word(source) for source in item.sources),
        dest=destination(scope.state.workdir, scope.word(item.dest)),
        files=tuple(_inline(file, scope) for file in item.files),
        chown=scope.word(item.chown),
        chmod=scope.word(item.chmod),
        link=item.link,
        excludes=item.excludes,
        workdir=clean(scope.state.workdir),
        user=scope.state.config.user,
    )
    if step.chmod:
        check_mode(step.chmod)
    return step


def _inline(file: ins.InlineSource, scope: StageScope) -> InlineFile:
    text = _HEREDOC_LEXER.word(file.content, scope.state.env) if file.expand else file.content
    return InlineFile(file.name, text.encode("utf-8", "surrogateescape"))


def _made(item: ins.TransferBase, step: CopyStep, scope: StageScope) -> Made:
    words = [item.kind]
    if step.parents:
        words.append("--parents")
    if step.chown:
        words.append(f"--chown={step.chown}")
    if step.chmod:
        words.append(f"--chmod={step.chmod}")
    words += step.sources
    words += (f"<<{file.name}" for file in step.files)
    words.append(scope.word(item.dest))
    return Made(step, " ".join(words) + " # buildkit", scope.shown(item.text))
