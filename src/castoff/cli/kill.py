"""castoff kill: sends containers a signal."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from castoff.cli.container_view import for_each
from castoff.cli.run_values import stop_signal

if TYPE_CHECKING:
    from argparse import Namespace

    from castoff.cli.parser import Parser
    from castoff.containers.containerstore import Container


def add_arguments(parser: Parser) -> None:
    """Declare the options of `castoff kill`."""
    parser.add_argument("container", nargs="+", metavar="CONTAINER", help="name or id")
    parser.one("-s", "--signal", metavar="SIGNAL", text="the signal (default: KILL)")


def run(args: Namespace) -> int:
    """Send it, and return the exit code."""
    number = stop_signal(args.signal) if args.signal else signal.SIGKILL

    def kill(container: Container) -> None:
        from castoff.containers.control import ask, receive

        with ask(container, {"op": "kill", "signal": int(number)}) as end:
            receive(end)

    return for_each(args, kill)
