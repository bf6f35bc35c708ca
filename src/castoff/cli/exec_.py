"""castoff exec: a further process in a running container."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from castoff.cli import run_values
from castoff.cli.container_view import container_store
from castoff.cli.errors import report
from castoff.errors import CastoffError

if TYPE_CHECKING:
    import socket
    from argparse import Namespace
    from types import FrameType

    from castoff.cli.parser import Parser
    from castoff.containers.streams import Streams

_FAILED = 125
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_LOST = 137


def add_arguments(parser: Parser) -> None:
    """Declare the options of `castoff exec`; the container ends them."""
    parser.flag("-d", "--detach", text="do not wait for its end")
    parser.many("-e", "--env", metavar="KEY=VALUE", text="set a variable (KEY alone takes it from the environment)")
    parser.many("--env-file", metavar="FILE", text="set the variables of a file")
    parser.flag("-i", "--interactive", text="pass standard input on")
    parser.flag("--privileged", text="give it all capabilities, and no system call filter")
    parser.flag("-t", "--tty", text="give it a terminal")
    parser.one("-u", "--user", metavar="USER[:GROUP]", text="run as this user (default: the container's)")
    parser.one("-w", "--workdir", metavar="DIR", text="working directory inside (default: the container's)")
    parser.add_argument("container", metavar="CONTAINER", help="name or id")
    parser.add_argument("command", metavar="COMMAND", help="what to run")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="ARG", help="its arguments")


def run(args: Namespace) -> int:
    """Run the process, and return its exit code; 125 where castoff fails."""
    try:
        return _run(args)
    except CastoffError as error:
        report(error, sys.stderr, os.environ)
        return _FAILED


def _run(args: Namespace) -> int:
    from castoff.containers.streams import Streams

    if args.workdir:
        run_values.workdir(args.workdir)
    env = run_values.environment((), args.env_file, args.env, os.environ)
    if args.tty:
        env.setdefault("TERM", os.environ.get("TERM") or "xterm")
    container = container_store(args).find(args.container)
    request = {
        "op": "exec",
        "argv": [args.command, *args.arguments],
        "env": [f"{key}={value}" for key, value in env.items()],
        "cwd": args.workdir,
        "user": args.user,
        "terminal": args.tty,
        "privileged": args.privileged,
    }
    from castoff.containers.control import ask

    if args.detach:
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        with ask(container, {**request, "terminal": False}, (null, null, null)):
            os.close(null)
            return 0
    sys.stdout.flush()
    with (
        Streams((0, 1, 2), terminal=args.tty, interactive=args.interactive) as streams,
        ask(container, request, streams.descriptors) as end,
    ):
        return _wait(end, streams)


def _wait(end: socket.socket, streams: Streams) -> int:
    from castoff.containers.control import receive

    def forward(number: int, _: FrameType | None) -> None:
        with suppress(OSError):
            end.send(b"s%d" % number)

    def resize(_: int, __: FrameType | None) -> None:
        streams.resize()

    previous = {number: signal.signal(number, forward) for number in _FORWARDED}
    previous[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, resize)
    try:
        streams.begin()
        code = receive(end).get("code", _LOST)
        streams.finish()
        return int(code)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
