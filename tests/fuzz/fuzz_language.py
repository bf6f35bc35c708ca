"""Guided fuzzing of the Dockerfile language with atheris: parser, lint, plan, words, mounts, ignore files.

    python tests/fuzz/fuzz_language.py [-atheris_runs=N] [FOLDER of inputs]

`./run fuzz N` does it where atheris is installed. What hypothesis makes up is in tests/unit/dockerfile.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests/unit/dockerfile")]

import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore] # noqa: E402

with atheris.instrument_imports(include=["castoff"]):
    from castoff.context.ignore import IgnorePatterns
    from castoff.dockerfile.lint.linter import lint
    from castoff.dockerfile.lint.scope import LintScope
    from castoff.dockerfile.mounts import parse_mount
    from castoff.dockerfile.parser import parse, parse_trigger, read
    from castoff.dockerfile.words import WordLexer
    from castoff.errors import CastoffError
    from castoff.oci.config import ImageConfig
    from castoff.plan.graph import PlanRequest
    from castoff.plan.planner import plan
    from castoff.plan.resolver import ContextKind, ResolvedBase

if TYPE_CHECKING:
    from castoff.location import SourceRange
    from castoff.oci.platform import Platform


class Images:
    """A resolver that has every image."""

    def context_kind(self, _name: str) -> ContextKind:
        return "none"

    def resolve(self, name: str, platform: Platform, _location: SourceRange | None) -> ResolvedBase:
        return ResolvedBase(name, name, ImageConfig(platform), "image")


def fuzz_file(data: bytes) -> None:
    """Read, lint and plan a Dockerfile."""
    reading = read(data)
    with suppress(CastoffError):
        lint(reading, LintScope(all_stages=True))
    with suppress(CastoffError):
        plan(parse(data), PlanRequest(), Images())
        assert reading.error is None


def fuzz_word(data: bytes) -> None:
    """Expand a word."""
    text = data.decode("utf-8", "surrogateescape")
    lexer = WordLexer()
    with suppress(CastoffError):
        assert lexer.word(text, {"a": "x y"}) == lexer.expand(text, {"a": "x y"}).text
        lexer.words(text, {"a": "x y"})


def fuzz_ignore(data: bytes) -> None:
    """Read an ignore file, and ask it about a path, which is its last line."""
    rules, _, path = data.rpartition(b"\n")
    with suppress(CastoffError):
        patterns = IgnorePatterns.parse(rules)
        text = path.decode("utf-8", "surrogateescape")
        assert not patterns.excludes(text) or patterns.deciding(text)


def fuzz_mount(data: bytes) -> None:
    """Read a mount and a trigger."""
    text = data.decode("utf-8", "surrogateescape")
    with suppress(CastoffError):
        parse_mount(text, lambda word: word)
    with suppress(CastoffError):
        parse_trigger(text, None)


TARGETS: tuple[Callable[[bytes], None], ...] = (fuzz_file, fuzz_file, fuzz_word, fuzz_ignore, fuzz_mount)


def fuzz(data: bytes) -> None:
    """Give an input to the part that its first byte names."""
    if data:
        TARGETS[data[0] % len(TARGETS)](data[1:])


def write_seeds(folder: str) -> None:
    """Write the files that are found here, as inputs to start from."""
    from dockerfile_corpus import corpus

    os.makedirs(folder, exist_ok=True)
    for number, text in enumerate(corpus()):
        Path(folder, f"file-{number}").write_bytes(b"\0" + text.encode("utf-8", "surrogateescape"))


def main() -> None:
    """Fuzz until the runs are done, or something fails."""
    for argument in sys.argv[1:]:
        if not argument.startswith("-"):
            write_seeds(argument)
    atheris.Setup(sys.argv, fuzz)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
