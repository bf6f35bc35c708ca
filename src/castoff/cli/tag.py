"""castoff tag: a further reference for an image."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from castoff.cli.session import open_store
from castoff.errors import UsageError
from castoff.oci.reference import Reference

if TYPE_CHECKING:
    from argparse import Namespace

    from castoff.cli.parser import Parser


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of `castoff tag`."""
    parser.add_argument("source", metavar="SOURCE", help="reference or id of an image in the store")
    parser.add_argument("target", metavar="TARGET", help="the reference that it is given")


def run(args: Namespace) -> int:
    """Set the tag, and return the exit code."""
    target = Reference.parse(args.target)
    if target.digest is not None:
        raise UsageError(f"{args.target} names a digest, which can't be chosen", hint="give a tag")
    with open_store(args, create=False) as store:
        record = store.images.find(args.source)
        store.images.set_(target, record.descriptor, time.time())
    return 0
