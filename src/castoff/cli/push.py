"""castoff push: images from the store to registries."""

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


def add_arguments(parser: Parser) -> None:
    """Declare the options of `castoff push`."""
    parser.add_argument("reference", nargs="+", metavar="REF", help="reference of an image, and of where it goes")
    parser.flag("-a", "--all-tags", text="push all tags of these repositories that the store has")
    parser.one("--digestfile", metavar="FILE", text="write the digest of what was pushed last to a file")
    parser.one("--image", metavar="IMAGE", text="push this image (reference or id) under all of the references")
    parser.one("--platform", metavar="PLATFORM", text="of several platforms, push only the image for this one")
    parser.one("--progress", metavar="MODE", text="auto, tty, plain, rawjson or quiet", default="auto")
    parser.flag("-q", "--quiet", text="print nothing but the references")
    add_registry_arguments(parser)


def run(args: Namespace) -> int:
    """Push, and return the exit code."""
    started = time.time()
    mode = chosen_mode(args)

    from castoff.transfers import PushRequest, push

    request = PushRequest(
        store_root(args.root, os.environ),
        tuple(args.reference),
        args.image,
        args.platform,
        args.all_tags,
        overrides(args),
        tuple(os.environ.items()),
    )
    with show_progress(mode, started) as observer:
        pushed = push(request, observer)
    for image in pushed:
        name, digest = image.reference, image.descriptor.digest
        line = f"{name}@{digest}" if name.digest is None else str(name)
        sys.stdout.write(f"{line}\n" if mode == "quiet" else f"{line} size: {image.descriptor.size}\n")
    if args.digestfile:
        from castoff.cli.build import write_file

        write_file(args.digestfile, f"{pushed[-1].descriptor.digest}\n")
    return 0
