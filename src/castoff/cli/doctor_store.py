"""castoff doctor --store: whether the store is whole, and what to do where it is not."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from castoff.cli.session import enter_namespace, open_store
from castoff.cli.sizes import human_size
from castoff.errors import StoreError, UnsupportedError

if TYPE_CHECKING:
    from argparse import Namespace

    from castoff.ops.storecheck import StoreReport


def check(args: Namespace, *, repair: bool) -> int:
    """Look the store over, repair it if that is asked for, print what was found, and return the exit code.

    Raises:
        StoreError: there is no store, it can't be read, or is in use while it is to be repaired.
    """
    store = open_store(args, create=False)
    removed: list[str] = []
    if repair:
        from castoff.ops.storerepair import repair_store

        with suppress(UnsupportedError):  # what can't be removed without one is named by the repair
            enter_namespace(os.environ)  # files of subordinate ids can be removed only where they are mapped
        with store:
            report, removed = repair_store(store)
    else:
        from castoff.ops.storecheck import check_store

        report = check_store(store)
    form = as_json if args.format == "json" else as_text
    sys.stdout.write(form(report, store.root, removed))
    return StoreError.exit_code if report.problems else 0


def as_text(report: StoreReport, root: str, removed: list[str]) -> str:
    """Return what was found, one line for each thing that is wrong, and what to do."""
    lines = [f"store {root}\n"]
    lines.append(
        f"{report.blobs} blobs ({human_size(report.size)}), {report.images} images, {report.snapshots} snapshots and "
        f"{report.records} cache records were read\n"
    )
    lines += [f"removed    {path}\n" for path in removed]
    for problem in report.problems:
        lines.append(f"DAMAGED    {problem.part} {problem.name} {problem.text}\n")
        remedy = problem.remedy or "castoff doctor --store --repair removes it; what needs it is made again"
        lines.append(f"           → {remedy}\n")
    lines += [
        f"left over  {path}, of a castoff that was killed: no harm; --repair removes it\n" for path in report.leftovers
    ]
    lines.append("the store is damaged\n" if report.problems else "the store is whole\n")
    return "".join(lines)


def as_json(report: StoreReport, root: str, removed: list[str]) -> str:
    """Return what was found as one JSON object on a line."""
    value: dict[str, Any] = {
        "Store": root,
        "Whole": not report.problems,
        "Blobs": report.blobs,
        "Size": report.size,
        "Images": report.images,
        "Snapshots": report.snapshots,
        "Records": report.records,
        "Problems": [
            {"Part": each.part, "Name": each.name, "Problem": each.text, "Remedy": each.remedy}
            for each in report.problems
        ],
        "Leftovers": report.leftovers,
        "Removed": removed,
    }
    return json.dumps(value, ensure_ascii=False) + "\n"
