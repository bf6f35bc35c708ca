"""castoff lock: writes down what the names in a Dockerfile stand for."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

from castoff.cli import values
from castoff.cli.root import store_root
from castoff.errors import ExportError, UsageError
from castoff.events import NullObserver

if TYPE_CHECKING:
    from argparse import Namespace

    from castoff.cli.parser import Parser
    from castoff.events import WarningEvent

_FORMS = ("text", "json")


def add_arguments(parser: Parser) -> None:
    """Declare the options of `castoff lock`."""
    parser.add_argument("path", metavar="PATH", nargs="?", default=".", help="folder of the Dockerfile (default: .)")
    parser.many("--build-arg", metavar="KEY=VALUE", text="set an ARG (KEY alone takes it from the environment)")
    parser.many("--build-context", metavar="NAME=VALUE", text="what stands for a name, which is then not locked")
    parser.flag("--check", text="write nothing; exit with 1 where the lock is not up to date")
    parser.one("-f", "--file", metavar="FILE", text="the Dockerfile (default: PATH/Dockerfile)")
    parser.one("--format", metavar="FORM", text="text or json", default="text")
    parser.many("--platform", metavar="PLATFORM", text="lock for this platform too, such as linux/arm64")
    parser.one("--target", metavar="STAGE", text="lock this stage and what it needs (default: every stage)")
    parser.flag("--update", text="ask anew what every name stands for")


class _Warnings(NullObserver):
    """Prints warnings."""

    def warning(self, event: WarningEvent) -> None:
        """Print a warning."""
        sys.stderr.write(f"WARNING: {event.message}\n")


def run(args: Namespace) -> int:
    """Write the lock, print what changed, and return the exit code."""
    from castoff.cli.build_request import find_dockerfile
    from castoff.locking import lock_path, make_lock, read_lock
    from castoff.oci.platform import Platform
    from castoff.request import BuildRequest

    if args.format not in _FORMS:
        raise UsageError(f"--format has no form {args.format!r}", hint=f"there are {', '.join(_FORMS)}")
    source = find_dockerfile(args.path, args.file)
    platforms = values.split_commas(args.platform)
    for platform in platforms:
        Platform.parse(platform)
    request = BuildRequest(
        store=store_root(args.root, os.environ),
        context=source.context,
        dockerfile=source.path,
        dockerfile_data=source.data,
        target=args.target,
        build_args=tuple(values.optional_pair(text, "--build-arg") for text in args.build_arg),
        build_contexts=tuple(values.pair(text, "--build-context") for text in args.build_context),
        platforms=platforms,
        environment=tuple(os.environ.items()),
        pull="always" if args.update else "missing",
    )
    path = lock_path(request)
    before = read_lock(path)
    after = make_lock(request, None if args.update else before, _Warnings())
    old = before.entries() if before is not None else {}
    new = after.entries()
    _report(path, old, new, args.format)
    if before is not None and old == new:
        return 0
    if args.check:
        return 1
    _write(path, after.to_bytes())
    return 0


def _report(path: str, old: dict[str, str], new: dict[str, str], form: str) -> None:
    """Print what is added, changed and gone."""
    names = sorted({*old, *new})
    changed = [(name, old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)]
    if form == "json":
        value = {"lock": path, "changes": [{"name": name, "from": was, "to": now} for name, was, now in changed]}
        sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
        return
    for name, was, now in changed:
        if was is None:
            sys.stdout.write(f"+ {name} {now}\n")
        elif now is None:
            sys.stdout.write(f"- {name} {was}\n")
        else:
            sys.stdout.write(f"~ {name} {was} -> {now}\n")
    if not changed:
        sys.stdout.write(f"{path} is up to date: {len(new)} locked\n")


def _write(path: str, data: bytes) -> None:
    """Write the lock whole or not at all.

    Raises:
        ExportError: it can't be written.
    """
    from castoff.store.replacement import replace_file

    try:
        replace_file(os.path.abspath(path), data)
    except OSError as error:
        raise ExportError(f"{path} can't be written: {(error.strerror or str(error)).lower()}") from error
