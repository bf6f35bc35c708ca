"""castoff start: starts containers that have ended."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from castoff.cli.container_view import container_store, for_each, warn
from castoff.cli.session import enter_for_container
from castoff.errors import SandboxError, UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from castoff.cli.parser import Parser
    from castoff.containers.containerstore import Container


def add_arguments(parser: Parser) -> None:
    """Declare the options of `castoff start`."""
    parser.add_argument("container", nargs="+", metavar="CONTAINER", help="name or id")
    parser.flag("-a", "--attach", text="stay with it, and return its exit code (one container only)")
    parser.flag("-i", "--interactive", text="pass standard input on, with -a")


def run(args: Namespace) -> int:
    """Start, and return the exit code."""
    containers = container_store(args)
    found = [containers.find(name) for name in args.container]
    if args.attach and len(found) != 1:
        raise UsageError("castoff start -a wants one container")
    enter_for_container(os.environ)
    if args.attach:
        return _start(found[0], args)
    return for_each(args, lambda container: _start_alone(container, args))


def _start_alone(container: Container, args: Namespace) -> None:
    if not container.is_alive():
        _start(container, args)


def _start(container: Container, args: Namespace) -> int:
    from castoff.cli.attach import follow
    from castoff.containers.control import start_monitor

    record = container.record()
    interactive = record.interactive and args.interactive
    if args.attach and record.tty and interactive and not os.isatty(0):
        raise UsageError("the input device is no terminal", hint="leave out -i")
    started = start_monitor(container, container.take(), attach=args.attach)
    for sentence in started.warnings:
        warn(sentence)
    if started.client is not None:
        with started.client as client:
            return follow(container, client, terminal=record.tty, interactive=interactive)
    if started.code is not None:
        sys.stdout.flush()
        raise SandboxError(f"the container {container.id[:12]} can't be started: {started.error}")
    return 0
