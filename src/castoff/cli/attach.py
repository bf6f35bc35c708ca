"""castoff attach: joins the terminal to a running container."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from castoff.cli.container_view import container_store
from castoff.errors import UsageError

if TYPE_CHECKING:
    import socket
    from argparse import Namespace

    from castoff.cli.parser import Parser
    from castoff.containers.containerstore import Container


def add_arguments(parser: Parser) -> None:
    """Declare the options of `castoff attach`."""
    parser.add_argument("container", metavar="CONTAINER", help="name or id")
    parser.flag("--no-stdin", text="do not pass standard input on")
    parser.flag("--sig-proxy", text="pass signals on to the container (default: true)", default=True)


def run(args: Namespace) -> int:
    """Stay until the container ends, and return its exit code; 0 where the user detaches."""
    from castoff.containers.control import ask

    container = container_store(args).find(args.container)
    record = container.record()
    interactive = record.interactive and not args.no_stdin
    if record.tty and interactive and not os.isatty(0):
        raise UsageError("the input device is no terminal", hint="castoff attach --no-stdin only shows the output")
    with ask(container, {"op": "attach"}) as end:
        return follow(container, end, terminal=record.tty, interactive=interactive, forward_signals=args.sig_proxy)


def follow(
    container: Container, end: socket.socket, *, terminal: bool, interactive: bool, forward_signals: bool = True
) -> int:
    """Join the standard streams to a container until it ends or the user detaches, and return the exit code."""
    from castoff.containers.attachment import LOST, Attachment
    from castoff.containers.control import exit_code

    sys.stdout.flush()
    attachment = Attachment(end, (0, 1, 2), terminal=terminal, interactive=interactive, forward_signals=forward_signals)
    code = attachment.run()
    if code == LOST:
        return exit_code(container)
    if code is None:
        sys.stderr.write("\r\ndetached; castoff attach joins the container again\r\n")
    return code or 0
