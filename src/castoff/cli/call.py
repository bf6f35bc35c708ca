"""``castoff build --call`` and ``--check``: what a Dockerfile says, without a build."""

from __future__ import annotations

import base64
import json
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from castoff.cli import check_report
from castoff.cli.errors import report as report_error
from castoff.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from castoff.dockerfile.instructions import From
    from castoff.dockerfile.lint.outline import Outline
    from castoff.request import BuildRequest

METHODS = ("build", "check", "outline", "targets")
_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")


@dataclass(frozen=True, slots=True)
class Call:
    """What ``--call`` asks for: a method, the form of its answer, and whether findings leave the exit code at 0."""

    method: str = "build"
    form: str = "text"
    ignore_status: bool = False

    @classmethod
    def parse(cls, text: str) -> Call:
        """Read ``METHOD[,format=FORM][,ignorestatus=true]``.

        Raises:
            UsageError: it is not well formed.
        """
        method, form, ignore = "", "text", False
        for part in text.split(",") if text else ():
            key, equals, value = part.partition("=")
            if not equals and not method:
                method = "check" if key == "lint" else key
            elif key == "format":
                form = value
            elif key == "ignorestatus" and value in _TRUE + _FALSE:
                ignore = value in _TRUE
            else:
                raise UsageError(f"--call can't read {part!r}", hint="write --call=check,format=json")
        method = method or "build"
        if method not in METHODS:
            raise UsageError(f"--call has no method {method!r}", hint=f"there are {', '.join(METHODS)}")
        forms = check_report.FORMS if method == "check" else check_report.FORMS[:2]
        if form not in forms:
            raise UsageError(f"--call={method} has no format {form!r}", hint=f"there are {', '.join(forms)}")
        return cls(method, form, ignore)


def answer(call: Call, request: BuildRequest) -> int:
    """Print what is asked for, and return the exit code.

    Raises:
        CastoffError: for an outline or targets: the Dockerfile is not valid.
    """
    if call.method == "check":
        code = check(request, call.form)
        return 0 if call.ignore_status and code == check_report.EXIT_FINDINGS else code
    from castoff.checks import outline_of, targets_of

    if call.method == "outline":
        outline, data = outline_of(request)
        text = outline_json(outline, data) if call.form == "json" else outline_text(outline)
    else:
        heads, data = targets_of(request)
        text = targets_json(heads, data) if call.form == "json" else targets_text(heads)
    sys.stdout.write(text)
    return 0


def check(request: BuildRequest, form: str) -> int:
    """Check a Dockerfile, print the report in a form, and return the exit code."""
    from castoff.checks import check_build

    report = check_build(request)
    if form == "json":
        sys.stdout.write(check_report.as_json(report))
        return check_report.exit_code(report)
    if form == "sarif":
        path = os.path.relpath(request.dockerfile) if request.dockerfile else report.filename
        sys.stdout.write(check_report.as_sarif(report, quote(path)))
        return check_report.exit_code(report)
    sys.stdout.write(check_report.as_text(report))
    sys.stdout.flush()
    for name in report.unknown:
        sys.stderr.write(f"note: the base {name} is not in the store, so the variables that it sets are not known\n")
    error = check_report.refusal(report)
    if error is not None:
        report_error(error, sys.stderr, os.environ, lambda _name: report.data)
    return check_report.exit_code(report)


def targets_text(heads: Sequence[From]) -> str:
    """Return the stages as a table."""
    rows = [("TARGET", "DESCRIPTION")]
    for head in heads:
        default = "(default)" if head is heads[-1] else ""
        rows.append((" ".join(filter(None, (head.name, default))), head.description))
    return _table(rows, 1)


def targets_json(heads: Sequence[From], data: bytes) -> str:
    """Return the stages as BuildKit's JSON."""
    targets = [
        _without_empty(
            {
                "name": head.name,
                "default": head is heads[-1],
                "description": head.description,
                "base": head.base,
                "platform": head.platform,
                "location": check_report.location_json(head.location),
            }
        )
        for head in heads
    ]
    return _json({"targets": targets, "sources": [_encoded(data)]})


def outline_text(outline: Outline) -> str:
    """Return what a target takes as tables."""
    text = ""
    if outline.name or outline.description:
        rows = [("TARGET:", outline.name or "(default)")]
        rows += [("DESCRIPTION:", outline.description)] if outline.description else []
        text += _table(rows, 1) + "\n"
    if outline.args:
        rows3 = [("BUILD ARG", "VALUE", "DESCRIPTION")]
        rows3 += [(item.name, item.value, item.description) for item in outline.args]
        text += _table(rows3, 3) + "\n"
    for title, uses in (("SECRET", outline.secrets), ("SSH", outline.ssh)):
        if uses:
            rows = [(title, "REQUIRED"), *((use.id, "true" if use.required else "") for use in uses)]
            text += _table(rows, 3) + "\n"
    return text


def outline_json(outline: Outline, data: bytes) -> str:
    """Return what a target takes as BuildKit's JSON."""
    where: Callable[[Any], dict[str, Any]] = lambda item: check_report.location_json(item.location)  # noqa: E731
    args = [
        _without_empty({"name": a.name, "description": a.description, "value": a.value, "location": where(a)})
        for a in outline.args
    ]
    uses = [
        [_without_empty({"name": use.id, "required": use.required, "location": where(use)}) for use in group]
        for group in (outline.secrets, outline.ssh)
    ]
    value = {"name": outline.name, "description": outline.description, "args": args}
    value |= {"secrets": uses[0], "ssh": uses[1], "sources": [_encoded(data)]}
    return _json(_without_empty(value))


def _without_empty(value: dict[str, Any]) -> dict[str, Any]:
    return {key: item for key, item in value.items() if item or key == "targets"}


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2) + "\n"


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _table(rows: Sequence[tuple[str, ...]], gap: int) -> str:
    """Return rows in columns; the last column is not filled up."""
    widths = [max(len(row[index]) for row in rows) + gap for index in range(len(rows[0]) - 1)]
    return "".join(
        "".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)) + row[-1] + "\n" for row in rows
    )
