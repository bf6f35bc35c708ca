"""castoff base assemble: a base image from distribution packages."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from castoff.cli.session import chosen_mode, enter_namespace, open_store, show_progress, source_epoch
from castoff.cli.sizes import human_size
from castoff.oci.reference import Reference

if TYPE_CHECKING:
    from argparse import Namespace

    from castoff.base.assemble import Sources
    from castoff.cli.parser import Parser

MIRROR_VARIABLE = "CASTOFF_MIRROR"


def add_arguments(parser: Parser) -> None:
    """Declare the options of `castoff base assemble`."""
    parser.add_argument("recipe", metavar="RECIPE", help="the recipe, a TOML file")
    parser.flag("--fresh", text="assemble anew, even where the store has the result")
    parser.one("--lock", metavar="FILE", text="the lock (default: the one beside the recipe)")
    add_sources(parser)
    add_progress(parser)
    parser.flag("-q", "--quiet", text="print nothing but the image id")
    parser.many("-t", "--tag", metavar="REF", text="give the image a reference")


def add_sources(parser: Parser) -> None:
    """Declare the options that say where packages come from."""
    parser.many(
        "--mirror",
        metavar="[ARCHIVE=]URL",
        text=f"take packages from here (else ${MIRROR_VARIABLE}, else the machine's apt settings)",
    )
    parser.one("--keyring", metavar="FILE", text="the OpenPGP keys that an archive may be signed with")


def add_progress(parser: Parser) -> None:
    """Declare ``--progress``."""
    parser.one("--progress", metavar="MODE", text="auto, tty, plain, rawjson or quiet", default="auto")


def sources_of(args: Namespace) -> Sources:
    """Return where packages may come from.

    Raises:
        UsageError: a mirror is no URL.
    """
    from castoff.base.assemble import Sources
    from castoff.base.mirrors import parse_mirror

    given = args.mirror or os.environ.get(MIRROR_VARIABLE, "").split()
    mirrors = tuple(parse_mirror(text) for text in given)
    return Sources(mirrors, keyring=args.keyring) if args.keyring else Sources(mirrors)


def run(args: Namespace) -> int:
    """Assemble, and return the exit code."""
    started = time.time()
    mode = chosen_mode(args)
    references = tuple(Reference.parse(tag) for tag in args.tag)
    sources = sources_of(args)
    epoch = source_epoch(os.environ.get("SOURCE_DATE_EPOCH", ""))

    from castoff.base.assemble import AssembleRequest, assemble
    from castoff.image.image import StoredImage
    from castoff.sandbox.zygote_executor import ZygoteExecutor

    store = open_store(args)
    tier = enter_namespace(os.environ)
    request = AssembleRequest(
        recipe=args.recipe,
        lock=args.lock,
        references=references,
        epoch=epoch,
        userxattr=tier.userxattr,
        fresh=args.fresh,
        sources=sources,
    )
    with store, ZygoteExecutor(store.session().new_dir()) as executor:
        with show_progress(mode, started) as observer:
            descriptor = assemble(request, store, executor, observer)
        if not references:
            store.images.keep(descriptor, time.time())
        image = StoredImage.open_(store.blobs, descriptor)
        if mode == "quiet":
            sys.stdout.write(f"{image.config_digest()}\n")
        else:
            names = ", ".join(reference.familiar for reference in references) or "an image without a name"
            sys.stdout.write(f"Assembled {names}: {image.config_digest()}, {human_size(image.size())} compressed\n")
    return 0
