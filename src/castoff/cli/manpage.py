"""castoff manpage: writes manual pages, one for castoff and one for each verb, from what --help is made of."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from castoff.errors import ExportError

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    from castoff.cli.outline import Option, VerbOutline
    from castoff.cli.parser import Parser

_SUMMARY = "build multi-stage Dockerfiles into minimal, reproducible images"
_DESCRIPTION = (
    "castoff builds multi-stage Dockerfiles into images of the Open Container Initiative, without Docker, a daemon or"
    " root, and runs, weighs, audits and ships them."
)
_ENVIRONMENT = (
    ("CASTOFF_ROOT", "folder of the store, where --root does not name one"),
    ("CASTOFF_KEEP_STORAGE", "how much of the build cache stays after a build, such as 20g; not set: all of it"),
    ("CASTOFF_DEBUG", "1 prints the traceback of an error too"),
    ("SOURCE_DATE_EPOCH", "the time that layers and configs are given, in seconds since 1970"),
    ("BUILDKIT_PROGRESS", "the mode of progress, where --progress does not name one"),
)
_FILES = (
    ("/var/lib/castoff", "the store of root"),
    ("$XDG_DATA_HOME/castoff", "the store of an ordinary user; ~/.local/share/castoff where the variable is not set"),
)


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of `castoff manpage`."""
    parser.add_argument("folder", metavar="DIR", help="folder to write to, such as ~/.local/share/man/man1")


def run(args: Namespace) -> int:
    """Write the pages, print their number, and return the exit code.

    Raises:
        ExportError: the folder can't be written.
    """
    from castoff.cli.outline import outline

    written = pages(outline())
    try:
        os.makedirs(args.folder, exist_ok=True)
        for name, text in written.items():
            with open(os.path.join(args.folder, name), "w", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise ExportError(f"manual pages can't be written to {args.folder}: {error.strerror}") from error
    sys.stdout.write(f"{len(written)} pages in {args.folder}\n")
    return 0


def pages(verbs: tuple[VerbOutline, ...]) -> dict[str, str]:
    """Return the pages by file name, as roff with the macros of man(7)."""
    found = {"castoff.1": "\n".join(_main_page(verbs)) + "\n"}
    for verb in verbs:
        found[f"castoff-{verb.name.replace(' ', '-')}.1"] = "\n".join(_verb_page(verb)) + "\n"
    return found


def _head(name: str) -> str:
    from castoff import __version__

    return f'.TH "{_roff(name.upper())}" "1" "" "castoff {_roff(__version__)}" "castoff"'


def _main_page(verbs: tuple[VerbOutline, ...]) -> Iterator[str]:
    yield _head("castoff")
    yield from (".SH NAME", rf"castoff \- {_roff(_SUMMARY)}")
    yield from (".SH SYNOPSIS", ".B castoff", r"[\fB\-\-root\fR \fIDIR\fR] \fIVERB\fR ...")
    yield from (".SH DESCRIPTION", _roff(_DESCRIPTION), ".SH VERBS")
    for verb in verbs:
        yield from (".TP", rf"\fBcastoff\-{_roff(verb.name.replace(' ', '-'))}\fR(1)", _roff(verb.text) + ".")
    yield ".SH OPTIONS"
    for name, text in (
        (r"\fB\-\-root\fR \fIDIR\fR", "folder of the store"),
        (r"\fB\-\-version\fR", "show the version and exit"),
        (r"\fB\-h\fR, \fB\-\-help\fR", "show help and exit"),
    ):
        yield from (".TP", name, _roff(text))
    for title, rows in (("ENVIRONMENT", _ENVIRONMENT), ("FILES", _FILES)):
        yield f".SH {title}"
        for name, text in rows:
            yield from (".TP", rf"\fB{_roff(name)}\fR", _roff(text))


def _verb_page(verb: VerbOutline) -> Iterator[str]:
    name = f"castoff-{verb.name.replace(' ', '-')}"
    yield _head(name)
    yield from (".SH NAME", rf"{_roff(name)} \- {_roff(verb.text)}")
    words = [rf"\fI{_roff(argument.name)}\fR" + (" ..." if argument.several else "") for argument in verb.arguments]
    shown = [f"[{word}]" if argument.optional else word for word, argument in zip(words, verb.arguments, strict=True)]
    yield from (".SH SYNOPSIS", f".B castoff {_roff(verb.name)}", " ".join(["[OPTION ...]", *shown]))
    yield from (".SH DESCRIPTION", f"{_roff(verb.text[:1].upper() + verb.text[1:])}.")
    if verb.arguments:
        yield ".SH ARGUMENTS"
        for argument in verb.arguments:
            yield from (".TP", rf"\fI{_roff(argument.name)}\fR", _roff(argument.text))
    yield ".SH OPTIONS"
    for option in verb.options:
        yield from (".TP", _option(option), _roff(option.text))
    yield from (".SH SEE ALSO", r"\fBcastoff\fR(1)")


def _option(option: Option) -> str:
    names = ", ".join(rf"\fB{_roff(name)}\fR" for name in option.names)
    value = rf" \fI{_roff(option.value)}\fR" if option.value else ""
    forms = rf"[=\fI{_roff('|'.join(option.forms))}\fR]" if option.forms else ""
    return names + value + forms


def _roff(text: str) -> str:
    """Return text that roff prints as it is."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga").replace("…", "...")
    return "\\&" + text if text.startswith(".") else text
