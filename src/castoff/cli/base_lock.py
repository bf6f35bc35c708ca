"""castoff base lock: the packages of a base image, chosen once and written beside its recipe."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from castoff.cli.base_assemble import add_progress, add_sources, sources_of
from castoff.cli.session import chosen_mode, open_store, show_progress

if TYPE_CHECKING:
    from argparse import Namespace

    from castoff.cli.parser import Parser


def add_arguments(parser: Parser) -> None:
    """Declare the options of `castoff base lock`."""
    parser.add_argument("recipe", metavar="RECIPE", help="the recipe, a TOML file")
    parser.one("--architecture", metavar="NAME", text="Debian's name of an architecture (default: this machine's)")
    parser.one("-o", "--output", metavar="FILE", text="the lock (default: beside the recipe; - for stdout)")
    add_sources(parser)
    add_progress(parser)
    parser.flag("-q", "--quiet", text="print nothing")


def run(args: Namespace) -> int:
    """Choose, write the lock, and return the exit code."""
    started = time.time()
    mode = chosen_mode(args)

    from castoff.base.assemble import LockRequest, host_architecture, lock
    from castoff.base.lockfile import locked_path

    request = LockRequest(args.recipe, args.architecture, sources_of(args))
    with open_store(args) as store, show_progress(mode, started) as observer:
        chosen = lock(request, store, observer)
    if args.output == "-":
        sys.stdout.write(chosen.to_text())
        return 0
    path = args.output or locked_path(
        args.recipe, "" if chosen.architecture == host_architecture() else chosen.architecture
    )
    chosen.write(path)
    if mode != "quiet":
        sys.stdout.write(f"Locked {len(chosen.packages)} packages and {len(chosen.wheels)} wheels in {path}\n")
    return 0
