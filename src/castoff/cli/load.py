"""castoff load: images from an archive or a layout."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from castoff.cli.session import open_store
from castoff.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from castoff.cli.parser import Parser


def add_arguments(parser: Parser) -> None:
    """Declare the options of `castoff load`."""
    parser.one("-i", "--input", metavar="PATH", text="Docker or OCI archive, or OCI layout (default: stdin)")
    parser.flag("-q", "--quiet", text="print nothing")


def run(args: Namespace) -> int:
    """Load, and return the exit code."""
    from_stdin = args.input in ("", "-")
    if from_stdin and (sys.stdin is None or sys.stdin.isatty()):
        raise UsageError("standard input is a terminal, and an archive is to come from it", hint="use -i FILE")
    from castoff.image.load import load, load_stream

    with open_store(args) as store:
        source = "standard input"
        loaded = load_stream(sys.stdin.buffer, store, source) if from_stdin else load(args.input, store)
    if not args.quiet:
        for image in loaded:
            for reference in image.references:
                sys.stdout.write(f"Loaded image: {reference.familiar}\n")
            if not image.references:
                sys.stdout.write(f"Loaded image ID: {image.config_digest or image.descriptor.digest}\n")
    return 0
