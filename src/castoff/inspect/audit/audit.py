"""Audits an image: reads it once, applies every rule, and sorts what was found by the policy."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from castoff.fs.entry import display
from castoff.inspect.audit.binary_rules import check_binaries
from castoff.inspect.audit.collect import collect
from castoff.inspect.audit.config_rules import (
    check_config_secrets,
    check_entrypoint,
    check_history_secrets,
    check_passwords,
    check_size,
    check_user,
)
from castoff.inspect.audit.file_rules import ca_bundle, check_certificates, check_programs, check_rights, check_waste
from castoff.inspect.audit.finding import RULES, Finding, Level, Observation, rules_by_id
from castoff.inspect.audit.policy import Policy
from castoff.inspect.audit.secret_rules import check_secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from castoff.image.image import StoredImage
    from castoff.inspect.audit.collect import Scratch
    from castoff.inspect.audit.evidence import Evidence

    Check = Callable[[Evidence, Policy], Iterator[Observation]]

CHECKS: tuple[Check, ...] = (
    check_user,
    check_passwords,
    check_entrypoint,
    check_binaries,
    check_programs,
    check_rights,
    check_secrets,
    check_config_secrets,
    check_history_secrets,
    check_waste,
    check_certificates,
    check_size,
)


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What an audit tells of an image whatever its policy.

    Attributes:
        platform: what the image is for, such as ``linux/amd64``.
        user: USER; "" where it is not set.
        entrypoint: the file that it starts, with a leading slash; "" for none.
        linking: how that is linked: ``static``, ``dynamic``, or ``script``; "" where it is none of these.
        static_programs: ELF programs that need no libraries.
        dynamic_programs: ELF programs that do.
        shared_libraries: shared objects.
        ca_bundle: path of the certificates of public authorities, with a leading slash; "" for none.
        files: entries of the merged tree.
        compressed: bytes of the layers as they are stored.
        uncompressed: bytes of the layers' tar streams.
    """

    platform: str
    user: str
    entrypoint: str
    linking: str
    static_programs: int
    dynamic_programs: int
    shared_libraries: int
    ca_bundle: str
    files: int
    compressed: int
    uncompressed: int


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What an audit came to.

    Attributes:
        facts: what the image is.
        findings: the worst first, then in the order of the rules and of the paths.
        allowed: how many breaches the policy allows.
        passed: whether no finding is of the level at which the policy fails.
        policy: what it went by.
    """

    facts: ImageFacts
    findings: tuple[Finding, ...]
    allowed: int
    passed: bool
    policy: Policy

    def counts(self) -> dict[Level, int]:
        """Return the number of findings of each level, worst first."""
        counted = Counter(finding.level for finding in self.findings)
        return {level: counted[level] for level in (Level.ERROR, Level.WARNING, Level.NOTE)}


def audit(image: StoredImage, scratch: Scratch, policy: Policy | None = None) -> AuditReport:
    """Audit an image. All its layers are read once; nothing in it is executed, and nothing is unpacked.

    Args:
        image: the image.
        scratch: takes large binaries while they are looked at.
        policy: what counts; None for the rules' own levels.

    Raises:
        StoreError: a blob is missing or damaged.
        InvalidImageError: the image is not valid, or has more files than an audit looks at.
    """
    return judge(collect(image, scratch), policy or Policy())


def judge(evidence: Evidence, policy: Policy) -> AuditReport:
    """Apply the rules to what was collected of an image."""
    rules = rules_by_id()
    order = {rule.id: number for number, rule in enumerate(RULES)}
    findings: list[Finding] = []
    allowed = 0
    for observation in dict.fromkeys(seen for check in CHECKS for seen in check(evidence, policy)):
        rule = rules[observation.rule]
        level = policy.level(rule)
        if level is Level.OFF:
            continue
        if policy.allows(observation):
            allowed += 1
            continue
        findings.append(_finding(observation, level, evidence))
    findings.sort(key=lambda finding: (-finding.level, order[finding.rule.id], finding.path or b"", finding.message))
    passed = all(finding.level < policy.fail_on for finding in findings)
    return AuditReport(image_facts(evidence), tuple(findings), allowed, passed, policy)


def _finding(observation: Observation, level: Level, evidence: Evidence) -> Finding:
    number = observation.layer
    has_layer = number is not None and number < len(evidence.digests)
    return Finding(
        rules_by_id()[observation.rule],
        level,
        observation.message,
        observation.path,
        number,
        str(evidence.digests[number]) if has_layer and number is not None else "",
        observation.instruction or (evidence.instructions[number] if has_layer and number is not None else ""),
    )


def image_facts(evidence: Evidence) -> ImageFacts:
    """Return what an image is."""
    start = evidence.entrypoint()
    fact = start[1] if start else None
    linking = ""
    if fact is not None:
        elf = fact.content.elf
        linking = ("dynamic" if elf.is_dynamic else "static") if elf else "script" if fact.content.script else ""
    kinds: Counter[str] = Counter()
    for each in evidence.tree.values():
        elf = each.content.elf
        if elf is not None and each.entry.hardlink is None:
            kinds[f"{elf.kind} {elf.is_dynamic}" if elf.kind == "executable" else elf.kind] += 1
    bundle = ca_bundle(evidence)
    return ImageFacts(
        str(evidence.config.platform),
        evidence.config.config.user,
        "/" + display(fact.path) if fact else "",
        linking,
        kinds["executable False"],
        kinds["executable True"],
        kinds["shared"],
        "/" + display(bundle.path) if bundle else "",
        len(evidence.tree),
        evidence.compressed,
        evidence.uncompressed,
    )
