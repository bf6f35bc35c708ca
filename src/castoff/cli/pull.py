"""castoff pull: an image from a registry into the store."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from castoff.cli.registry_options import add_registry_arguments, overrides
from castoff.cli.root import store_root
from castoff.cli.session import chosen_mode, show_progress

if TYPE_CHECKING:
    from argparse import Namespace

    from castoff.cli.parser import Parser
    from castoff.image.pull import PulledImage


def add_arguments(parser: Parser) -> None:
    """Declare the options of `castoff pull`."""
    parser.add_argument("reference", metavar="REF", help="what to pull, such as alpine or ghcr.io/o/r:tag")
    parser.flag("--all-platforms", text="pull the images for all platforms, and what is attached to them")
    parser.flag("-a", "--all-tags", text="pull every tag of the repository")
    parser.one("--platform", metavar="PLATFORM", text="pull the image for this platform (default: this machine's)")
    parser.one("--progress", metavar="MODE", text="auto, tty, plain, rawjson or quiet", default="auto")
    parser.flag("-q", "--quiet", text="print nothing but the reference")
    add_registry_arguments(parser)


def run(args: Namespace) -> int:
    """Pull, and return the exit code."""
    started = time.time()
    mode = chosen_mode(args)

    from castoff.transfers import PullRequest, pull

    request = PullRequest(
        store_root(args.root, os.environ),
        args.reference,
        args.platform,
        args.all_platforms,
        args.all_tags,
        overrides(args),
        tuple(os.environ.items()),
    )
    with show_progress(mode, started) as observer:
        pulled = pull(request, observer)
    for image in pulled:
        sys.stdout.write(f"{image.reference}\n" if mode == "quiet" else _said(image))
    return 0


def _said(image: PulledImage) -> str:
    name = image.reference.familiar
    status = "Downloaded newer image for" if image.transferred else "Image is up to date for"
    return f"Digest: {image.descriptor.digest}\nStatus: {status} {name}\n{image.reference}\n"
