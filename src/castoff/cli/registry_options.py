"""The options of verbs that speak to registries: what one call says of them, before the files of configuration."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from castoff.cli import values
from castoff.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from castoff.cli.parser import Parser
    from castoff.registry.config import Overrides


def add_registry_arguments(parser: Parser) -> None:
    """Declare the ``--registry-…`` options."""
    parser.many("--registry-ca", metavar="FILE", text="trust the certificate authorities of a PEM file too")
    parser.one("--registry-config", metavar="FILE", text="read this registries.toml, and no other")
    parser.many("--registry-insecure", metavar="HOST[:PORT]", text="speak plain http, or https without verifying")
    parser.many("--registry-mirror", metavar="HOST=MIRROR", text="pull from a mirror of a registry first")


def overrides(args: Namespace) -> Overrides | None:
    """Return what the options say; None for nothing.

    Raises:
        UsageError: a value is not well formed, or a file is not there.
    """
    if not (args.registry_ca or args.registry_config or args.registry_insecure or args.registry_mirror):
        return None
    from castoff.registry.config import Overrides

    for path in (*args.registry_ca, *filter(None, [args.registry_config])):
        if not os.path.isfile(path):
            raise UsageError(f"there is no file {path} to read for registries")
    mirrors = tuple(values.pair(text, "--registry-mirror") for text in args.registry_mirror)
    return Overrides(args.registry_config, tuple(args.registry_insecure), mirrors, tuple(args.registry_ca))
