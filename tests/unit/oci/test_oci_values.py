from __future__ import annotations

import hashlib

import pytest

from castoff.errors import InvalidImageError, InvalidReferenceError
from castoff.oci.chain import chain_ids
from castoff.oci.descriptor import Descriptor
from castoff.oci.digest import Digest
from castoff.oci.platform import Platform
from castoff.oci.reference import Reference

HEX = "ab" * 32
DIGEST = f"sha256:{HEX}"


def test_digests() -> None:
    digest = Digest.of(b"abc")
    assert str(digest) == "sha256:" + hashlib.sha256(b"abc").hexdigest()
    assert Digest.parse(str(digest)) == digest
    assert digest.short == digest.hex[:12]
    assert digest.is_registered


@pytest.mark.parametrize(
    "text", ["", "sha256", "sha256:", f"sha256:{HEX[:-1]}", f"sha256:{HEX.upper()}", "md5:abcd", f"sha256:{HEX}/../x"]
)
def test_wrong_digests(text: str) -> None:
    with pytest.raises(InvalidReferenceError):
        Digest.parse(text)


def test_descriptors_may_have_digests_of_other_algorithms() -> None:
    value = {"mediaType": "a/b", "digest": "multihash+base58:QmRZ", "size": 1}
    assert not Descriptor.from_json(value).digest.is_registered


def test_chain_ids() -> None:
    one, two, three = (Digest.of(data) for data in (b"1", b"2", b"3"))
    chain = chain_ids([one, two, three])
    assert chain[0] == one
    assert chain[1] == Digest.of(f"{one} {two}".encode())
    assert chain[2] == Digest.of(f"{chain[1]} {three}".encode())
    assert chain_ids([]) == ()


@pytest.mark.parametrize(
    ("text", "whole", "familiar"),
    [
        ("alpine", "docker.io/library/alpine:latest", "alpine:latest"),
        ("alpine:3", "docker.io/library/alpine:3", "alpine:3"),
        ("user/app", "docker.io/user/app:latest", "user/app:latest"),
        ("docker.io/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
        ("index.docker.io/library/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
        ("ghcr.io/o/r:1", "ghcr.io/o/r:1", "ghcr.io/o/r:1"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost:5000/app:x", "localhost:5000/app:x", "localhost:5000/app:x"),
        ("[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000/app:latest"),
        (f"app@{DIGEST}", f"docker.io/library/app@{DIGEST}", f"app@{DIGEST}"),
        (f"app:1@{DIGEST}", f"docker.io/library/app:1@{DIGEST}", f"app:1@{DIGEST}"),
        ("u/a_b.c--d/e__f", "docker.io/u/a_b.c--d/e__f:latest", "u/a_b.c--d/e__f:latest"),
    ],
)
def test_references(text: str, whole: str, familiar: str) -> None:
    reference = Reference.parse(text)
    assert str(reference) == whole
    assert reference.familiar == familiar
    assert Reference.parse(whole) == reference
    assert Reference.parse(familiar) == reference


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":1",
        "app:",
        "app@",
        "App",
        "a//b",
        "a..b",
        "-a",
        "a-",
        "app:-x",
        "app:" + "x" * 129,
        "a" * 256,
        HEX,
        "http://x/y",
        "app:1:2",
        "a b",
        "../x",
        "app@sha256:abc",
    ],
)
def test_wrong_references(text: str) -> None:
    with pytest.raises(InvalidReferenceError):
        Reference.parse(text)


def test_an_upper_case_repository_is_hinted_at() -> None:
    with pytest.raises(InvalidReferenceError) as caught:
        Reference.parse("user/App")
    assert "user/app" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("Linux/AMD64/v1", "linux/amd64"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("linux/arm/6", "linux/arm/v6"),
        ("linux/i386", "linux/386"),
        ("arm64", "linux/arm64"),
        ("macos/arm64", "darwin/arm64"),
        ("Windows(10.0.17763)/x86_64", "windows(10.0.17763)/amd64"),
    ],
)
def test_platforms(text: str, normal: str) -> None:
    platform = Platform.parse(text)
    assert str(platform) == normal
    assert Platform.parse(normal) == platform
    assert Platform.from_json(platform.to_json()) == platform


@pytest.mark.parametrize(
    "text", ["", "/", "linux/", "windows()/amd64", "windows(1/amd64", "a/b/c/d", "linux/am d64", "linux/amd64/"]
)
def test_wrong_platforms(text: str) -> None:
    with pytest.raises(InvalidReferenceError):
        Platform.parse(text)


def test_an_operating_system_alone_has_the_architecture_of_the_machine() -> None:
    assert Platform.parse("windows") == Platform("windows", Platform.host().architecture)


GOOD = {"mediaType": "application/x", "digest": DIGEST, "size": 5}


def test_descriptors_round_trip() -> None:
    value = {
        **GOOD,
        "urls": ["https://example.com/x"],
        "annotations": {"a": "1", "b": "2"},
        "platform": {"architecture": "arm", "os": "linux", "variant": "v6"},
        "artifactType": "application/y",
    }
    descriptor = Descriptor.from_json(value)
    assert descriptor.to_json() == value
    assert descriptor.annotation("b") == "2"
    assert descriptor.annotation("c") == ""
    assert descriptor.with_annotations({"z": "1", "a": "2"}).annotations == (("a", "2"), ("z", "1"))
    assert Descriptor.from_json(GOOD).to_json() == GOOD


@pytest.mark.parametrize(
    "change",
    [
        {"mediaType": None},
        {"mediaType": "x"},
        {"mediaType": 7},
        {"digest": "sha256:zz"},
        {"digest": f"sha256:{HEX}/../.."},
        {"digest": None},
        {"size": -1},
        {"size": "5"},
        {"size": True},
        {"size": 1 << 63},
        {"annotations": {"a": 1}},
        {"annotations": []},
        {"urls": "x"},
        {"urls": ["relative"]},
        {"platform": {"os": "linux"}},
        {"data": "not base64!"},
    ],
)
def test_wrong_descriptors(change: dict[str, object]) -> None:
    with pytest.raises(InvalidImageError):
        Descriptor.from_json({**GOOD, **change})


@pytest.mark.parametrize("value", [None, [], "x", 7])
def test_a_descriptor_is_an_object(value: object) -> None:
    with pytest.raises(InvalidImageError, match="not a JSON object"):
        Descriptor.from_json(value)
