"""castoff rmi: removes references, and images that have none left."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from castoff.cli.errors import report
from castoff.cli.named import names_reference
from castoff.cli.session import open_store
from castoff.errors import BlobNotFoundError, CastoffError, StoreError

if TYPE_CHECKING:
    from argparse import Namespace

    from castoff.cli.parser import Parser
    from castoff.store.directory import DirectoryStore


def add_arguments(parser: Parser) -> None:
    """Declare the options of `castoff rmi`."""
    parser.add_argument("image", nargs="+", metavar="IMAGE", help="reference or id of an image in the store")
    parser.flag("-f", "--force", text="remove an id with all its references; say nothing of images that are not there")


def run(args: Namespace) -> int:
    """Remove, and return the exit code: that of the first image that can't be removed."""
    from castoff.store.gc import collect

    code = 0
    with open_store(args, create=False) as store:
        removed = False
        for name in args.image:
            try:
                removed = _remove(store, name, force=args.force) or removed
            except BlobNotFoundError as error:
                if not args.force:
                    code = code or report(error, sys.stderr, os.environ)
            except CastoffError as error:
                code = code or report(error, sys.stderr, os.environ)
        if removed:
            outcome = collect(store)
            if outcome.deferred:
                sys.stderr.write("note: another castoff uses the store; the next removal frees the space\n")
            for digest in outcome.removed:
                sys.stdout.write(f"Deleted: {digest}\n")
    return code


def _remove(store: DirectoryStore, name: str, *, force: bool) -> bool:
    """Remove what a name means; tell whether the image went with it."""
    record = store.images.find(name)
    others = [other for other in store.images if other.descriptor.digest == record.descriptor.digest]
    if record.reference is not None and names_reference(name, record):
        store.images.remove(record.reference)
        sys.stdout.write(f"Untagged: {record.reference.familiar}\n")
        return len(others) == 1
    named = [other for other in others if other.reference is not None]
    if len(named) > 1 and not force:
        names = ", ".join(other.name for other in named)
        raise StoreError(f"{name} has several references: {names}", hint="remove them by name, or all with --force")
    for other in named:
        sys.stdout.write(f"Untagged: {other.name}\n")
    store.images.remove_digest(record.descriptor.digest)
    return True
