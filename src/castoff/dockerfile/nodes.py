"""The first step of reading a Dockerfile: lines joined into nodes, one for each instruction, not yet interpreted."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from castoff.dockerfile import lines
from castoff.dockerfile.directives import Directive, DirectiveReader
from castoff.dockerfile.heredoc import Heredoc, heredocs_of
from castoff.dockerfile.text import SPACE, quote, quote_all
from castoff.errors import ParseError

if TYPE_CHECKING:
    from castoff.dockerfile.source import Source
    from castoff.location import SourceRange

_HEREDOC_KEYWORDS = frozenset({"add", "copy", "run"})
_PLAIN_KEYWORDS = frozenset({"expose", "from"})
_JSON_KEYWORDS = frozenset({"cmd", "entrypoint", "run", "shell"})
_JSON_LIST_KEYWORDS = frozenset({"add", "copy", "volume"})
_TEXT_KEYWORDS = frozenset({"maintainer", "stopsignal", "user", "workdir"})


@dataclass(frozen=True, slots=True)
class Node:
    """One instruction as the first step reads it.

    Attributes:
        keyword: as written.
        flags: the leading ``--words``.
        args: the arguments, split as the keyword wants; that of ONBUILD is a node.
        json: whether the arguments were a JSON array.
        original: the logical line, continuations joined.
        heredocs: with their content.
        start_line: from 1.
        end_line: inclusive, heredocs included.
        comments: the comment lines right above, without their mark.
    """

    keyword: str
    flags: tuple[str, ...]
    args: tuple[str | Node, ...]
    json: bool
    original: str
    heredocs: tuple[Heredoc, ...] = ()
    start_line: int = 0
    end_line: int = 0
    comments: tuple[str, ...] = ()

    def dump(self) -> str:
        """Return the node in the reference's notation of nested lists."""
        text = self.keyword.lower()
        if self.flags:
            text += " " + quote_all(self.flags)
        for arg in self.args:
            text += f" ({arg.dump()})" if isinstance(arg, Node) else " " + quote(arg)
        return text.strip(SPACE)

    def words(self) -> list[str]:
        """Return the arguments as strings, the keyword and arguments of a nested node among them."""
        result: list[str] = []
        for arg in self.args:
            if isinstance(arg, Node):
                result.append(arg.keyword)
                result += arg.words()
            else:
                result.append(arg)
        return result


@dataclass(frozen=True, slots=True)
class EmptyContinuation:
    """A warning: an instruction is continued over an empty line."""

    text: str
    line: int


@dataclass(frozen=True, slots=True)
class NodeTree:
    """A Dockerfile as nodes."""

    source: Source
    nodes: tuple[Node, ...]
    escape: str
    directives: tuple[Directive, ...]
    warnings: tuple[EmptyContinuation, ...]

    @property
    def start_line(self) -> int:
        """The first line of the first instruction."""
        return self.nodes[0].start_line

    def dump(self) -> str:
        """Return all nodes in the reference's notation, one a line."""
        return "\n".join(f"({node.dump()})" for node in self.nodes)


def parse_nodes(source: Source) -> NodeTree:
    """Join the lines of `source` into nodes.

    Raises:
        ParseError: a line can't be read, a heredoc does not end, or there is no instruction.
    """
    return _Reader(source).read()


def parse_line(line: str, escape: str, comments: tuple[str, ...] = ()) -> Node:
    """Read one logical line.

    Raises:
        ParseError: its arguments are not in the form that the keyword wants.
    """
    split = lines.split_command(line, escape)
    args, json = _arguments(split.keyword.lower(), split.rest, escape)
    return Node(split.keyword, split.flags, args, json, line, comments=comments)


def _arguments(keyword: str, rest: str, escape: str) -> tuple[tuple[str | Node, ...], bool]:
    if keyword in _JSON_KEYWORDS or keyword in _JSON_LIST_KEYWORDS:
        array = lines.json_strings(rest)
        if array is not None:
            return tuple(array), True
        if keyword in _JSON_LIST_KEYWORDS:
            return tuple(lines.split_blanks(rest)), False
        return ((rest,) if rest else ()), False
    if keyword == "healthcheck":
        return _health_arguments(rest)
    return _plain_arguments(keyword, rest, escape), False


def _plain_arguments(keyword: str, rest: str, escape: str) -> tuple[str | Node, ...]:
    if keyword in ("env", "label"):
        return tuple(lines.name_values(rest, keyword.upper(), escape))
    if keyword in _PLAIN_KEYWORDS:
        return tuple(lines.split_blanks(rest))
    if keyword == "arg":
        return tuple(lines.split_words(rest, escape))
    if keyword in _TEXT_KEYWORDS:
        return (rest,) if rest else ()
    if keyword == "onbuild":
        return (parse_line(rest, escape),) if rest else ()
    return ("",)


def _health_arguments(rest: str) -> tuple[tuple[str, ...], bool]:
    kind = rest.split(maxsplit=1)[0] if rest.strip(SPACE) else ""
    if not kind or not rest.startswith(kind):
        return (), False
    command = rest[len(kind) :].lstrip(SPACE)
    array = lines.json_strings(command) if command else None
    if array is not None:
        return (kind, *array), True
    return ((kind, command) if command else (kind,)), False


def is_comment(line: str) -> bool:
    """Say whether a physical line is a comment."""
    return line.lstrip(SPACE).startswith("#")


class _Reader:
    """Walks over the lines once."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.count = len(source.lines)
        self.line = 0
        self.escape = "\\"
        self.directives: list[Directive] = []
        self.warnings: list[EmptyContinuation] = []
        self._reader = DirectiveReader()

    def read(self) -> NodeTree:
        nodes: list[Node] = []
        comments: list[str] = []
        while self.line < self.count:
            raw = self._next()
            self._note_comment(raw, comments)
            text = raw.rstrip("\r\n").lstrip(SPACE)
            if self._directive(text):
                comments.pop()
            start = self.line
            text, continued = self._continuation("" if is_comment(text) else text)
            if not continued and not text:
                continue
            nodes.append(self._node(text, continued, start, tuple(comments)))
            comments.clear()
        if not nodes:
            raise ParseError(
                "file with no instructions",
                hint="a Dockerfile begins with FROM",
                location=self.source.range(max(1, self.line)),
            )
        return NodeTree(self.source, tuple(nodes), self.escape, tuple(self.directives), tuple(self.warnings))

    def _next(self) -> str:
        self.source.check_line(self.line)
        self.line += 1
        return self.source.lines[self.line - 1]

    @staticmethod
    def _note_comment(raw: str, comments: list[str]) -> None:
        if not is_comment(raw):
            return
        comment = raw[1:].strip(SPACE)
        if comment:
            comments.append(comment)
        else:
            comments.clear()

    def _directive(self, text: str) -> bool:
        if self._reader.done:
            return False
        try:
            directive = self._reader.read(text)
        except ParseError as error:
            error.location = self.source.range(self.line)
            raise
        if directive is None:
            return False
        if directive.name == "escape" and directive.value not in ("\\", "`"):
            raise ParseError(
                f"invalid escape token '{directive.value}' does not match ` or \\",
                location=self.source.range(self.line),
            )
        if directive.name == "escape":
            self.escape = directive.value
        self.directives.append(directive)
        return True

    def _continuation(self, text: str) -> tuple[str, bool]:
        """Take the escape character off the end of a line that is continued."""
        if self.escape not in text:
            return text, False
        stripped = text.rstrip(" \t")
        if not stripped.endswith(self.escape) or stripped.endswith(self.escape * 2):
            return text, False
        return stripped[:-1], True

    def _node(self, text: str, continued: bool, start: int, comments: tuple[str, ...]) -> Node:
        parts = [text]
        empty = False
        while continued and self.line < self.count:
            raw = self._next()
            if is_comment(raw):
                continue
            text = raw.rstrip("\r\n")
            if not text.lstrip(SPACE):
                empty = True
                continue
            text, continued = self._continuation(text)
            parts.append(text)
        line = "".join(parts)
        if empty:
            self.warnings.append(EmptyContinuation(line, self.line))
        try:
            node = parse_line(line, self.escape, comments)
            if "<<" in line and _may_hold_heredoc(node):
                node = replace(node, heredocs=self._heredocs(heredocs_of(line), start))
        except ParseError as error:
            error.location = error.location or self.source.range(start, self.line)
            if re.search(rf"[ \t]{re.escape(self.escape)}[ \t]+#", line):
                error.hint = f"a comment can't follow the line continuation {self.escape}: give it a line of its own"
            raise
        except RecursionError as error:
            where = self.source.range(start, self.line)
            raise ParseError("the instruction is nested too deeply", location=where) from error
        return replace(node, start_line=start, end_line=self.line)

    def _heredocs(self, opened: list[Heredoc], start: int) -> tuple[Heredoc, ...]:
        return tuple(replace(heredoc, content=self._content(heredoc, start)) for heredoc in opened)

    def _content(self, heredoc: Heredoc, start: int) -> str:
        content: list[str] = []
        while self.line < self.count:
            raw = self._next()
            text = raw.rstrip("\r\n")
            if (text.lstrip("\t") if heredoc.chomp else text) == heredoc.name:
                return "".join(content)
            content.append(raw)
        raise ParseError(
            "unterminated heredoc",
            hint=f"a line with nothing but {heredoc.name} ends it",
            location=self.source.range(start, self.line),
        )


def _may_hold_heredoc(node: Node) -> bool:
    if node.keyword.lower() == "onbuild" and node.args and isinstance(node.args[0], Node):
        node = node.args[0]
    return node.keyword.lower() in _HEREDOC_KEYWORDS and not node.json


def node_range(source: Source, node: Node) -> SourceRange:
    """Return where a node stands."""
    return source.range(node.start_line, node.end_line)
