"""castoff base assemble: a base image from distribution packages."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from castoff.cli import values
from castoff.cli.session import chosen_mode, enter_namespace, open_store, show_progress, source_epoch
from castoff.cli.sizes import human_size
from castoff.errors import UsageError
from castoff.oci.platform import Platform
from castoff.oci.reference import Reference

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from castoff.base.assemble import Sources
    from castoff.cli.parser import Parser
    from castoff.oci.descriptor import Descriptor
    from castoff.store.directory import DirectoryStore

MIRROR_VARIABLE = "CASTOFF_MIRROR"


def add_arguments(parser: Parser) -> None:
    """Declare the options of `castoff base assemble`."""
    parser.add_argument("recipe", metavar="RECIPE", help="the recipe, a TOML file")
    parser.flag("--fresh", text="assemble anew, even where the store has the result")
    parser.one("--lock", metavar="FILE", text="the lock (default: the one beside the recipe)")
    add_sources(parser)
    add_progress(parser)
    parser.many(
        "--platform", metavar="PLATFORM", text="for these platforms, such as linux/arm64: several make an index"
    )
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

    platforms = tuple(dict.fromkeys(map(Platform.parse, values.split_commas(args.platform))))
    if len(platforms) > 1 and args.lock:
        raise UsageError(
            "--lock is for one platform, and there are several", hint="put a lock for each beside the recipe"
        )

    from castoff.base.assemble import AssembleRequest, architecture_of, assemble
    from castoff.sandbox.zygote_executor import ZygoteExecutor

    architectures = tuple(architecture_of(platform) for platform in platforms) or ("",)
    store = open_store(args)
    tier = enter_namespace(os.environ)
    request = AssembleRequest(
        recipe=args.recipe,
        lock=args.lock,
        epoch=epoch,
        userxattr=tier.userxattr,
        fresh=args.fresh,
        sources=sources,
    )
    with store, ZygoteExecutor(store.session().new_dir()) as executor:
        with show_progress(mode, started) as observer:
            made = [assemble(replace(request, architecture=name), store, executor, observer) for name in architectures]
        descriptor = _joined(store, platforms, made)
        for reference in references:
            store.images.set_(reference, descriptor, time.time())
        if not references:
            store.images.keep(descriptor, time.time())
        _report(store, descriptor, references, quiet=mode == "quiet")
    return 0


def _joined(store: DirectoryStore, platforms: Sequence[Platform], made: Sequence[Descriptor]) -> Descriptor:
    """Return the image that was made, or the index of several."""
    if len(made) == 1:
        return made[0]
    from castoff.export.platforms import store_index

    pairs = zip(platforms, made, strict=True)
    return store_index(store.blobs, [replace(descriptor, platform=platform) for platform, descriptor in pairs])


def _report(store: DirectoryStore, descriptor: Descriptor, references: Sequence[Reference], *, quiet: bool) -> None:
    """Say what was made: its id (of an index its digest), and its size."""
    from castoff.image.image import StoredImage, iter_manifests

    images = [StoredImage(store.blobs, manifest) for manifest in iter_manifests(store.blobs, descriptor)]
    image_id = images[0].config_digest() if len(images) == 1 else descriptor.digest
    if quiet:
        sys.stdout.write(f"{image_id}\n")
        return
    names = ", ".join(reference.familiar for reference in references) or "an image without a name"
    size = human_size(sum(image.size() for image in images))
    several = f", {len(images)} platforms" if len(images) > 1 else ""
    sys.stdout.write(f"Assembled {names}: {image_id}{several}, {size} compressed\n")
