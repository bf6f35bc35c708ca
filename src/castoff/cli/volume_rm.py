"""castoff volume rm: removes named volumes with all that is in them."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from castoff.cli.errors import report
from castoff.cli.root import store_root
from castoff.cli.session import enter_namespace
from castoff.errors import CastoffError

if TYPE_CHECKING:
    from argparse import Namespace

    from castoff.cli.parser import Parser


def add_arguments(parser: Parser) -> None:
    """Declare the options of `castoff volume rm`."""
    parser.add_argument("volume", nargs="+", metavar="VOLUME", help="name of a volume")
    parser.flag("-f", "--force", text="say nothing of volumes that are not there")


def run(args: Namespace) -> int:
    """Remove, and return the exit code: 1 if any could not be removed."""
    from castoff.containers.volumes import NoVolumeError, VolumeStore

    volumes = VolumeStore(store_root(args.root, os.environ))
    enter_namespace(os.environ)
    code = 0
    for name in args.volume:
        try:
            volumes.remove(name)
        except CastoffError as error:
            if not (args.force and isinstance(error, NoVolumeError)):
                code = 1
                report(error, sys.stderr, os.environ)
            continue
        sys.stdout.write(f"{name}\n")
    return code
