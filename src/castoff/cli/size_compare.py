"""castoff size --compare: two images side by side."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from castoff.cli.session import open_store
from castoff.cli.sizes import human_size
from castoff.cli.table import table
from castoff.fs.entry import display

if TYPE_CHECKING:
    from argparse import Namespace

    from castoff.inspect.compare import Comparison
    from castoff.inspect.size import ImageSize


def run_compare(args: Namespace) -> int:
    """Print the comparison, and return the exit code."""
    from castoff.cli.size import find_image
    from castoff.inspect.compare import compare
    from castoff.store.images import NONE

    with open_store(args, create=False) as store:
        before, first = find_image(store, args)
        first = args.image if first == NONE else first
        args.image = args.other
        after, second = find_image(store, args)
        second = args.image if second == NONE else second
        comparison = compare(before, after, int(args.largest))
    if args.format == "json":
        sys.stdout.write(compare_document(first, second, comparison))
    else:
        sys.stdout.write(compare_table(first, second, comparison))
    return 0


def signed_size(difference: int) -> str:
    """Return a difference in bytes with its sign, in decimal units."""
    return f"{'-' if difference < 0 else '+'}{human_size(abs(difference))}" if difference else "0B"


def _rows(size: ImageSize) -> tuple[tuple[str, int], ...]:
    return (
        ("size", size.total.uncompressed),
        ("compressed", size.total.compressed or 0),
        ("entries", sum(layer.files for layer in size.layers)),
        ("layers", len(size.layers)),
    )


def compare_table(first: str, second: str, comparison: Comparison) -> str:
    """Return two tables: what the images weigh, and the files that differ most."""
    rows: list[tuple[str, ...]] = [("", first, second, "CHANGE", "TIMES")]
    for (name, before), (_name, after) in zip(_rows(comparison.before), _rows(comparison.after), strict=True):
        in_bytes = name in ("size", "compressed")
        shown = [human_size(value) if in_bytes else str(value) for value in (before, after)]
        change = signed_size(after - before) if in_bytes else f"{after - before:+d}"
        rows.append((name, *shown, change, f"{after / before:.2f}" if before else "-"))
    text = table(rows, right=(1, 2, 3, 4))
    text += (
        f"\nBoth have {comparison.shared} layers in common, {human_size(comparison.shared_compressed)} compressed.\n"
    )
    if comparison.changes:
        cells = [
            (signed_size(change.difference), _cell(change.before), _cell(change.after), "/" + display(change.path))
            for change in comparison.changes
        ]
        text += "\n" + table([("CHANGE", "BEFORE", "AFTER", "FILE"), *cells], right=(0, 1, 2))
        left = comparison.changed - len(comparison.changes)
        text += f"and {left} more\n" if left else ""
    return text


def _cell(size: int | None) -> str:
    return "-" if size is None else human_size(size)


def compare_document(first: str, second: str, comparison: Comparison) -> str:
    """Return what ``--format json`` prints."""
    images = [
        {"Name": name, **{key.capitalize(): value for key, value in _rows(size)}}
        for name, size in ((first, comparison.before), (second, comparison.after))
    ]
    value = {
        "Images": images,
        "SharedLayers": comparison.shared,
        "SharedCompressed": comparison.shared_compressed,
        "ChangedFiles": comparison.changed,
        "Changes": [
            {"Path": "/" + display(change.path), "Before": change.before, "After": change.after}
            for change in comparison.changes
        ],
    }
    return json.dumps(value, ensure_ascii=False) + "\n"
