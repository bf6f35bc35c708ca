"""castoff doctor: what this machine can do, and what to do about the rest."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from typing import TYPE_CHECKING

from castoff.cli.root import store_root
from castoff.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from castoff.cli.parser import Parser
    from castoff.sandbox.probe import Fact

EXIT_LACKING = 4
_TIERS = {
    "root": "as root",
    "subuid": "in a user namespace, with a range of ids",
    "single": "in a user namespace with one id, other owners being kept in tables",
    "chroot": "in a changed root, without namespaces; castoff run does not work",
    "none": "builds without RUN work; RUN and castoff run do not",
}


def add_arguments(parser: Parser) -> None:
    """Declare the options of `castoff doctor`."""
    parser.one("--format", metavar="FORM", text="text or json", default="text")
    parser.flag("--repair", text="with --store: remove what is damaged, so that the next build makes it again")
    parser.flag("--store", text="look the store over instead: every blob, and that all of it agrees")


def run(args: Namespace) -> int:
    """Print what was found; return 0, 4 where something is lacking that is needed, or 6 for a damaged store."""
    if args.format not in ("text", "json"):
        raise UsageError(f"--format has no form {args.format!r}", hint="there are text and json")
    if args.repair and not args.store:
        raise UsageError("--repair goes with --store", hint="castoff doctor --store --repair")
    if args.store:
        from castoff.cli.doctor_store import check

        return check(args, repair=args.repair)
    from castoff import __version__
    from castoff.sandbox.probe import probe

    store = store_root(args.root, os.environ)
    tier, facts = probe(store, os.environ.get("CASTOFF_USERNS", ""))
    if not all(fact.ok for fact in facts if fact.needed):
        tier = "none"
    facts += _tools()
    if args.format == "json":
        value = {
            "Version": __version__,
            "Python": platform.python_version(),
            "Store": store,
            "Tier": tier,
            "Facts": [
                {"Feature": f.feature, "Ok": f.ok, "Fact": f.fact, "Remedy": f.remedy, "Needed": f.needed}
                for f in facts
            ],
        }
        sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(f"castoff {__version__}, Python {platform.python_version()}, store {store}\n\n")
        sys.stdout.write(report(facts) + f"\nRUN: {_TIERS[tier]}\n")
    return 0 if all(fact.ok for fact in facts if fact.needed) else EXIT_LACKING


def report(facts: Sequence[Fact]) -> str:
    """Return one line for each fact, and below it what to do where something is lacking."""
    width = max((len(fact.feature) for fact in facts), default=0)
    lines = []
    for fact in facts:
        mark = "ok     " if fact.ok else "LACKING" if fact.needed else "without"
        lines.append(f"{mark}  {fact.feature:<{width}}  {fact.fact}\n")
        if fact.remedy and not fact.ok:
            lines.append(f"{'':{width + 11}}→ {fact.remedy}\n")
    return "".join(lines)


def _tools() -> list[Fact]:
    """Return what the verbs want beside the sandbox: encoders of layers, and what verifies package archives."""
    from importlib.util import find_spec

    from castoff.sandbox.probe import Fact

    facts = []
    for module, name in (("isal", "isal"), ("zlib_ng", "zlib-ng"), ("zstandard", "zstandard")):
        ok = find_spec(module) is not None
        found = "installed" if ok else "not installed"
        facts.append(Fact(f"encoder {name}", ok, found, f"pip install {name}"))
    path = shutil.which("gpgv")
    remedy = "apt-get install gpgv; castoff base needs it"
    facts.append(Fact("gpgv", path is not None, path or "not installed", remedy, needed=False))
    return facts
