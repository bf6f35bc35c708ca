"""castoff port: which ports of this machine lead to a container."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from castoff.cli.container_view import container_store, published
from castoff.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from castoff.cli.parser import Parser


def add_arguments(parser: Parser) -> None:
    """Declare the options of `castoff port`."""
    parser.add_argument("container", metavar="CONTAINER", help="name or id")
    parser.add_argument(
        "port", nargs="?", default="", metavar="PORT[/PROTOCOL]", help="only this port of the container"
    )


def run(args: Namespace) -> int:
    """Print, and return the exit code."""
    container = container_store(args).find(args.container)
    pairs = [pair for text in container.state().ports for pair in published(text)]
    if not args.port:
        sys.stdout.writelines(f"{inside} -> {where}\n" for where, inside in pairs)
        return 0
    wanted = args.port if "/" in args.port else f"{args.port}/tcp"
    found = [where for where, inside in pairs if inside == wanted]
    if not found:
        raise UsageError(f"the container {args.container} does not publish port {wanted}")
    sys.stdout.writelines(f"{where}\n" for where in found)
    return 0
