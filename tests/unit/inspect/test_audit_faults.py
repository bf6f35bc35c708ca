"""An audit finds each fault that was planted, where it was planted, and none in an image without faults."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from audit_images import (
    AWS,
    FAULTY_STEPS,
    GITHUB,
    PLANTED,
    POLICY,
    Scratch,
    Step,
    clean_image,
    elf,
    faulty_image,
    file,
    folder,
    image_of,
    link,
)

from castoff.errors import DigestMismatchError
from castoff.fs.changes import Change
from castoff.inspect.audit import collect as collecting
from castoff.inspect.audit.audit import AuditReport, audit
from castoff.inspect.audit.finding import RULES, Finding, Level
from castoff.inspect.audit.policy import Policy
from castoff.oci.config import ContainerConfig
from castoff.oci.platform import Platform
from castoff.store.memory import MemoryStore

Audited = Callable[[list[Change], ContainerConfig], AuditReport]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> AuditReport:
    image = faulty_image(MemoryStore().blobs)
    return audit(image, Scratch(str(tmp_path_factory.mktemp("scratch"))), Policy.parse(POLICY))


@pytest.fixture
def audited(tmp_path: Path) -> Audited:
    def run(changes: list[Change], config: ContainerConfig) -> AuditReport:
        image = image_of(MemoryStore().blobs, [Step("COPY . /", tuple(changes))], config)
        return audit(image, Scratch(str(tmp_path)))

    return run


def found(report: AuditReport, rule: str) -> list[Finding]:
    return [finding for finding in report.findings if finding.rule.id == rule]


def paths(report: AuditReport, rule: str) -> set[bytes | None]:
    return {finding.path for finding in found(report, rule)}


@pytest.mark.parametrize(
    ("rule", "path", "layer", "words"), [row[1:] for row in PLANTED], ids=[row[0] for row in PLANTED]
)
def test_a_planted_fault_is_found(
    report: AuditReport, rule: str, path: str | None, layer: int | None, words: str
) -> None:
    wanted = None if path is None else path.encode()
    hits = [each for each in found(report, rule) if each.path == wanted and words in each.message]
    assert len(hits) == 1
    assert hits[0].layer == layer
    assert hits[0].rule.remedy
    if layer is not None:
        assert hits[0].digest.startswith("sha256:")
        assert hits[0].instruction == [step.created_by for step in FAULTY_STEPS if step.changes is not None][layer]


def test_nothing_else_is_found(report: AuditReport) -> None:
    planted = {(rule, path.encode() if path else None) for _name, rule, path, _layer, _words in PLANTED}
    beside = {
        ("shell", b"bin/busybox"),  # what the link leads to
        ("dynamic-binary", b"app/needs-loader"),
        ("deleted-file", b"app/deploy.key"),
    }
    assert {(each.rule.id, each.path) for each in report.findings} - planted == beside
    assert not report.passed


def test_every_rule_has_a_planted_fault() -> None:
    assert len({row[0] for row in PLANTED}) == len(PLANTED) >= 30
    other = {"root-user", "missing-entrypoint"}  # they exclude others; each has a test of its own
    assert {row[1] for row in PLANTED} | other == {rule.id for rule in RULES}


def test_a_clean_image_has_no_finding(tmp_path: Path) -> None:
    policy = Policy.parse(b'user = "nonroot"\nbudget = "1MB"\n[rules]\nreplaced-file = "error"\n')
    clean = audit(clean_image(MemoryStore().blobs), Scratch(str(tmp_path)), policy)
    assert clean.findings == ()
    assert clean.passed
    facts = clean.facts
    assert (facts.user, facts.entrypoint, facts.linking) == ("nonroot:nonroot", "/app/server", "static")
    assert (facts.static_programs, facts.dynamic_programs, facts.shared_libraries) == (1, 1, 5)
    assert facts.ca_bundle == "/etc/ssl/certs/ca-certificates.crt"


def test_no_secret_is_shown_whole(report: AuditReport) -> None:
    shown = " ".join(each.message for each in report.findings)
    for secret in (GITHUB, AWS, b"hunter22hunter", b"correct horse battery", b"f3b1c0de77aa"):
        assert secret.decode() not in shown


@pytest.mark.parametrize("user", ["", "root", "0", "0:65532", "root:nonroot"])
def test_root_in_all_its_forms(audited: Audited, user: str) -> None:
    rows = [file("etc/passwd", b"root:x:0:0::/:/bin/false\n")]
    assert found(audited(rows, ContainerConfig(user=user)), "root-user")


@pytest.mark.parametrize("user", ["65532", "65532:65532", "app", "app:0"])
def test_another_user_is_not_root(audited: Audited, user: str) -> None:
    rows = [file("etc/passwd", b"root:x:0:0::/:/bin/false\napp:x:1000:1000::/:/bin/false\n")]
    report = audited(rows, ContainerConfig(user=user))
    assert not found(report, "root-user")
    assert not found(report, "unknown-user")


def test_an_entrypoint_that_is_not_there(audited: Audited) -> None:
    def missing(changes: list[Change], config: ContainerConfig) -> list[Finding]:
        return found(audited(changes, config), "missing-entrypoint")

    assert missing([folder("app")], ContainerConfig(entrypoint=("/app/server",)))
    assert missing([file("app/server", elf(), 0o644)], ContainerConfig(entrypoint=("/app/server",)))
    assert missing([file("run.py", b"#!/usr/bin/python3\n", 0o755)], ContainerConfig(cmd=("/run.py",)))
    assert missing([link("a", "b"), link("b", "a")], ContainerConfig(cmd=("/a",)))
    assert not missing([file("app/server", elf(), 0o755)], ContainerConfig(cmd=("server",), env=("PATH=/app",)))
    assert not missing([file("app/server", elf(), 0o755)], ContainerConfig(cmd=("./server",), working_dir="/app"))
    assert not missing([folder("app")], ContainerConfig())


def test_an_interpreter_of_the_entrypoint_is_its_own(audited: Audited) -> None:
    tree = [
        file("usr/bin/python3.11", elf(), 0o755),
        link("usr/bin/python3", "python3.11"),
        file("usr/bin/perl", elf(), 0o755),
        file("usr/bin/env", elf(), 0o755),
        file("app/run", b"#!/usr/bin/env python3\n", 0o755),
    ]
    for config in (
        ContainerConfig(entrypoint=("/usr/bin/python3", "-m", "app")),
        ContainerConfig(entrypoint=("/app/run",), env=("PATH=/usr/bin",)),
    ):
        assert paths(audited(tree, config), "interpreter") == {b"usr/bin/perl"}
    everything = {b"usr/bin/python3.11", b"usr/bin/python3", b"usr/bin/perl"}
    assert paths(audited(tree, ContainerConfig()), "interpreter") == everything


def test_a_binary_is_judged_by_the_platform_of_the_image(tmp_path: Path) -> None:
    steps = [Step("COPY server /", (file("server", elf(62), 0o755),))]
    config = ContainerConfig(user="1", entrypoint=("/server",))
    for platform, count in ((Platform("linux", "amd64"), 0), (Platform("linux", "arm64"), 1)):
        image = image_of(MemoryStore().blobs, steps, config, platform)
        assert len(found(audit(image, Scratch(str(tmp_path))), "entrypoint-architecture")) == count


def test_an_opaque_folder_hides_what_is_below_and_ships_it(tmp_path: Path) -> None:
    from castoff.fs.changes import Opaque

    steps = [
        Step(
            "COPY a /",
            (folder("app"), folder("app/deep"), file("app/deep/.env", b"PASSWORD=a\n"), file("app/b", b"123")),
        ),
        Step("RUN rm -rf /app && mkdir /app", (folder("app"), Opaque(b"app"), file("app/c"))),
    ]
    image = image_of(MemoryStore().blobs, steps, ContainerConfig(user="1"))
    report = audit(image, Scratch(str(tmp_path)))
    (gone,) = found(report, "deleted-file")
    assert (gone.path, gone.layer) == (b"app", 1)
    assert "2 files of 14 bytes" in gone.message
    assert paths(report, "buried-secret") == {b"app/deep/.env"}
    assert report.facts.files == 2


def test_a_folder_that_becomes_a_file_hides_what_was_in_it(tmp_path: Path) -> None:
    steps = [
        Step("COPY a /", (folder("bin"), file("bin/sh", elf(), 0o755))),
        Step("RUN rm -rf /bin && touch /bin", (file("bin"),)),
    ]
    image = image_of(MemoryStore().blobs, steps, ContainerConfig(user="1"))
    report = audit(image, Scratch(str(tmp_path)))
    assert not found(report, "shell")
    assert found(report, "deleted-file")


def test_large_binaries_go_through_a_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "_IN_MEMORY", 1000)
    from audit_images import LOADER, Need

    data = elf(need=Need(LOADER, (b"libgone.so",))) + bytes(3 << 20)
    image = image_of(MemoryStore().blobs, [Step("x", (file("p", data, 0o755),))], ContainerConfig(user="1"))
    scratch = Scratch(str(tmp_path))
    assert len(found(audit(image, scratch), "missing-library")) == 1
    assert scratch.count == 1
    assert list(tmp_path.iterdir()) == []


def test_a_layer_that_is_not_the_one_of_the_config_is_refused(tmp_path: Path) -> None:
    from dataclasses import replace

    from castoff.image.image import StoredImage
    from castoff.image.mutate import DraftImage, draft_of
    from castoff.oci.digest import Digest

    blobs = MemoryStore().blobs
    draft = draft_of(clean_image(blobs))
    wrong = replace(draft.config, diff_ids=(Digest.of(b"other"), *draft.config.diff_ids[1:]))
    image = StoredImage(blobs, DraftImage(wrong, draft.layers).store(blobs))
    with pytest.raises(DigestMismatchError):
        audit(image, Scratch(str(tmp_path)))


def test_counts_are_those_of_the_findings(report: AuditReport) -> None:
    assert sum(report.counts().values()) == len(report.findings)
    levels = [finding.level for finding in report.findings]
    assert levels == sorted(levels, reverse=True)
    assert report.counts()[Level.ERROR] > 20
