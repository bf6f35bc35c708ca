"""castoff logs: what a container has printed."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from castoff.cli.container_view import container_store, timestamp
from castoff.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from castoff.cli.parser import Parser
    from castoff.containers.logs import LogLine


def add_arguments(parser: Parser) -> None:
    """Declare the options of `castoff logs`."""
    parser.add_argument("container", metavar="CONTAINER", help="name or id")
    parser.flag("-f", "--follow", text="go on until the container ends")
    parser.one(
        "--since", metavar="TIME", text="only from this time on: 2026-01-31T12:00:00Z, or 10m for ten minutes ago"
    )
    parser.one("-n", "--tail", metavar="NUMBER", text="only so many of the last lines", default="all")
    parser.flag("-t", "--timestamps", text="show when each line came")


def run(args: Namespace) -> int:
    """Print to standard output and standard error, as the container did, and return the exit code."""
    from castoff.containers.logs import follow_log, read_log

    tail = _tail(args.tail)
    since = _since(args.since) if args.since else 0.0
    container = container_store(args).find(args.container)
    if not args.follow:
        for line in read_log(container.path, tail=tail, since=since):
            _print(line, stamped=args.timestamps)
        return 0
    for line in follow_log(container.path, container.is_alive, tail=tail, since=since):
        _print(line, stamped=args.timestamps)
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _print(line: LogLine, *, stamped: bool) -> None:
    out = sys.stderr.buffer if line.stream == "stderr" else sys.stdout.buffer
    out.write((f"{timestamp(line.time)} ".encode() if stamped else b"") + line.data)


def _tail(text: str) -> int | None:
    if text in ("all", "-1"):
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 12):
        raise UsageError(f"--tail wants a number of lines or all, not {text!r}")
    return int(text)


def _since(text: str) -> float:
    """Return a time in seconds since the epoch: of a date, of a number of them, or so long ago."""
    from castoff.cli.run_life import duration
    from castoff.store.images import parse_time

    if text.replace(".", "", 1).isdigit() and text.isascii():
        return float(text)
    moment = parse_time(text)
    if moment:
        return moment
    return time.time() - duration(text, "--since")
