"""castoff size: what an image weighs, layer by layer, and its largest files."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from castoff.cli.progress.state import printable
from castoff.cli.session import open_store
from castoff.cli.sizes import human_size
from castoff.cli.table import table
from castoff.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from castoff.cli.parser import Parser
    from castoff.image.image import StoredImage
    from castoff.inspect.size import ImageSize, Weight
    from castoff.store.directory import DirectoryStore

_INSTRUCTION = 60
_UNKNOWN = "-"


def add_arguments(parser: Parser) -> None:
    """Declare the options of `castoff size`."""
    parser.add_argument("image", metavar="IMAGE", help="reference or id of an image in the store")
    parser.add_argument("other", nargs="?", default="", metavar="OTHER", help="a second image, for --compare")
    parser.flag("--compare", text="show two images side by side, and the files that make the difference")
    parser.one("--format", metavar="FORM", text="table or json", default="table")
    parser.one("--largest", metavar="N", text="how many of the largest files to name (default: 10)", default="10")
    parser.flag("--no-trunc", text="show instructions whole")
    parser.one("--platform", metavar="PLATFORM", text="which image of several platforms (default: this machine's)")
    parser.flag("--stages", text="weigh the stages of the build that made it, and show what was left behind")


def run(args: Namespace) -> int:
    """Print, and return the exit code."""
    if args.format not in ("table", "json"):
        raise UsageError(f"--format has no form {args.format!r}", hint="there are table and json")
    if not args.largest.isascii() or not args.largest.isdigit() or len(args.largest) > 6:
        raise UsageError(f"--largest wants a number, not {args.largest!r}")
    if args.compare != bool(args.other) or (args.compare and args.stages):
        raise UsageError("castoff size takes one image, and with --compare two, without --stages")
    if args.compare:
        from castoff.cli.size_compare import run_compare

        return run_compare(args)
    if args.stages:
        from castoff.cli.size_stages import run_stages

        return run_stages(args)
    from castoff.inspect.size import image_size

    with open_store(args, create=False) as store:
        image, name = find_image(store, args)
        size = image_size(image, int(args.largest))
        image_id = str(image.config_digest())
    if args.format == "json":
        sys.stdout.write(json.dumps(size_document(name, image_id, size), ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(size_table(size, whole=args.no_trunc))
    return 0


def find_image(store: DirectoryStore, args: Namespace) -> tuple[StoredImage, str]:
    """Return the image that the arguments mean, and its name.

    Raises:
        CastoffError: there is none, or it is damaged.
    """
    from castoff.image.image import StoredImage
    from castoff.oci.platform import Platform

    record = store.images.find(args.image)
    platform = Platform.parse(args.platform) if args.platform else None
    return StoredImage.open_(store.blobs, record.descriptor, platform), record.name


def weight_cells(weight: Weight) -> tuple[str, str]:
    """Return a weight as two cells, uncompressed and compressed."""
    compressed = _UNKNOWN if weight.compressed is None else human_size(weight.compressed)
    return human_size(weight.uncompressed), compressed


def size_table(size: ImageSize, *, whole: bool) -> str:
    """Return the table of an image's layers, bottom first, and of its largest files."""
    rows: list[tuple[str, ...]] = [("LAYER", "SIZE", "COMPRESSED", "FILES", "CREATED BY")]
    for number, layer in enumerate(size.layers, 1):
        text = printable(layer.created_by)
        if not whole and len(text) > _INSTRUCTION:
            text = text[: _INSTRUCTION - 1] + "…"
        rows.append((str(number), *weight_cells(layer.weight), str(layer.files), text))
    files = sum(layer.files for layer in size.layers)
    rows.append(("total", *weight_cells(size.total), str(files), ""))
    text = table(rows, right=(1, 2, 3))
    if size.largest:
        from castoff.fs.entry import display

        named = [(human_size(file.size), str(file.layer + 1), "/" + display(file.path)) for file in size.largest]
        text += "\n" + table([("SIZE", "LAYER", "LARGEST FILES"), *named], right=(0, 1))
    return text


def size_document(name: str, image_id: str, size: ImageSize) -> dict[str, Any]:
    """Return what ``--format json`` prints."""
    from castoff.fs.entry import display

    return {
        "Name": name,
        "Id": image_id,
        "Size": size.total.uncompressed,
        "CompressedSize": size.total.compressed,
        "Layers": [
            {
                "Digest": str(layer.digest),
                "DiffId": str(layer.diff_id),
                "CreatedBy": layer.created_by,
                "Size": layer.weight.uncompressed,
                "CompressedSize": layer.weight.compressed,
                "Files": layer.files,
                "ContentSize": layer.content,
            }
            for layer in size.layers
        ],
        "LargestFiles": [
            {"Path": "/" + display(file.path), "Size": file.size, "Layer": file.layer} for file in size.largest
        ],
    }
