"""castoff audit: exit codes, and the forms of its report."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from castoff.cli.main import main
from castoff.fs.changes import Added
from castoff.fs.entry import FileEntry
from castoff.image.mutate import DraftImage, append_history, append_layer, with_config
from castoff.inspect.audit.finding import RULES
from castoff.oci.config import ContainerConfig, History, ImageConfig
from castoff.oci.descriptor import Descriptor
from castoff.oci.manifest import Index
from castoff.oci.platform import Platform
from castoff.oci.reference import Reference
from castoff.store.directory import DirectoryStore
from castoff.testing.random_images import layer_of

PLATFORM = Platform("linux", "amd64")
INSTRUCTION = "COPY rootfs / # " + "a long story " * 20


def put(store: DirectoryStore, name: str, user: str, files: dict[bytes, int]) -> None:
    draft = DraftImage(ImageConfig(PLATFORM))
    changes = [
        Added(FileEntry(path, 0o100000 | mode, size=4, data=b"\x7fELF" if b"bin/" in path else b"text"))
        for path, mode in sorted(files.items())
    ]
    draft = append_layer(draft, layer_of(store.blobs, changes), History("", INSTRUCTION))
    draft = append_history(draft, History("", f"USER {user}"))
    draft = with_config(draft, ContainerConfig(user=user))
    store.images.set_(Reference.parse(name), draft.store(store.blobs, PLATFORM), 1.0)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    path = str(tmp_path / "store")
    monkeypatch.setenv("CASTOFF_ROOT", path)
    with DirectoryStore.open_(path) as store:
        put(store, "good", "65532", {b"etc/ssl/certs/ca-certificates.crt": 0o644})
        put(store, "bad", "0", {b"a/%d \xc3\xbf\xff" % number: 0o666 for number in range(12)})
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["audit", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.usefixtures("root")
def test_a_clean_image_passes(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _err = run(capsys, "good")
    assert code == 0
    assert out.endswith("PASSED: 0 errors, 0 warnings, 0 notes\n")
    assert "user:      65532\n" in out
    assert "size-budget" not in out


@pytest.mark.usefixtures("root")
def test_a_breach_is_told_with_its_place_and_its_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _err = run(capsys, "bad")
    assert code == 1
    assert "error root-user:" in out
    assert "  /a/0 ÿ\\udcff: everybody may write this file (0666) [layer 1]\n" in out
    assert "  and 4 more (--no-trunc shows all)\n" in out
    assert "  made by: USER 0\n" in out
    assert "…" in out
    assert out.endswith("FAILED: 13 errors, 1 warning, 0 notes\n")
    _code, whole, _err = run(capsys, "bad", "--no-trunc")
    assert whole.count("everybody may write") == 12
    assert INSTRUCTION.strip() in whole


@pytest.mark.usefixtures("root")
def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _err = run(capsys, "bad", "--format", "json")
    assert code == 1
    report = json.loads(out)
    assert report["Counts"] == {"error": 13, "warning": 1, "note": 0}
    assert report["Passed"] is False
    first = report["Findings"][0]
    assert (first["Rule"], first["Level"], first["Path"], first["Instruction"]) == (
        "root-user",
        "error",
        None,
        "USER 0",
    )
    assert report["Findings"][1]["LayerDigest"].startswith("sha256:")


@pytest.mark.usefixtures("root")
def test_sarif(capsys: pytest.CaptureFixture[str]) -> None:
    """The parts of the format (OASIS SARIF 2.1.0, sections 3.13 to 3.27) that programs need to show findings."""
    code, out, _err = run(capsys, "bad", "--format", "sarif")
    assert code == 1
    document = json.loads(out)
    assert document["version"] == "2.1.0"
    (log,) = document["runs"]
    rules = log["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == [rule.id for rule in RULES]
    assert len(log["results"]) == 14
    marks = set()
    for result in log["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in ("error", "warning", "note")
        assert result["message"]["text"]
        (location,) = result["locations"]
        assert location["physicalLocation"]["artifactLocation"]["uriBaseId"] in log["originalUriBaseIds"]
        marks.update(result["partialFingerprints"].values())
    assert len(marks) == 14
    uris = {result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for result in log["results"]}
    assert {".", "a/0%20%C3%BF%FF"} <= uris


def test_a_policy_is_followed(root: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('[rules]\nroot-user = "note"\n[[allow]]\nrule = "world-writable"\npath = "/a/*"\n')
    code, out, _err = run(capsys, "--policy", str(policy), "bad")
    assert code == 0
    assert out.endswith("PASSED: 0 errors, 1 warning, 1 note, 12 allowed by the policy\n")
    policy.write_text("budget = 100\n")
    code, out, _err = run(capsys, "--policy", str(policy), "good")
    assert code == 1
    assert "size-budget" in out


@pytest.mark.parametrize("text", ["[rules]\nshels = 'off'\n", "no toml"])
@pytest.mark.usefixtures("root")
def test_a_bad_policy_is_a_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(text)
    code, out, err = run(capsys, "--policy", str(policy), "good")
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {policy}")


@pytest.mark.usefixtures("root")
def test_wrong_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--policy", str(tmp_path / "none"), "good")[0] == 2
    assert run(capsys, "--policy", "/dev/zero", "good")[0] == 2
    assert run(capsys, "--format", "xml", "good")[0] == 2
    assert run(capsys, "nothing")[0] == 6


def elf_header(machine: int) -> bytes:
    """Return a static executable for a machine, with nothing in it."""
    head = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, machine, 1, 0x1000, 0, 0, 0, 64, 56, 0, 64, 0, 0)
    return head + bytes(64)


def put_index(root: str, name: str, platforms: tuple[Platform, ...]) -> None:
    """Put images of several platforms under one name, each with the same program for amd64."""
    program = elf_header(62)
    with DirectoryStore.open_(root) as store:
        manifests = []
        for platform in platforms:
            draft = DraftImage(ImageConfig(platform))
            added = [
                Added(FileEntry(b"app", 0o100755, size=len(program), data=program)),
                Added(FileEntry(b"etc/ssl/certs/ca-certificates.crt", 0o100644, size=4, data=b"text")),
            ]
            draft = append_layer(draft, layer_of(store.blobs, added), History("", "COPY app /"))
            draft = with_config(draft, ContainerConfig(user="65532", entrypoint=("/app",)))
            manifests.append(draft.store(store.blobs, platform))
        index = Index(tuple(manifests))
        data = index.to_bytes()
        store.images.set_(Reference.parse(name), Descriptor(index.media_type, store.blobs.add(data), len(data)), 1.0)


def test_an_image_of_several_platforms(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    put_index(root, "many", (Platform("linux", "amd64"), Platform("linux", "arm64", "v8")))
    code, out, _err = run(capsys, "many", "--platform", "linux/amd64")
    assert code == 0
    assert "linux/amd64)" in out.splitlines()[0]
    # The program was built with GOARCH=amd64, whatever the platform: nothing but this shows it before it is started.
    code, out, _err = run(capsys, "many", "--platform", "linux/arm64", "--format", "json")
    assert code == 1
    assert {finding["Rule"] for finding in json.loads(out)["Findings"]} == {"entrypoint-architecture"}
    code, _out, err = run(capsys, "many", "--platform", "linux/s390x")
    assert code == 6
    assert "linux/amd64" in err


def test_the_platform_of_this_machine_is_taken_where_none_is_said(
    root: str, capsys: pytest.CaptureFixture[str]
) -> None:
    host = Platform.host()
    other = Platform("linux", "s390x" if host.architecture != "s390x" else "amd64")
    put_index(root, "many", (other, host))
    _code, out, _err = run(capsys, "many", "--format", "json")
    assert json.loads(out)["Facts"]["Platform"] == str(host)
