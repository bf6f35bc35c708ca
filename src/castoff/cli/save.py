"""castoff save: images into an archive."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from castoff.cli.named import names_reference
from castoff.cli.session import open_store
from castoff.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from castoff.cli.parser import Parser
    from castoff.export.exporter import ImageResult
    from castoff.store.directory import DirectoryStore

_FORMATS = ("docker", "oci")


def add_arguments(parser: Parser) -> None:
    """Declare the options of `castoff save`."""
    parser.add_argument("image", nargs="+", metavar="IMAGE", help="reference or id of an image in the store")
    parser.one("--format", metavar="FORM", text="docker (default) or oci", default="docker")
    parser.one("-o", "--output", metavar="FILE", text="the archive (default: standard output)", default="-")
    parser.one("--platform", metavar="PLATFORM", text="save only the image for this platform")


def run(args: Namespace) -> int:
    """Write the archive, and return the exit code."""
    if args.format not in _FORMATS:
        raise UsageError(f"--format has no form {args.format!r}", hint=f"there are {' and '.join(_FORMATS)}")
    if args.output == "-" and sys.stdout.isatty():
        raise UsageError("an image is not written to a terminal", hint="redirect standard output, or use -o FILE")
    from castoff.events import NullObserver
    from castoff.export.archive import DockerArchiveExporter
    from castoff.export.layout import LayoutExporter

    exporters = {"docker": DockerArchiveExporter, "oci": LayoutExporter}
    with open_store(args, create=False) as store:
        store.session()
        results = _results(store, args.image, args.platform)
        exporters[args.format](args.output, stdout=sys.stdout.buffer).export_all(results, NullObserver())
    return 0


def _results(store: DirectoryStore, names: list[str], platform: str) -> list[ImageResult]:
    """Return the images that are meant, each once, with the references by which they were named."""
    from castoff.export.exporter import ImageResult
    from castoff.image.image import resolve
    from castoff.oci.platform import Platform
    from castoff.store.images import format_time

    found: dict[str, ImageResult] = {}
    for name in names:
        record = store.images.find(name)
        descriptor = record.descriptor
        if platform:
            descriptor = resolve(store.blobs, descriptor, Platform.parse(platform))
        key = str(descriptor.digest)
        references = found[key].references if key in found else ()
        if record.reference is not None and record.reference not in references and names_reference(name, record):
            references = (*references, record.reference)
        created = format_time(record.created) if record.created else ""
        found[key] = ImageResult(descriptor, references, store.blobs, created)
    return list(found.values())
