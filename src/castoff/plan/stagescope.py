"""What the instructions of one stage are read with: variables, the state so far, and where names are looked up."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from castoff.errors import ExpansionError

if TYPE_CHECKING:
    from castoff.dockerfile.words import WordLexer
    from castoff.location import SourceRange
    from castoff.plan.draft import Draft
    from castoff.plan.sources import Sources
    from castoff.plan.state import StageState
    from castoff.plan.step import NetworkMode, Payload, Source


@dataclass(frozen=True, slots=True)
class BuildScope:
    """What every stage of a build shares."""

    lexer: WordLexer
    global_args: Mapping[str, str]
    build_args: Mapping[str, str]
    proxy_env: tuple[str, ...]
    network: NetworkMode
    sources: Sources


@dataclass(frozen=True, slots=True)
class StageScope:
    """One stage while its instructions are taken in order; `state` changes with each."""

    build: BuildScope
    draft: Draft
    state: StageState

    def word(self, text: str) -> str:
        """Expand one word with what is in scope.

        Raises:
            ExpansionError: as `WordLexer.expand` does.
        """
        return self.build.lexer.word(text, self.state.env)

    def words(self, text: str) -> tuple[str, ...]:
        """Expand a text and split it into words.

        Raises:
            ExpansionError: as `WordLexer.expand` does.
        """
        return self.build.lexer.words(text, self.state.env)

    def source(self, name: str, location: SourceRange) -> Source:
        """Return what ``from=name`` means.

        Raises:
            CastoffError: as `Sources.find` does.
        """
        return self.build.sources.find(name, self.draft, location)

    def shown(self, text: str) -> str:
        """Return a line as progress shows it: variables expanded where they can be, the keyword in capitals."""
        return capitalised(text, self.build.lexer, self.state.env)


@dataclass(frozen=True, slots=True)
class Made:
    """What one instruction gives: a payload, its line of history, and what progress shows ("" for nothing)."""

    payload: Payload
    created_by: str
    name: str = ""


def capitalised(text: str, lexer: WordLexer, env: Mapping[str, str]) -> str:
    """Expand a line for display, and put its keyword in capitals; a line that can't be expanded stays as it is."""
    with contextlib.suppress(ExpansionError):
        text = lexer.word(text, env)
    keyword, space, rest = text.partition(" ")
    return keyword.upper() + space + rest
