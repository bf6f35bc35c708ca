"""The verbs, options and arguments of the command line as values, read from the parsers that --help is made of."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from castoff.cli.parser import VERBS, Parser, parser_of


@dataclass(frozen=True, slots=True)
class Option:
    """One option.

    Attributes:
        names: such as ``("-t", "--tag")``.
        value: what its value is called; "" for an option without one.
        text: its line of help.
        forms: the values that it may be given after ``=``, where it may also stand alone.
    """

    names: tuple[str, ...]
    value: str
    text: str
    forms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Argument:
    """What stands without an option: its name, its line of help, and whether there may be several or none."""

    name: str
    text: str
    several: bool
    optional: bool


@dataclass(frozen=True, slots=True)
class VerbOutline:
    """One verb, its options in the order of the help, and its arguments."""

    name: str
    text: str
    options: tuple[Option, ...]
    arguments: tuple[Argument, ...]


def outline() -> tuple[VerbOutline, ...]:
    """Return every verb; all the modules of verbs are imported for it."""
    return tuple(_verb(name, text) for name, (_module, text) in VERBS.items())


def _verb(name: str, text: str) -> VerbOutline:
    parser = parser_of(name)
    actions = parser._actions  # noqa: SLF001 - argparse has no other door
    listed = [action for action in actions if action.help is not argparse.SUPPRESS]
    options = tuple(_option(parser, action) for action in listed if action.option_strings)
    arguments = tuple(
        Argument(
            _label(action),
            action.help or "",
            action.nargs in ("*", "+", argparse.REMAINDER),
            action.nargs in ("*", "?", argparse.REMAINDER),
        )
        for action in listed
        if not action.option_strings
    )
    return VerbOutline(name, text, options, arguments)


def _label(action: argparse.Action) -> str:
    return action.metavar if isinstance(action.metavar, str) else action.dest.upper()


def _option(parser: Parser, action: argparse.Action) -> Option:
    names = tuple(name for name in action.option_strings if "=" not in name)
    value = "" if action.nargs == 0 else _label(action)
    known = parser._option_string_actions  # noqa: SLF001 - as above
    spelled = [name.partition("=")[2] for name in known if name.startswith(f"{names[-1]}=")]
    forms = tuple(form for form in spelled if form.lower() not in ("true", "false", "1", "0", "t", "f"))
    return Option(names, value, (action.help or "").replace("%%", "%"), forms)
