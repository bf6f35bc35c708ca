"""castoff logout: forgets the user and the password of a registry."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import Namespace

    from castoff.cli.parser import Parser


def add_arguments(parser: Parser) -> None:
    """Declare the options of `castoff logout`."""
    parser.add_argument("registry", nargs="?", metavar="HOST[:PORT]", default="docker.io", help="default: docker.io")


def run(args: Namespace) -> int:
    """Log out, and return the exit code."""
    from castoff.oci.reference import check_registry
    from castoff.registry.credentials import normal_host
    from castoff.registry.keychain import LoginFile, credential_files

    registry = normal_host(args.registry)
    check_registry(registry)
    removed = [LoginFile(path, os.environ).remove(registry) for path in credential_files(os.environ)]
    if any(removed):
        sys.stdout.write(f"Removed login credentials for {registry}\n")
    else:
        sys.stdout.write(f"Not logged in to {registry}\n")
    return 0
