"""The documentation and the command line name the same verbs and options."""

from __future__ import annotations

import argparse
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from castoff.cli.parser import VERBS, Parser, split_verb
from castoff.errors import UsageError

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "bases").glob("*.md"))]
# What pages say of verbs that are not there yet is that they are not there.
GLOBAL = {"--root", "--version", "--help"}

_COMMAND = re.compile(r"castoff (?!-)([a-z].*)")
_LONG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
_SHORT = re.compile(r"(?<![\w-])-[a-zA-Z](?![\w-])")
_CODE = re.compile(r"`([^`\n]+)`")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def options(verb: str) -> set[str]:
    """Return every option of a verb, the hidden ones among them; values such as ``--load=true`` left out."""
    return {name for name in actions(verb) if "=" not in name} | {"--root"}


def listed(verb: str) -> set[str]:
    """Return the options that a verb's help lists."""
    return {name for name, action in actions(verb).items() if action.help != argparse.SUPPRESS}


def actions(verb: str) -> dict[str, argparse.Action]:
    """Return the options of a verb by name."""
    module, summary = VERBS[verb]
    parser = Parser(f"castoff {verb}", summary, help_names=("--help",) if verb == "run" else ("-h", "--help"))
    importlib.import_module(f"castoff.cli.{module}").add_arguments(parser)
    return dict(parser._option_string_actions)


def commands(page: Path) -> Iterator[str]:
    """Yield each command line of castoff on a page, without its first word: in code spans and blocks of commands."""
    text = page.read_text(encoding="utf-8")
    spans: list[str] = _CODE.findall(_FENCE.sub("", text))
    for language, block in _FENCE.findall(text):
        if language in ("console", "sh"):
            joined = block.replace("\\\n", " ")
            spans += [line[2:] for line in joined.splitlines() if line.startswith(("$ ", "# "))]
    for span in spans:
        for part in re.split(r"[|;&>]", span):
            if match := _COMMAND.match(re.sub(r"^castoff --root \S+ ", "castoff ", part.strip())):
                yield match[1]


def verb_of(command: str) -> tuple[str, str]:
    """Return the verb of a command line, and the rest."""
    words = command.split()
    verb, rest = split_verb([re.sub(r"\W+$", "", word) if i < 2 else word for i, word in enumerate(words)])
    return verb, " ".join(rest)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_on_a_page_have_verbs_and_options_that_exist(page: Path) -> None:
    wrong = []
    for command in commands(page):
        try:
            verb, rest = verb_of(command)
        except UsageError as error:
            wrong.append(f"{command}: {error}")
            continue
        if verb == "run":  # what stands after the image is for the container
            rest = rest.split(" sh ", maxsplit=1)[0]
        known = options(verb)
        wrong += [f"{command}: no {name}" for name in _LONG.findall(rest) + _SHORT.findall(rest) if name not in known]
    assert not wrong


def test_commands_are_found() -> None:
    found = {verb_of(command)[0] for page in PAGES for command in commands(page)}
    assert found == set(VERBS)


@pytest.mark.parametrize(("verb", "page"), [("build", "build.md"), ("run", "run.md")])
def test_every_option_is_in_the_table_of_its_page_and_the_other_way_round(verb: str, page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    heading = text.index("## Options")
    table = [line.split("|")[1] for line in text[heading:].splitlines() if line.startswith("| `-")]
    documented = {name for cell in table for name in _LONG.findall(cell) + _SHORT.findall(cell)}
    assert documented == listed(verb) | {"--root"}


@pytest.mark.parametrize(("verb", "page"), [("build", "build.md"), ("run", "run.md")])
def test_hidden_options_are_told_of(verb: str, page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    hidden = {name for name in options(verb) - listed(verb) - GLOBAL if name.startswith("--")}
    silent = {"--name"}  # scripts give it; a container that goes when it ends has no use for one
    short = {"--detach": "`-d`"}
    assert not {name for name in hidden - silent if f"`{name}`" not in text and short.get(name, "?") not in text}


def test_options_of_the_other_verbs_are_somewhere() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    for verb in (
        "base assemble",
        "base lock",
        "doctor",
        "size",
        "save",
        "images",
        "rmi",
        "inspect",
        "load",
        "audit",
        "prune",
    ):
        assert {name for name in listed(verb) if name.startswith("--") and name not in text} <= {
            "--all",
            "--help",
            "--human",
        }, verb
