"""castoff ps: lists containers."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

from castoff.cli.container_view import SHORT, container_store, ports_text, status_text, timestamp
from castoff.cli.inspect import check_template, fill_template
from castoff.cli.table import ago, table
from castoff.errors import CastoffError, UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from castoff.cli.parser import Parser
    from castoff.containers.record import ContainerRecord, ContainerState

_COMMAND = 20
_FILTERS = ("name", "status", "id", "label", "health")


def add_arguments(parser: Parser) -> None:
    """Declare the options of `castoff ps`."""
    parser.flag("-a", "--all", text="show those that do not run, too")
    parser.many("-f", "--filter", metavar="KEY=VALUE", text=f"show only those that match: {', '.join(_FILTERS)}")
    parser.one("--format", metavar="FORM", text="table, json (one object a line), or a template", default="table")
    parser.flag("--no-trunc", text="show ids and commands whole")
    parser.flag("-q", "--quiet", text="show ids only")


def run(args: Namespace) -> int:
    """List, and return the exit code."""
    if args.format not in ("table", "json"):
        check_template(args.format)
    filters = [_filter(text) for text in args.filter]
    lines: list[tuple[ContainerRecord, ContainerState]] = []
    for container in container_store(args):
        try:
            record, state = container.record(), container.state()
        except CastoffError:
            continue  # it has just been removed, or is damaged: `rm` says so
        if (args.all or state.is_live or any(key == "status" for key, _ in filters)) and all(
            _matches(key, value, record, state) for key, value in filters
        ):
            lines.append((record, state))
    lines.sort(key=lambda line: -line[0].created)
    if args.quiet:
        sys.stdout.writelines((record.id if args.no_trunc else record.id[:SHORT]) + "\n" for record, _ in lines)
    elif args.format == "table":
        sys.stdout.write(_table(lines, whole=args.no_trunc))
    else:
        for record, state in lines:
            value = _as_json(record, state, whole=args.no_trunc)
            text = json.dumps(value, ensure_ascii=False) if args.format == "json" else fill_template(args.format, value)
            sys.stdout.write(text + "\n")
    return 0


def _filter(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or key not in _FILTERS:
        raise UsageError(f"--filter knows no {text!r}", hint=f"there are {', '.join(f'{name}=…' for name in _FILTERS)}")
    return key, value


def _matches(key: str, value: str, record: ContainerRecord, state: ContainerState) -> bool:
    if key == "label":
        name, equals, wanted = value.partition("=")
        labels = dict(record.labels)
        return name in labels and (not equals or labels[name] == wanted)
    if key == "name":
        return value in record.name
    if key == "id":
        return record.id.startswith(value)
    return value == (state.status if key == "status" else state.health or "none")


def _command(record: ContainerRecord, whole: bool) -> str:
    text = " ".join(record.spec.argv)
    text = "".join(c if c.isprintable() else "?" for c in text)
    return f'"{text if whole or len(text) <= _COMMAND else text[: _COMMAND - 1] + "…"}"'


def _table(lines: list[tuple[ContainerRecord, ContainerState]], *, whole: bool) -> str:
    rows = [["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]]
    rows += [
        [
            record.id if whole else record.id[:SHORT],
            record.image,
            _command(record, whole),
            ago(time.time() - record.created),
            status_text(state),
            ports_text(state.ports),
            record.name,
        ]
        for record, state in lines
    ]
    return table(rows)


def _as_json(record: ContainerRecord, state: ContainerState, *, whole: bool) -> dict[str, Any]:
    return {
        "Command": _command(record, whole),
        "CreatedAt": timestamp(record.created),
        "ExitCode": state.exit_code,
        "Health": state.health,
        "ID": record.id if whole else record.id[:SHORT],
        "Image": record.image,
        "Labels": ",".join(f"{key}={value}" for key, value in record.labels),
        "Names": record.name,
        "Pid": state.pid,
        "Ports": ports_text(state.ports),
        "RunningFor": ago(time.time() - record.created),
        "State": state.status,
        "Status": status_text(state),
    }
