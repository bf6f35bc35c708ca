"""Words: quotes, escapes and ``$variables`` of a Dockerfile, expanded as the reference's small shell does it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from castoff.dockerfile.patterns import ShellPattern, trim_prefix, trim_suffix
from castoff.dockerfile.text import is_space, quote, replace_invalid
from castoff.errors import ExpansionError

MAX_EXPANDED = 1 << 20
"""The longest text that an expansion may give, in characters: ``ENV A=$A$A`` doubles with every line."""

_MAX_DEPTH = 100
_MAX_SHOWN = 200
_DOLLAR = "an expression is ${name}; a dollar sign by itself is written \\$"
_QUOTE = "close the quote, or put a backslash before one that is meant as it is"
_SPECIAL_PARAMETERS = "@*#?-$!0"


@dataclass(frozen=True, slots=True)
class Expansion:
    """The outcome of an expansion.

    Attributes:
        text: the whole as one word.
        words: the same, split at unquoted white space.
        matched: names of variables that were found.
        unmatched: names of variables that were not.
    """

    text: str
    words: tuple[str, ...]
    matched: frozenset[str]
    unmatched: frozenset[str]


@dataclass(frozen=True, slots=True)
class WordLexer:
    """Expands text.

    Attributes:
        escape: the escape character of the Dockerfile.
        raw_quotes: keep quotes in the result.
        raw_escapes: keep escape characters in the result.
        skip_quotes: take quotes as ordinary characters.
        keep_unset: leave variables that are not set as they are written.
        heredoc_dash: take ``<<- NAME`` as one word too, as ``<< NAME`` always is.
    """

    escape: str = "\\"
    raw_quotes: bool = False
    raw_escapes: bool = False
    skip_quotes: bool = False
    keep_unset: bool = False
    heredoc_dash: bool = False

    def expand(self, text: str, env: Mapping[str, str]) -> Expansion:
        """Expand `text` with the variables of `env`.

        Raises:
            ExpansionError: a quote or brace is not closed, an operator is unknown, a ``?`` condition is not met, or
                the result is too long.
        """
        run = _Run(self, text, env)
        result, words = run.whole(text)
        return Expansion(result, tuple(words), frozenset(run.matched), frozenset(run.unmatched))

    def word(self, text: str, env: Mapping[str, str]) -> str:
        """Expand `text` into one word.

        Raises:
            ExpansionError: as `expand` does.
        """
        if "$" not in text and text.isascii() and not (self.escape in text or "'" in text or '"' in text):
            return text
        return _Run(self, text, env, split=False).whole(text)[0]

    def words(self, text: str, env: Mapping[str, str]) -> tuple[str, ...]:
        """Expand `text` and split it into words.

        Raises:
            ExpansionError: as `expand` does.
        """
        return self.expand(text, env).words

    def for_display(self) -> WordLexer:
        """Return the lexer that progress names of RUN are made with."""
        return replace(self, raw_quotes=True, keep_unset=True)


@dataclass(slots=True)
class _Words:
    """Collects words; the buffer of the current word is shared by all levels of one expansion."""

    buffer: list[str]
    done: list[str] = field(default_factory=list)
    inside: bool = False

    def add(self, character: str) -> None:
        if not is_space(character):
            self.add_raw(character)
        elif self.inside and self.buffer:
            self.done.append("".join(self.buffer))
            self.buffer.clear()
            self.inside = False

    def add_all(self, text: str) -> None:
        for character in text:
            self.add(character)

    def add_raw(self, text: str) -> None:
        if text:
            self.buffer.append(text)
        self.inside = True

    def finish(self) -> list[str]:
        if self.buffer:
            self.done.append("".join(self.buffer))
            self.buffer.clear()
            self.inside = False
        return self.done


class _Run:
    """One expansion of one text."""

    def __init__(self, lexer: WordLexer, text: str, env: Mapping[str, str], *, split: bool = True) -> None:
        self.lexer = lexer
        self.text = replace_invalid(text).removeprefix("\ufeff")
        self.env = env
        self.split = split
        self.position = 0
        self.depth = 0
        self.size = 0
        self.raw_escapes = lexer.raw_escapes
        self.matched: set[str] = set()
        self.unmatched: set[str] = set()
        self._buffer: list[str] = []

    def whole(self, text: str) -> tuple[str, list[str]]:
        """Expand the whole text; `text` is for the message of an error."""
        try:
            return self.until(None, self.lexer.raw_escapes)
        except ExpansionError as error:
            shown = quote(text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "…")
            raise ExpansionError(f"failed to process {shown}: {error.message}", hint=error.hint) from error

    def peek(self) -> str:
        return self.text[self.position : self.position + 1]

    def next(self) -> str:
        character = self.text[self.position : self.position + 1]
        self.position += 1 if character else 0
        return character

    def until(self, stop: str | None, raw_escapes: bool) -> tuple[str, list[str]]:
        """Expand up to `stop`, or to the end where that is None."""
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise ExpansionError(f"expressions are nested more than {_MAX_DEPTH} deep")
        outer, self.raw_escapes = self.raw_escapes, raw_escapes
        try:
            return self._until(stop)
        finally:
            self.raw_escapes = outer
            self.depth -= 1

    def _until(self, stop: str | None) -> tuple[str, list[str]]:
        result: list[str] = []
        self._buffer.clear()
        words = _Words(self._buffer)
        quotes = not self.lexer.skip_quotes
        while character := self.peek():
            if character == stop:
                self.position += 1
                return "".join(result), words.finish()
            if character == "$":
                value = self.dollar()
                result.append(value)
                if self.split:
                    words.add_all(value)
            elif character == "<" or (quotes and character in "'\""):
                value = self._special(character)
                result.append(value)
                words.add_raw(value)
            else:
                self._plain(result, words)
        if stop is not None:
            raise ExpansionError(f"unexpected end of statement while looking for matching {stop}")
        return "".join(result), words.finish()

    def _special(self, character: str) -> str:
        if character == "<":
            return self.heredoc()
        return self.single_quoted() if character == "'" else self.double_quoted()

    def _plain(self, result: list[str], words: _Words) -> None:
        character = self.next()
        if character != self.lexer.escape:
            words.add(character)
            result.append(character)
            return
        if self.raw_escapes:
            words.add_raw(character)
            result.append(character)
        if escaped := self.next():
            words.add_raw(escaped)
            result.append(escaped)

    def single_quoted(self) -> str:
        self.position += 1
        end = self.text.find("'", self.position)
        if end < 0:
            self.position = len(self.text)
            raise ExpansionError("unexpected end of statement while looking for matching single-quote", hint=_QUOTE)
        value = self.text[self.position : end]
        self.position = end + 1
        return f"'{value}'" if self.lexer.raw_quotes else value

    def double_quoted(self) -> str:
        self.position += 1
        mark = '"' if self.lexer.raw_quotes else ""
        result = [mark]
        while character := self.peek():
            if character == "$":
                result.append(self.dollar())
                continue
            self.position += 1
            if character == '"':
                return "".join(result) + mark
            if character == self.lexer.escape:
                if self.raw_escapes:
                    result.append(character)
                following = self.peek()
                if not following:
                    break
                if following in ('"', "$", self.lexer.escape):
                    character = self.next()
            result.append(character)
        raise ExpansionError("unexpected end of statement while looking for matching double-quote", hint=_QUOTE)

    def heredoc(self) -> str:
        self.position += 1
        if self.peek() != "<":
            return "<"
        self.position += 1
        start = self.position
        if self.lexer.heredoc_dash and self.text[start : start + 2] in ("-\t", "-\r", "- "):
            self.position += 1
        while self.peek() in ("\t", "\r", " ") and self.peek():
            self.position += 1
        return "<<" + self.text[start : self.position]

    def name(self) -> str:
        start = self.position
        first = self.peek()
        if first.isdecimal():
            while self.peek().isdecimal():
                self.position += 1
        elif first and first in _SPECIAL_PARAMETERS:
            self.position += 1
        else:
            while (character := self.peek()) and (character.isalpha() or character.isdecimal() or character == "_"):
                self.position += 1
        return self.text[start : self.position]

    def lookup(self, name: str) -> str | None:
        value = self.env.get(name)
        (self.unmatched if value is None else self.matched).add(name)
        if value is not None:
            self.size += len(value)
            if self.size > MAX_EXPANDED:
                raise ExpansionError(f"the expanded text is longer than {MAX_EXPANDED} characters")
        return value

    def dollar(self) -> str:
        self.position += 1
        if self.peek() != "{":
            name = self.name()
            if not name:
                return "$"
            value = self.lookup(name)
            if value is None:
                return "$" + name if self.lexer.keep_unset else ""
            return value
        self.position += 1
        if not self.peek():
            raise ExpansionError("syntax error: missing '}'", hint=_DOLLAR)
        if self.peek() in "{}:":
            raise ExpansionError("syntax error: bad substitution", hint=_DOLLAR)
        return self.braced(self.name())

    def braced(self, name: str) -> str:
        operator = self.next()
        if not operator:
            raise ExpansionError("syntax error: missing '}'", hint=_DOLLAR)
        if operator == "}":
            value = self.lookup(name)
            if value is None:
                return f"${{{name}}}" if self.lexer.keep_unset else ""
            return value
        if operator == "/":
            return self.substituted(name)
        colon = operator == ":"
        if colon:
            operator = self.next()
        written = ":" + operator if colon else operator
        if not colon and operator not in ("+", "-", "?", "#", "%"):
            raise _unsupported(written)
        trims = operator in ("#", "%")
        if colon and trims:
            raise _unsupported(written)
        word = self.closing("}", raw_escapes=trims)
        value = self.lookup(name)
        if value is None and self.lexer.keep_unset:
            return f"${{{name}{written}{word}}}"
        if trims:
            return _trimmed(operator, word, value or "")
        return _conditional(name, operator, word, value, colon=colon)

    def closing(self, stop: str, *, raw_escapes: bool) -> str:
        try:
            return self.until(stop, raw_escapes)[0]
        except ExpansionError as error:
            if self.depth < _MAX_DEPTH and not self.peek():
                missing = "'}'" if stop == "}" else "'/' in ${}"
                raise ExpansionError(f"syntax error: missing {missing}", hint=_DOLLAR) from error
            raise

    def substituted(self, name: str) -> str:
        every = self.peek() == "/"
        if every:
            self.position += 1
        pattern = self.closing("/", raw_escapes=True)
        replacement = self.closing("}", raw_escapes=True)
        value = self.lookup(name)
        if value is None:
            if self.lexer.keep_unset:
                return f"${{{name}/{pattern}/{replacement}}}"
            value = ""
        compiled = ShellPattern(pattern)
        result = compiled.replace(value, replacement, every=every)
        self.size += len(result)
        if self.size > MAX_EXPANDED:
            raise ExpansionError(f"the expanded text is longer than {MAX_EXPANDED} characters")
        return result


def _unsupported(operator: str) -> ExpansionError:
    return ExpansionError(
        f"unsupported modifier ({operator}) in substitution", hint="the operators are :- - :+ + :? ? # ## % %% / //"
    )


def _trimmed(operator: str, pattern: str, value: str) -> str:
    longest = pattern.startswith(operator)
    if longest:
        pattern = pattern[1:]
    if operator == "%":
        return trim_suffix(pattern, value, longest=longest)
    return trim_prefix(pattern, value, longest=longest)


def _conditional(name: str, operator: str, word: str, value: str | None, *, colon: bool) -> str:
    missing = value is None or (colon and value == "")
    if operator == "-":
        return word if missing or value is None else value
    if operator == "+":
        return "" if missing else word
    if operator == "?":
        if value is None:
            raise ExpansionError(f"{name}: {word or 'is not allowed to be unset'}")
        if missing:
            raise ExpansionError(f"{name}: {word or 'is not allowed to be empty'}")
        return value
    raise _unsupported(":" + operator)
