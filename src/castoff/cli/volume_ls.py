"""castoff volume ls: lists named volumes."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

from castoff.cli.root import store_root
from castoff.cli.table import table
from castoff.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from castoff.cli.parser import Parser


def add_arguments(parser: Parser) -> None:
    """Declare the options of `castoff volume ls`."""
    parser.one("--format", metavar="FORM", text="table, or json: one object a line", default="table")
    parser.flag("-q", "--quiet", text="show names only")


def run(args: Namespace) -> int:
    """List, and return the exit code."""
    from castoff.containers.volumes import VolumeStore

    if args.format not in ("table", "json"):
        raise UsageError(f"--format has no form {args.format!r}", hint="there are table and json")
    volumes = VolumeStore(store_root(args.root, os.environ))
    if args.quiet:
        sys.stdout.writelines(f"{name}\n" for name in volumes)
    elif args.format == "json":
        for name in volumes:
            value = {"Name": name, "Mountpoint": volumes.find(name), "Containers": volumes.users(name)}
            sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    else:
        rows = [["VOLUME NAME", "USED BY"], *([name, ", ".join(volumes.users(name))] for name in volumes)]
        sys.stdout.write(table(rows))
    return 0
