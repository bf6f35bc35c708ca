"""castoff stop: asks containers to end, and kills those that do not."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from castoff.cli.container_view import container_store, for_each
from castoff.cli.run_life import seconds
from castoff.cli.run_values import stop_signal

if TYPE_CHECKING:
    import socket
    from argparse import Namespace

    from castoff.cli.parser import Parser
    from castoff.containers.containerstore import Container


def add_arguments(parser: Parser) -> None:
    """Declare the options of `castoff stop`."""
    parser.add_argument("container", nargs="+", metavar="CONTAINER", help="name or id")
    parser.one("-s", "--signal", metavar="SIGNAL", text="the signal that asks (default: the container's own)")
    parser.one("-t", "--time", "--timeout", metavar="SECONDS", text="how long to wait before killing; -1 for ever")


def run(args: Namespace) -> int:
    """Stop, wait for the end, and return the exit code."""
    from castoff.containers.containerstore import NoContainerError
    from castoff.containers.control import begin_to_stop, finish_to_stop

    number = stop_signal(args.signal) if args.signal else 0
    timeout = seconds(args.time, "--time") if args.time else None
    containers = container_store(args)
    # All are asked before any is waited for, and by then known: one with --rm is gone once it has ended.
    found: dict[str, Container] = {}
    asked: dict[str, socket.socket | None] = {}
    for name in args.container:
        with suppress(NoContainerError):
            found[name] = containers.find(name)
            if found[name].id not in asked:
                asked[found[name].id] = begin_to_stop(found[name], number=number, timeout=timeout)

    def finish(container: Container) -> None:
        end = asked.pop(container.id, None)
        if end is not None:
            finish_to_stop(container, end)

    return for_each(args, finish, found)
