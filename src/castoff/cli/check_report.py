"""The report of a check: as text and JSON the way `docker build --check` gives them, and as SARIF 2.1.0."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

from castoff.cli.errors import render_source
from castoff.dockerfile.lint.findings import violation
from castoff.dockerfile.lint.rules import RULES

if TYPE_CHECKING:
    from castoff.checks import CheckReport
    from castoff.errors import CastoffError
    from castoff.location import SourceRange

EXIT_FINDINGS = 1
FORMS = ("text", "json", "sarif")
_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def refusal(report: CheckReport) -> CastoffError | None:
    """Return what a build would be refused for, the findings included where the Dockerfile asks for that."""
    return report.error or (violation(report.findings) if report.fails else None)


def exit_code(report: CheckReport) -> int:
    """Return 3 (or the error's own code) for a Dockerfile that can't be built, 1 for findings, else 0."""
    if report.error is not None:
        return report.error.exit_code
    return EXIT_FINDINGS if report.findings else 0


def as_text(report: CheckReport) -> str:
    """Return the findings with the lines that they are about; the error is left to the caller."""
    count = len(report.findings)
    if not count:
        return "" if report.error is not None else "Check complete, no warnings found.\n"
    counted = "1 warning has" if count == 1 else f"{count} warnings have"
    text = f"Check complete, {counted} been found!\n"
    for finding in report.findings:
        page = f" - {finding.rule.url}" if finding.rule.url else ""
        text += f"\nWARNING: {finding.rule.name}{page}\n{finding.detail}\n"
        text += render_source(report.data, finding.location)
    return text


def as_json(report: CheckReport) -> str:
    """Return the report as BuildKit's JSON."""
    value: dict[str, Any] = {
        "warnings": [
            {
                "ruleName": finding.rule.name,
                "description": finding.rule.description,
                **({"url": finding.rule.url} if finding.rule.url else {}),
                "detail": finding.detail,
                "location": location_json(finding.location),
            }
            for finding in report.findings
        ],
        "sources": [
            {
                "filename": report.filename,
                "data": base64.b64encode(report.data).decode("ascii"),
                "language": "Dockerfile",
            }
        ],
    }
    error = refusal(report)
    if error is not None:
        value["buildError"] = {"message": _with_hint(error), "location": location_json(error.location)}
    return json.dumps(value, indent=2) + "\n"


def as_sarif(report: CheckReport, uri: str) -> str:
    """Return the report as SARIF; `uri` names the Dockerfile."""
    from castoff import __version__

    level = "error" if report.fails else "warning"
    results = [_result(uri, finding.rule.name, level, finding.detail, finding.location) for finding in report.findings]
    if report.error is not None:
        name = type(report.error).__name__
        results.append(_result(uri, name, "error", _with_hint(report.error), report.error.location))
    rules = [
        {
            "id": rule.name,
            "shortDescription": {"text": rule.description},
            "defaultConfiguration": {"level": "warning", "enabled": not rule.experimental},
            **({"helpUri": rule.url} if rule.url else {}),
        }
        for rule in RULES
    ]
    driver = {"name": "castoff", "version": __version__, "rules": rules}
    run = {"tool": {"driver": driver}, "results": results, "columnKind": "unicodeCodePoints"}
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def location_json(location: SourceRange | None) -> dict[str, Any]:
    """Return a place as BuildKit's JSON; columns count from 0 and are left out where they are 0 or not known."""
    if location is None:
        return {}
    start, end = {"line": location.start_line}, {"line": location.end_line}
    if location.start_column:
        start["character"] = location.start_column
    if location.end_column:
        end["character"] = location.end_column
    return {"ranges": [{"start": start, "end": end}]}


def _with_hint(error: CastoffError) -> str:
    return f"{error.message} ({error.hint})" if error.hint else error.message


def _result(uri: str, rule: str, level: str, text: str, location: SourceRange | None) -> dict[str, Any]:
    place: dict[str, Any] = {"artifactLocation": {"uri": uri}}
    if location is not None:
        region = {"startLine": location.start_line, "endLine": location.end_line}
        if location.start_column is not None:
            region["startColumn"] = location.start_column + 1
        if location.end_column is not None:
            region["endColumn"] = location.end_column + 1
        place["region"] = region
    return {
        "ruleId": rule,
        "level": level,
        "message": {"text": text},
        "locations": [{"physicalLocation": place}],
    }
