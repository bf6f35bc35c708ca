"""The values of ``--cache-to`` and ``--cache-from``, and the documents of caches, hostile ones among them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from castoff.buildcache.document import (
    ARTIFACT_TYPE,
    CONFIG_TYPE,
    CacheDocument,
    CarriedMount,
    descriptor_of,
    manifest_of,
)
from castoff.buildcache.imported import ImportedCacheStore, carried_mounts
from castoff.buildcache.place import inline_annotation, inline_document
from castoff.buildcache.spec import ALL, CacheSource, CacheTarget, parse_cache_from, parse_cache_to
from castoff.cli.values import byte_size
from castoff.errors import CastoffError, InvalidImageError
from castoff.layer.compression import Compression
from castoff.oci.mediatypes import OCI_EMPTY, OCI_LAYER_GZIP
from castoff.solve.cache import CacheRecord, LayerRecord, MemoryCacheStore

KEY = "ab" * 32
SHA = "sha256:" + "0" * 64
LAYER = LayerRecord(SHA, "sha256:" + "1" * 64, 10, 2048, OCI_LAYER_GZIP, 3)
RECORD = CacheRecord("snap", "parent", {"1/auto": LAYER}, {"anew": "1"})
MOUNT = CarriedMount("0" * 32, "go-mod", LAYER, 0o1777, 5, 6)
DOCUMENT = CacheDocument({KEY: RECORD}, (MOUNT,))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("team/app:cache", CacheTarget("registry", "team/app:cache")),
        ("type=registry,ref=localhost:5000/a:b,mode=max", CacheTarget("registry", "localhost:5000/a:b", mode="max")),
        ("type=local,dest=/a,tag=x", CacheTarget("local", "/a", "x")),
        ("type=inline", CacheTarget("inline")),
        ('type=local,"dest=/a,b"', CacheTarget("local", "/a,b")),
        ("type=local,dest=/a,mounts=all", CacheTarget("local", "/a", mounts=ALL)),
        (
            "type=local,dest=/a,mounts=a,b,mounts-limit=2k,ignore-error=true",
            CacheTarget("local", "/a", mounts=("a", "b"), mounts_limit=2048, ignore_error=True),
        ),
        (
            "type=registry,ref=a,oci-mediatypes=true,image-manifest=true,compression=zstd,compression-level=7",
            CacheTarget("registry", "a", compression=Compression("zstd", 7)),
        ),
    ],
)
def test_where_a_cache_goes(text: str, expected: CacheTarget) -> None:
    assert parse_cache_to(text, byte_size) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("team/app:cache", CacheSource("registry", "team/app:cache")),
        (f"type=registry,ref=a@{SHA}", CacheSource("registry", f"a@{SHA}")),
        (
            f"type=local,src=/a,tag=x,digest={SHA},mounts=false",
            CacheSource("local", "/a", "x", SHA, mounts=False),
        ),
    ],
)
def test_where_a_cache_comes_from(text: str, expected: CacheSource) -> None:
    assert parse_cache_from(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "type=",
        "type=gha",
        "dest=/a",
        "type=local",
        "type=local,dest=",
        "type=local,dest=/a,src=/b",
        "type=local,dest=/a,mode=",
        "type=local,dest=/a,ignore-error=perhaps",
        "type=local,dest=/a,compression=lzma",
        "type=local,dest=/a,compression-level=99",
        "type=local,dest=/a,mounts-limit=much",
        "type=local,dest=/a,word",
        "type=registry,ref=a b",
        f"type=registry,ref=a@{SHA}",
        "type=inline,mode=max",
        "type=registry,ref=a,oci-mediatypes=false",
        'type=local,"dest=/a',
        "type=local\ndest=/a",
    ],
)
def test_targets_that_make_no_sense(text: str) -> None:
    with pytest.raises(CastoffError):
        parse_cache_to(text, byte_size)


@pytest.mark.parametrize("text", ["", "type=inline", "type=local,dest=/a", "type=local,src=/a,mode=max", "type=s3,x=y"])
def test_sources_that_make_no_sense(text: str) -> None:
    with pytest.raises(CastoffError):
        parse_cache_from(text)


def test_a_document_comes_back_as_it_was() -> None:
    data = DOCUMENT.to_bytes()
    assert CacheDocument.parse(data) == DOCUMENT
    assert CacheDocument.parse(data).to_bytes() == data
    assert CacheDocument.parse(CacheDocument().to_bytes()) == CacheDocument()


def test_the_manifest_lists_each_blob_once() -> None:
    manifest = manifest_of(DOCUMENT, DOCUMENT.to_bytes())
    assert manifest.artifact_type == ARTIFACT_TYPE
    assert manifest.config.media_type == CONFIG_TYPE
    assert manifest.layers == (descriptor_of(LAYER),)
    assert [layer.media_type for layer in manifest_of(CacheDocument(), b"{}").layers] == [OCI_EMPTY]


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"version": True},
        {"records": []},
        {"records": {"../../etc/passwd": RECORD.to_json()}},
        {"records": {KEY.upper(): RECORD.to_json()}},
        {"records": {KEY: []}},
        {"records": {KEY: {**RECORD.to_json(), "snapshot": "../x"}}},
        {"records": {KEY: {**RECORD.to_json(), "snapshot": "a/b"}}},
        {"records": {KEY: {**RECORD.to_json(), "parent": "x" * 65}}},
        {"records": {KEY: {**RECORD.to_json(), "parent": 7}}},
        {"records": {KEY: {**RECORD.to_json(), "facts": {"a": 1}}}},
        {"records": {KEY: {**RECORD.to_json(), "facts": {"a": "x" * 5000}}}},
        {"records": {KEY: {**RECORD.to_json(), "layers": {"v": ["md5:0", SHA, 1, 1, OCI_LAYER_GZIP, 1]}}}},
        {"records": {KEY: {**RECORD.to_json(), "layers": {"v": [SHA, SHA, -1, 1, OCI_LAYER_GZIP, 1]}}}},
        {"records": {KEY: {**RECORD.to_json(), "layers": {"v": [SHA, SHA, 1, 1, "text/html", 1]}}}},
        {"records": {KEY: {**RECORD.to_json(), "layers": {"v": [SHA, SHA, 1, 1, OCI_LAYER_GZIP]}}}},
        {"records": {KEY: {**RECORD.to_json(), "layers": {"v": [SHA, [SHA], 1, 1, OCI_LAYER_GZIP, 1]}}}},
        {"mounts": [["../x", "id", [SHA, SHA, 1, 1, OCI_LAYER_GZIP, 1], 0, 0, 0]]},
        {"mounts": [["0" * 32, 5, [SHA, SHA, 1, 1, OCI_LAYER_GZIP, 1], 0, 0, 0]]},
        {"mounts": [["0" * 32, "id", [SHA, SHA, 1, 1, OCI_LAYER_GZIP, 1], "x", 0, 0]]},
        {"mounts": [[]] * 2000},
    ],
)
def test_hostile_documents(change: dict[str, Any]) -> None:
    value = json.loads(DOCUMENT.to_bytes()) | change
    with pytest.raises(InvalidImageError):
        CacheDocument.parse(json.dumps(value).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"nope", b"\xff", b"[" * 100_000, b"{}"])
def test_documents_that_are_none(data: bytes) -> None:
    with pytest.raises(InvalidImageError):
        CacheDocument.parse(data)


def test_a_cache_in_an_image() -> None:
    annotation = inline_annotation(DOCUMENT)
    assert inline_document((annotation, ("a", "b"))) == DOCUMENT
    assert annotation == inline_annotation(DOCUMENT)
    assert inline_document((("a", "b"),)) is None
    for text in ("!", "YWJj", annotation[1][:-8]):
        with pytest.raises(InvalidImageError):
            inline_document(((annotation[0], text),))


def test_a_bomb_in_an_image() -> None:
    import base64
    import zlib

    bomb = base64.b64encode(zlib.compress(b" " * (64 << 20), 9)).decode()
    with pytest.raises(InvalidImageError):
        inline_document((("dev.castoff.buildcache.v1", bomb),))


def test_the_stores_own_records_come_first() -> None:
    own = MemoryCacheStore()
    memo = CacheRecord(facts={"content": "x"})
    cache = ImportedCacheStore(own, [CacheDocument({KEY: RECORD}), CacheDocument({KEY: RECORD, "cd" * 32: memo})])
    assert cache.load(KEY) is None  # what is taken from elsewhere is to become the store's own
    assert cache.others(KEY) == (RECORD, RECORD)
    assert cache.load("cd" * 32) == memo
    cache.save(KEY, memo)
    assert cache.load(KEY) == memo
    assert own.load(KEY) == memo
    cache.remove(KEY)
    assert own.load(KEY) is None


def test_the_first_mount_of_a_name_counts() -> None:
    other = CarriedMount(MOUNT.name, "other", LAYER)
    assert carried_mounts([DOCUMENT, CacheDocument({}, (other,))]) == {MOUNT.name: MOUNT}
