"""The forms of an audit's report: text for people, JSON, and SARIF for programs that gather findings."""

from __future__ import annotations

import hashlib
import json
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from castoff.cli.progress.state import printable
from castoff.cli.sizes import human_size
from castoff.fs.entry import display
from castoff.inspect.audit.finding import RULES, Finding, Level

if TYPE_CHECKING:
    from collections.abc import Iterable

    from castoff.inspect.audit.audit import AuditReport

_SHOWN = 8
_INSTRUCTION = 90
_WIDTH = 100
_SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


@dataclass(frozen=True, slots=True)
class Subject:
    """What was audited: its name in the store, Docker's image id, the digest of the manifest."""

    name: str
    id: str
    digest: str


def as_text(subject: Subject, report: AuditReport, *, whole: bool) -> str:
    """Return the report for people: findings by rule, the remedy of each, what the image is, what it keeps."""
    out: list[str] = []
    by_rule: dict[str, list[Finding]] = {}
    for finding in report.findings:
        by_rule.setdefault(finding.rule.id, []).append(finding)
    for findings in by_rule.values():
        out += [*_rule_lines(findings, whole=whole), ""]
    out += _fact_lines(subject, report)
    kept = [
        rule
        for rule in RULES
        if rule.id not in by_rule and report.policy.level(rule) is not Level.OFF and _applies(rule.id, report)
    ]
    names = f"kept ({len(kept)} rules): " + ", ".join(rule.id for rule in kept)
    out += ["", *textwrap.wrap(names, _WIDTH, subsequent_indent="  ", break_on_hyphens=False)]
    counts = ", ".join(f"{count} {level.word}{'s' if count != 1 else ''}" for level, count in report.counts().items())
    allowed = f", {report.allowed} allowed by the policy" if report.allowed else ""
    out.append(f"{'PASSED' if report.passed else 'FAILED'}: {counts}{allowed}")
    return "\n".join(out) + "\n"


def _applies(rule: str, report: AuditReport) -> bool:
    """Tell whether a rule had anything to go by: two need a value of the policy's."""
    policy = report.policy
    if rule == "size-budget":
        return policy.budget is not None or policy.unpacked_budget is not None
    return rule != "required-user" or bool(policy.user)


def _rule_lines(findings: list[Finding], *, whole: bool) -> Iterable[str]:
    first = findings[0]
    yield f'{first.level.word} {first.rule.id}: breaks "{first.rule.title}"'
    shown = findings if whole else findings[:_SHOWN]
    for finding in shown:
        where = f"/{display(finding.path)}: " if finding.path is not None else ""
        layer = f" [layer {finding.layer + 1}]" if finding.layer is not None else ""
        yield f"  {where}{printable(finding.message)}{layer}"
    if len(shown) < len(findings):
        yield f"  and {len(findings) - len(shown)} more (--no-trunc shows all)"
    made = dict.fromkeys(printable(finding.instruction) for finding in shown if finding.instruction)
    for instruction in made:
        cut = instruction if whole or len(instruction) <= _INSTRUCTION else instruction[: _INSTRUCTION - 1] + "…"
        yield f"  made by: {cut}"
    yield f"  remedy: {first.rule.remedy}"


def _fact_lines(subject: Subject, report: AuditReport) -> list[str]:
    facts = report.facts
    start = f"{facts.entrypoint}{f' ({facts.linking})' if facts.linking else ''}" if facts.entrypoint else "nothing"
    programs = (
        f"{facts.static_programs} static, {facts.dynamic_programs} dynamic, {facts.shared_libraries} shared libraries"
    )
    rows = (
        ("image", f"{subject.name} ({subject.id.partition(':')[2][:12]}, {facts.platform})"),
        ("user", printable(facts.user) or "root (USER is not set)"),
        ("starts", start),
        ("binaries", programs),
        ("CA bundle", facts.ca_bundle or "none"),
        (
            "size",
            f"{human_size(facts.compressed)} stored, {human_size(facts.uncompressed)} unpacked, {facts.files} files",
        ),
    )
    return [f"{name + ':':<11}{text}" for name, text in rows]


def as_json(subject: Subject, report: AuditReport) -> str:
    """Return the report as one JSON object."""
    facts = report.facts
    value: dict[str, Any] = {
        "Name": subject.name,
        "Id": subject.id,
        "Digest": subject.digest,
        "Passed": report.passed,
        "Counts": {level.word: count for level, count in report.counts().items()},
        "Allowed": report.allowed,
        "Facts": {
            "Platform": facts.platform,
            "User": facts.user,
            "Entrypoint": facts.entrypoint,
            "Linking": facts.linking,
            "StaticPrograms": facts.static_programs,
            "DynamicPrograms": facts.dynamic_programs,
            "SharedLibraries": facts.shared_libraries,
            "CaBundle": facts.ca_bundle,
            "Files": facts.files,
            "CompressedSize": facts.compressed,
            "Size": facts.uncompressed,
        },
        "Findings": [
            {
                "Rule": finding.rule.id,
                "Level": finding.level.word,
                "Message": printable(finding.message),
                "Path": None if finding.path is None else "/" + display(finding.path),
                "Layer": finding.layer,
                "LayerDigest": finding.digest,
                "Instruction": printable(finding.instruction),
                "Remedy": finding.rule.remedy,
            }
            for finding in report.findings
        ],
    }
    return json.dumps(value, ensure_ascii=False) + "\n"


def as_sarif(subject: Subject, report: AuditReport) -> str:
    """Return the report in the Static Analysis Results Interchange Format 2.1.0 (OASIS)."""
    from castoff import __version__

    numbers = {rule.id: number for number, rule in enumerate(RULES)}
    rules = [
        {
            "id": rule.id,
            "shortDescription": {"text": f"{rule.title[:1].upper()}{rule.title[1:]}."},
            "help": {"text": rule.remedy},
            "defaultConfiguration": _sarif_configuration(rule.level),
        }
        for rule in RULES
    ]
    results = [_sarif_result(finding, numbers[finding.rule.id], subject) for finding in report.findings]
    run = {
        "tool": {"driver": {"name": "castoff", "version": __version__, "rules": rules}},
        "originalUriBaseIds": {"IMAGE": {"description": {"text": f"the root of the image {subject.name}"}}},
        "properties": {"image": subject.name, "imageId": subject.id, "digest": subject.digest},
        "results": results,
    }
    document = {"$schema": _SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


def _sarif_configuration(level: Level) -> dict[str, Any]:
    return {"enabled": False} if level is Level.OFF else {"level": level.word}


def _sarif_result(finding: Finding, number: int, subject: Subject) -> dict[str, Any]:
    from urllib.parse import quote

    # A finding about the image as a whole is put at its root: programs that show findings want a place.
    place = {"uri": quote(finding.path or b".", safe="/"), "uriBaseId": "IMAGE"}
    where: dict[str, Any] = {"physicalLocation": {"artifactLocation": place}}
    if finding.layer is not None:
        where["logicalLocations"] = [{"name": finding.digest, "kind": "layer"}]
    mark = hashlib.sha256(
        b"\0".join((finding.rule.id.encode(), finding.path or b"", finding.message.encode("utf-8", "replace")))
    )
    return {
        "ruleId": finding.rule.id,
        "ruleIndex": number,
        "level": finding.level.word,
        "message": {"text": printable(finding.message) + _made_by(finding)},
        "locations": [where],
        "partialFingerprints": {"castoff/v1": mark.hexdigest()},
        "properties": {"layer": finding.layer, "layerDigest": finding.digest, "image": subject.name},
    }


def _made_by(finding: Finding) -> str:
    return f" (made by: {printable(finding.instruction)})" if finding.instruction else ""
