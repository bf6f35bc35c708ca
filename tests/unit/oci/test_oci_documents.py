from __future__ import annotations

import json
from typing import Any

import pytest

from castoff.errors import InvalidImageError
from castoff.oci import mediatypes
from castoff.oci.config import ContainerConfig, Healthcheck, History, ImageConfig
from castoff.oci.descriptor import Descriptor
from castoff.oci.digest import Digest
from castoff.oci.jsontext import MAX_DOCUMENT, dump, load_object
from castoff.oci.manifest import Index, Manifest
from castoff.oci.platform import Platform

LAYER = Descriptor(mediatypes.OCI_LAYER_GZIP, Digest.of(b"layer"), 5)
CONFIG = Descriptor(mediatypes.OCI_CONFIG, Digest.of(b"config"), 6)
MANIFEST = Manifest(CONFIG, (LAYER,), annotations=(("a", "b"),), subject=LAYER)
FULL = ImageConfig(
    Platform("linux", "arm", "v6"),
    ContainerConfig(
        user="65532:65532",
        exposed_ports=("80/tcp", "8000/tcp"),
        env=("PATH=/bin", "X="),
        entrypoint=("/app",),
        cmd=(),
        volumes=("/data",),
        working_dir="/app",
        labels=(("a", "1"), ("é", "2")),
        stop_signal="SIGINT",
        healthcheck=Healthcheck(("CMD", "true"), interval=5, retries=2),
        shell=("/bin/sh", "-c"),
        on_build=("RUN x",),
    ),
    (Digest.of(b"1"),),
    (History("1980-01-01T00:00:00Z", "COPY", "me", "note"), History(empty_layer=True, created_by="CMD")),
    "1980-01-01T00:00:00Z",
    "me",
    ("win32k",),
)


def test_manifests_round_trip() -> None:
    assert Manifest.parse(MANIFEST.to_bytes()) == MANIFEST


def test_indexes_round_trip() -> None:
    index = Index((CONFIG,), annotations=(("a", "b"),))
    assert Index.parse(index.to_bytes()) == index
    assert Index.parse(Index(()).to_bytes()) == Index(())


def test_configs_round_trip() -> None:
    assert ImageConfig.parse(FULL.to_bytes()) == FULL
    bare = ImageConfig(Platform("linux", "amd64"))
    assert ImageConfig.parse(bare.to_bytes()) == bare


def test_a_docker_manifest() -> None:
    value = json.loads(MANIFEST.to_bytes()) | {"mediaType": mediatypes.DOCKER_MANIFEST}
    assert Manifest.parse(dump(value)).media_type == mediatypes.DOCKER_MANIFEST


def test_a_manifest_without_a_media_type_is_the_oci_s() -> None:
    value = json.loads(MANIFEST.to_bytes())
    del value["mediaType"]
    assert Manifest.parse(dump(value)) == MANIFEST


def test_an_empty_command_is_not_an_absent_one() -> None:
    assert ContainerConfig.from_json({"Cmd": []}).cmd == ()
    assert ContainerConfig.from_json({"Cmd": None}).cmd is None
    assert ContainerConfig(cmd=()).to_json() == {"Cmd": []}
    assert ContainerConfig().to_json() == {}


def test_labels_and_environment_are_changed_by_copies() -> None:
    config = ContainerConfig(env=("A=1", "B=2"), labels=(("z", "1"),))
    assert config.with_env("A", "3").env == ("A=3", "B=2")
    assert config.with_env("C", "").env == ("A=1", "B=2", "C=")
    assert config.with_label("a", "2").labels == (("a", "2"), ("z", "1"))
    assert config.env == ("A=1", "B=2")


def test_documents_are_written_in_one_form() -> None:
    assert dump({"b": 1, "a": "é<"}) == '{"b":1,"a":"é<"}'.encode()


@pytest.mark.parametrize("data", [b"", b"[]", b"7", b"{", b"\xff", b"[" * 100_000, b" " * (MAX_DOCUMENT + 1)])
def test_what_is_no_document(data: bytes) -> None:
    with pytest.raises(InvalidImageError):
        load_object(data, "thing")
    for parse in (Manifest.parse, Index.parse, ImageConfig.parse):
        with pytest.raises(InvalidImageError):
            parse(data)


def changed(document: bytes, **change: Any) -> bytes:
    return dump(json.loads(document) | change)


@pytest.mark.parametrize(
    "change",
    [
        {"schemaVersion": 1},
        {"schemaVersion": "2"},
        {"mediaType": mediatypes.OCI_INDEX},
        {"config": None},
        {"config": {}},
        {"layers": None},
        {"layers": []},
        {"layers": {}},
        {"layers": ["x"]},
        {"annotations": {"a": None}},
        {"subject": {"x": 1}},
    ],
)
def test_wrong_manifests(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidImageError):
        Manifest.parse(changed(MANIFEST.to_bytes(), **change))


@pytest.mark.parametrize(
    "change",
    [
        {"os": 7},
        {"os": None},
        {"architecture": None},
        {"rootfs": None},
        {"rootfs": {"type": "other", "diff_ids": []}},
        {"rootfs": {"type": "layers"}},
        {"rootfs": {"type": "layers", "diff_ids": ["x"]}},
        {"rootfs": {"type": "layers", "diff_ids": "x"}},
        {"history": [1]},
        {"history": {}},
        {"config": []},
        {"config": {"Env": "x"}},
        {"config": {"Env": [1]}},
        {"config": {"ExposedPorts": []}},
        {"config": {"Labels": {"a": 1}}},
        {"config": {"Healthcheck": {"Interval": "x"}}},
    ],
)
def test_wrong_configs(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidImageError):
        ImageConfig.parse(changed(FULL.to_bytes(), **change))
