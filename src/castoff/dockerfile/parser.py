"""Reading a Dockerfile: bytes in, instructions out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from castoff.dockerfile.culprit import point_at
from castoff.dockerfile.directives import Directive, find_directive
from castoff.dockerfile.instructions import Arg, From, Instruction
from castoff.dockerfile.interpret import interpret
from castoff.dockerfile.nodes import Node, NodeTree, parse_nodes
from castoff.dockerfile.source import Source
from castoff.dockerfile.text import SPACE
from castoff.errors import ParseError
from castoff.location import SourceRange

NEWEST_MINOR = 26
"""The newest minor version 1.N of the Dockerfile syntax that is known here."""

_SYNTAX = re.compile(
    r"(?:docker\.io/)?docker/dockerfile(?:-upstream)?"
    r"(?::(?:latest|master|(?P<major>\d+)(?:\.(?P<minor>\d+)(?:\.\d+)?)?)(?P<labs>-labs)?)?"
    r"(?:@sha256:[0-9a-f]{64})?"
)


@dataclass(frozen=True, slots=True)
class DockerfileWarning:
    """Something that is allowed and is likely a mistake.

    Attributes:
        rule: the name of the rule, as ``# check=skip=`` takes it; "" where there is none.
        message: one sentence.
        location: where.
    """

    rule: str
    message: str
    location: SourceRange


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """A Dockerfile that has been read.

    Attributes:
        filename: the name for messages.
        directives: in order; ``syntax`` and ``check`` also where a ``#!`` line comes first.
        escape: the escape character.
        instructions: in order.
        warnings: of the reading itself.
        lines: the source, without line ends.
    """

    filename: str
    directives: tuple[Directive, ...]
    escape: str
    instructions: tuple[Instruction, ...]
    warnings: tuple[DockerfileWarning, ...]
    lines: tuple[str, ...]

    def directive(self, name: str) -> str:
        """Return the value of a directive; "" where it is not given."""
        return next((directive.value for directive in self.directives if directive.name == name), "")

    def directive_location(self, name: str) -> SourceRange | None:
        """Return where a directive stands; None where it is not given."""
        lines = [directive.line for directive in self.directives if directive.name == name]
        return SourceRange(self.filename, lines[0], lines[0]) if lines else None


@dataclass(frozen=True, slots=True)
class Reading:
    """As much of a Dockerfile as could be read: all of it where there is no error."""

    dockerfile: Dockerfile
    error: ParseError | None = None


def parse(data: bytes, filename: str = "Dockerfile") -> Dockerfile:
    """Read a Dockerfile (the Dockerfile reference, version 1, without labs features).

    Bytes that are not UTF-8 are kept as lone surrogates where the reference keeps them, else they become U+FFFD.

    Raises:
        ParseError: with the place, the first thing that can't be read.
    """
    reading = read(data, filename)
    if reading.error is not None:
        raise reading.error
    return reading.dockerfile


def read(data: bytes, filename: str = "Dockerfile") -> Reading:
    """Read a Dockerfile up to the first instruction that can't be read, which is the error of the result."""
    source = Source.read(data, filename)
    if not data:
        where = SourceRange(filename, 1, 1)
        return _unread(source, ParseError("the Dockerfile cannot be empty", location=where))
    try:
        tree = parse_nodes(source)
    except ParseError as error:
        return _unread(source, error)
    directives = _all_directives(data, tree)
    instructions: list[Instruction] = []
    problem = None
    try:
        instructions.extend(_instructions(tree))
    except ParseError as error:
        point_at(error, source.lines)
        problem = error
    dockerfile = Dockerfile(
        filename=filename,
        directives=directives,
        escape=tree.escape,
        instructions=tuple(instructions),
        warnings=(*_syntax_warnings(directives, source), *_continuation_warnings(tree)),
        lines=_plain_lines(source),
    )
    return Reading(dockerfile, problem)


def _unread(source: Source, error: ParseError) -> Reading:
    point_at(error, source.lines)
    return Reading(Dockerfile(source.file, (), "\\", (), (), _plain_lines(source)), error)


def _instructions(tree: NodeTree) -> Iterator[Instruction]:
    has_stage = False
    for node in tree.nodes:
        _refuse_comment_after_escape(node, tree.source, tree.escape)
        instruction = interpret(node, tree.source)
        has_stage = has_stage or isinstance(instruction, From)
        if not has_stage and not isinstance(instruction, Arg):
            raise ParseError(
                "no build stage in current context",
                hint="only ARG may come before the first FROM",
                location=instruction.location,
            )
        yield instruction


def _plain_lines(source: Source) -> tuple[str, ...]:
    return tuple(line.rstrip("\r\n") for line in source.lines)


def parse_trigger(expression: str, location: SourceRange | None) -> Instruction:
    """Read the trigger of an ONBUILD, as it stands in an image's config.

    Args:
        expression: one instruction.
        location: what messages point at: the FROM that brought it in.

    Raises:
        ParseError: it is not one instruction, or not a valid one.
    """
    data = expression.encode("utf-8", "surrogateescape")
    source = Source.read(data, location.file if location else "ONBUILD")
    try:
        return interpret(_only(parse_nodes(source).nodes), source, location)
    except ParseError as error:
        raise ParseError(
            f"the base image has a bad ONBUILD trigger: {error.message}", hint=error.hint, location=location
        ) from error


def _only(nodes: tuple[Node, ...]) -> Node:
    if len(nodes) != 1:
        raise ParseError("onbuild trigger should be a single expression")
    return nodes[0]


def _all_directives(data: bytes, tree: NodeTree) -> tuple[Directive, ...]:
    found = {directive.name: directive for directive in tree.directives}
    for name in ("syntax", "check"):
        directive = None if name in found else find_directive(data, name)
        if directive:
            found[name] = directive
    return tuple(sorted(found.values(), key=lambda directive: directive.line))


def _continuation_warnings(tree: NodeTree) -> list[DockerfileWarning]:
    return [
        DockerfileWarning(
            "NoEmptyContinuation", f"Empty continuation line found in: {warning.text}", tree.source.range(warning.line)
        )
        for warning in tree.warnings
    ]


def _syntax_warnings(directives: tuple[Directive, ...], source: Source) -> list[DockerfileWarning]:
    for directive in directives:
        if directive.name == "syntax":
            problem = _syntax_problem(directive.value.split(" ")[0])
            if problem:
                return [DockerfileWarning("", problem, source.range(directive.line))]
    return []


def _syntax_problem(value: str) -> str:
    match = _SYNTAX.fullmatch(value)
    if not match:
        return (
            f"the syntax {value} is not known, and no image is fetched for it: the file is read as docker/dockerfile:1"
        )
    if (match["major"] or "1") != "1" or int((match["minor"] or "0")[:6]) > NEWEST_MINOR:
        return f"the syntax {value} is newer than 1.{NEWEST_MINOR}, the newest that is known: what it adds is refused"
    if match["labs"]:
        return f"the syntax {value} has experimental features, which are not supported: the file is read without them"
    return ""


def _refuse_comment_after_escape(node: Node, source: Source, escape: str) -> None:
    """Refuse a continuation character that is followed by a comment.

    Annotated listings have it. The reference ends the instruction there, or passes the comment on as arguments.
    """
    pattern = re.compile(rf"(?:^|[ \t]){re.escape(escape)}[ \t]+#")
    if node.json or escape not in node.original or not pattern.search(node.original):
        return
    if not _unquoted_comment(node.original, escape):
        return
    for number in range(node.start_line, node.end_line + 1):
        match = pattern.search(source.lines[number - 1])
        if match:
            start = match.end() - len(match[0].lstrip(" \t"))
            end = len(source.lines[number - 1].rstrip(SPACE))
            where = SourceRange(source.file, number, number, start, end)
            raise ParseError(
                f"a comment can't follow the line continuation {escape}",
                hint="put the comment on a line of its own",
                location=where,
            )


def _unquoted_comment(text: str, escape: str) -> bool:
    """Say whether an escape, white space and ``#`` stand together outside quotes."""
    mark = re.compile(rf"(?:^|[ \t]){re.escape(escape)}[ \t]+#")
    quote_mark = ""
    position = 0
    while position < len(text):
        character = text[position]
        if quote_mark:
            if character == quote_mark:
                quote_mark = ""
            elif character == escape and quote_mark == '"':
                position += 1
        elif character in "'\"":
            quote_mark = character
        elif character == escape:
            if mark.match(text, max(0, position - 1)):
                return True
            position += 1
        position += 1
    return False
