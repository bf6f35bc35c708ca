"""castoff context ls: lists what a build context holds, and what its ignore file leaves out, and why."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

from castoff.cli.sizes import human_size
from castoff.cli.table import table
from castoff.errors import ContextError, UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from castoff.cli.parser import Parser
    from castoff.context.survey import Survey


def add_arguments(parser: Parser) -> None:
    """Declare the options of `castoff context ls`."""
    parser.add_argument("context", nargs="?", metavar="PATH", default=".", help="folder of the build context")
    parser.flag("--excluded", text="list what is left out instead, and the pattern that decided it")
    parser.one("-f", "--file", metavar="FILE", text="the Dockerfile, which may have an ignore file of its own")
    parser.one("--format", metavar="FORM", text="table or json", default="table")


def run(args: Namespace) -> int:
    """List, and return the exit code."""
    if args.format not in ("table", "json"):
        raise UsageError(f"--format has no form {args.format!r}", hint="there are table and json")
    if not os.path.isdir(args.context):
        raise ContextError(f"there is no folder {args.context!r} to be the build context")
    from castoff.context.survey import survey

    found = survey(args.context, args.file or os.path.join(args.context, "Dockerfile"))
    if args.format == "json":
        sys.stdout.write(json.dumps(context_document(args.context, found), ensure_ascii=False) + "\n")
    elif args.excluded:
        sys.stdout.write(exclusion_table(found))
    else:
        sys.stdout.write(entry_table(found))
    return 0


def entry_table(found: Survey) -> str:
    """Return the table of what the context holds; directories are not listed, their files are."""
    shown = [entry for entry in found.entries if entry.type != "directory"]
    rows = [("SIZE", "PATH")]
    rows += [(human_size(entry.size) if entry.type == "file" else entry.type, entry.path) for entry in shown]
    files = sum(1 for entry in shown if entry.type == "file")
    text = f"\n{_count(files, 'file')}, {human_size(found.size)} in the context"
    if found.exclusions:
        text += f"; {len(found.exclusions)} left out ({human_size(_excluded_size(found))}): see --excluded"
    return table(rows) + text + "\n"


def exclusion_table(found: Survey) -> str:
    """Return the table of what is left out, each with the place and the text of the pattern that decided."""
    if not found.exclusions:
        return "nothing is left out of the context\n"
    name = os.path.basename(found.ignore_file)
    rows = [("SIZE", "RULE", "PATTERN", "PATH")]
    for item in found.exclusions:
        rule = f"{name}:{item.line}" if item.line else "-"
        pattern = item.pattern or "(sockets can't be copied)"
        path = item.path + ("/" if item.type == "directory" else "")
        rows.append((human_size(item.size), rule, pattern, path))
    return table(rows) + f"\n{len(found.exclusions)} left out, {human_size(_excluded_size(found))}\n"


def _excluded_size(found: Survey) -> int:
    """Return the bytes that are left out; what is listed below an excluded directory counts once."""
    total, folder = 0, ""
    for item in found.exclusions:
        if folder and item.path.startswith(folder):
            continue
        total += item.size
        if item.type == "directory":
            folder = item.path + "/"
    return total


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def context_document(context: str, found: Survey) -> dict[str, Any]:
    """Return the JSON document of a build context, with what it holds and what is left out."""
    return {
        "context": os.path.abspath(context),
        "ignoreFile": found.ignore_file or None,
        "size": found.size,
        "entries": [
            {"path": entry.path, "type": entry.type, "size": entry.size, "mode": f"{entry.mode:04o}"}
            for entry in found.entries
        ],
        "excluded": [
            {
                "path": item.path,
                "type": item.type,
                "size": item.size,
                "rule": {"line": item.line, "pattern": item.pattern} if item.line else None,
            }
            for item in found.exclusions
        ],
    }
