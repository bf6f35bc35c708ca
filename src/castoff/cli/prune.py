"""castoff prune: frees space in the store."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from typing import TYPE_CHECKING

from castoff.cli.session import enter_namespace, open_store
from castoff.cli.sizes import human_size
from castoff.cli.table import table
from castoff.cli.values import byte_size
from castoff.errors import UnsupportedError, UsageError

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from castoff.cli.parser import Parser
    from castoff.ops.prune import PruneReport, PruneRequest

KEEP_VARIABLE = "CASTOFF_KEEP_STORAGE"
"""The variable that has every build that does something end with a pruning of the build cache to that size."""

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d*)?(?:ns|us|µs|ms|s|m|h|d))+")
_PART = re.compile(r"(\d+(?:\.\d*)?)(ns|us|µs|ms|s|m|h|d)")
_KINDS = (
    ("image", "images"),
    ("snapshot", "snapshots"),
    ("cache-mount", "cache mounts"),
    ("layer", "cached layers"),
    ("download", "downloads and notes"),
    ("blob", "blobs of images"),
    ("record", "cache records"),
)
_PROMPT = """\
This removes
  - images without a name
  - the build cache{limits}{downloads}
Named images, containers and volumes stay.
Go on? [y/N] """


def add_arguments(parser: Parser) -> None:
    """Declare the options of `castoff prune`."""
    parser.flag("-a", "--all", text="also downloads, assembled bases' notes, and unpacked layers of named images")
    parser.many("--filter", metavar="until=TIME", text="only what was last used before: 24h ago, or a time")
    parser.flag("-f", "--force", text="do not ask")
    parser.one("--format", metavar="FORM", text="table or json", default="table")
    parser.one("--keep-storage", metavar="SIZE", text="keep this much of the build cache, the last used of it")


def run(args: Namespace) -> int:
    """Remove, and return the exit code."""
    if args.format not in ("table", "json"):
        raise UsageError(f"--format has no form {args.format!r}", hint="there are table and json")
    from castoff.ops.prune import PruneRequest

    before = _until(args.filter, time.time())
    keep = byte_size(args.keep_storage, "--keep-storage") if args.keep_storage else None
    request = PruneRequest(args.all, keep, before)
    if not args.force and not _agreed(request):
        return 0
    report = prune_store(args, request)
    if report.deferred:
        sys.stderr.write("note: another castoff is using the store; nothing was removed\n")
    for path in report.refused:
        sys.stderr.write(f"warning: {path} can't be removed\n")
    sys.stdout.write(as_json(report) if args.format == "json" else as_table(report))
    return 0


def prune_store(args: Namespace, request: PruneRequest) -> PruneReport:
    """Prune the store that the arguments and the environment name.

    Raises:
        CastoffError: it can't be opened, read or written.
    """
    from castoff.ops.prune import prune
    from castoff.ops.tierparts import open_snapshots
    from castoff.sandbox.userns import current_tier

    store = open_store(args, create=False)
    try:
        tier = enter_namespace(os.environ)  # files of subordinate ids can be removed only where they are mapped
    except UnsupportedError:
        tier = current_tier()
    with store:
        return prune(store, open_snapshots(store, store.session(), tier), request)


def _agreed(request: PruneRequest) -> bool:
    if not sys.stdin.isatty():
        raise UsageError("castoff prune asks before it removes, and there is nobody to ask", hint="give --force")
    limits = f", but for the last used {human_size(request.keep_bytes)}" if request.keep_bytes is not None else ""
    if request.before is not None:
        limits += ", of it what was not used since " + time.strftime("%Y-%m-%d %H:%M", time.localtime(request.before))
    downloads = "\n  - downloads, and unpacked layers of named images" if request.everything else ""
    sys.stderr.write(_PROMPT.format(limits=limits, downloads=downloads))
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _until(filters: Sequence[str], now: float) -> float | None:
    """Return the time that ``--filter until=…`` means; None without one."""
    before: float | None = None
    for text in filters:
        key, _, value = text.partition("=")
        if key != "until":
            raise UsageError(f"--filter has no key {key!r}", hint="there is until, as in until=24h")
        before = moment(value, now)
    return before


def moment(text: str, now: float) -> float:
    """Return the time that a length of time before now (``24h``, ``1h30m``), RFC 3339 or seconds of the epoch mean.

    Raises:
        UsageError: it is none of these.
    """
    if _DURATION.fullmatch(text):
        return now - sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    if re.fullmatch(r"\d{9,11}(\.\d+)?", text):
        return float(text)
    from castoff.store.images import parse_time

    found = parse_time(text)
    if not found:
        raise UsageError(f"--filter until wants a time such as 24h or 2026-01-31T12:00:00Z, not {text!r}")
    return found


def as_table(report: PruneReport) -> str:
    """Return what was removed, by kind, for people."""
    if not report.removed:
        return f"nothing to remove; the build cache has {human_size(report.kept)}\n"
    rows = [("REMOVED", "NUMBER", "FREED")]
    for kind, name in _KINDS:
        items = [item for item in report.removed if item.kind == kind]
        if items:
            rows.append((name, str(len(items)), human_size(sum(item.size for item in items))))
    rows.append(("total", str(len(report.removed)), human_size(report.freed)))
    return table(rows, right=(1, 2)) + f"The build cache has {human_size(report.kept)} left.\n"


def as_json(report: PruneReport) -> str:
    """Return what was removed as one JSON object."""
    value = {
        "Removed": [{"Kind": item.kind, "Name": item.name, "Size": item.size} for item in report.removed],
        "Freed": report.freed,
        "Kept": report.kept,
        "Refused": list(report.refused),
        "Deferred": report.deferred,
    }
    return json.dumps(value, ensure_ascii=False) + "\n"


def keep_limit(args: Namespace, environ: dict[str, str] | os._Environ[str]) -> None:
    """Prune the build cache to what CASTOFF_KEEP_STORAGE allows; does nothing where it is not set.

    Raises:
        UsageError: the variable is no size.
        StoreError: the store can't be read or written.
    """
    text = environ.get(KEEP_VARIABLE, "")
    if text:
        from castoff.ops.prune import PruneRequest

        prune_store(args, PruneRequest(keep_bytes=byte_size(text, KEEP_VARIABLE)))
