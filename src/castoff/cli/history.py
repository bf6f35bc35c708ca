"""castoff history: the instructions that made an image, newest first."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

from castoff.cli.progress.state import printable
from castoff.cli.session import open_store
from castoff.cli.sizes import human_size
from castoff.cli.table import ago, table
from castoff.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from castoff.cli.parser import Parser
    from castoff.inspect.history import HistoryRow

_SHORT = 45


def add_arguments(parser: Parser) -> None:
    """Declare the options of `castoff history`."""
    parser.add_argument("image", metavar="IMAGE", help="reference or id of an image in the store")
    parser.one("--format", metavar="FORM", text="table, or json: one object a line", default="table")
    parser.flag("-H", "--human", text="sizes and times in words (the default; =false for exact ones)", default=True)
    parser.flag("--no-trunc", text="show instructions and ids whole")
    parser.flag("-q", "--quiet", text="show the image id only")


def run(args: Namespace) -> int:
    """Print, and return the exit code."""
    if args.format not in ("table", "json"):
        raise UsageError(f"--format has no form {args.format!r}", hint="there are table and json")
    from castoff.image.image import StoredImage
    from castoff.inspect.history import history

    with open_store(args, create=False) as store:
        record = store.images.find(args.image)
        rows = history(StoredImage.open_(store.blobs, record.descriptor))
    if args.quiet:
        sys.stdout.writelines(_identity(row, whole=args.no_trunc) + "\n" for row in rows)
    elif args.format == "json":
        sys.stdout.writelines(json.dumps(row.to_json(), ensure_ascii=False) + "\n" for row in rows)
    else:
        head = ("IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT")
        sys.stdout.write(table([head, *(_cells(row, human=args.human, whole=args.no_trunc) for row in rows)]))
    return 0


def _identity(row: HistoryRow, *, whole: bool) -> str:
    return row.id if whole or not row.id.startswith("sha256:") else row.id[7:19]


def _cells(row: HistoryRow, *, human: bool, whole: bool) -> tuple[str, ...]:
    from castoff.store.images import parse_time

    text = printable(row.created_by)
    if not whole and len(text) > _SHORT:
        text = text[: _SHORT - 1] + "…"
    moment = parse_time(row.created)
    when = (ago(time.time() - moment) if human else row.created) if moment else "N/A"
    size = human_size(row.size) if human else str(row.size)
    return _identity(row, whole=whole), when, text, size, printable(row.comment)
