"""castoff wait: waits for the end of containers."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from castoff.cli.container_view import container_store

if TYPE_CHECKING:
    from argparse import Namespace

    from castoff.cli.parser import Parser


def add_arguments(parser: Parser) -> None:
    """Declare the options of `castoff wait`."""
    parser.add_argument("container", nargs="+", metavar="CONTAINER", help="name or id")


def run(args: Namespace) -> int:
    """Print the exit code of each container when it has ended, and return 0."""
    from castoff.containers.control import wait

    containers = container_store(args)
    found = [containers.find(name) for name in args.container]
    for container in found:
        sys.stdout.write(f"{wait(container)}\n")
        sys.stdout.flush()
    return 0
