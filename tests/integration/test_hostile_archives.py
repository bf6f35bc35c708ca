"""Hostile layers and archives on the ways on which they really come: refused in a sentence, or kept inside."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
from engine_rig import Engine, root_engine

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.integration

Member = tuple[tarfile.TarInfo, bytes]


def member(name: str, data: bytes = b"", **fields: Any) -> Member:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def link(name: str, target: str) -> Member:
    return member(name, type=tarfile.SYMTYPE, linkname=target)


def hard(name: str, target: str) -> Member:
    return member(name, type=tarfile.LNKTYPE, linkname=target)


def tar(members: list[Member]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def patched(at: int, data: bytes) -> bytes:
    """Return an archive of one file whose header has other bytes somewhere, and a checksum that fits."""
    block = bytearray(tar([member("f")])[:512])
    block[at : at + len(data)] = data
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + bytes(1024)


def sparse(size: int) -> bytes:
    records = {"GNU.sparse.realsize": str(size), "GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    body = b"0\n".ljust(512, b"\0")
    return tar([member("f", body, pax_headers=records)])


OUT = "OUTSIDE"
"""Stands for the path of a folder of the host that must stay as it is."""

CASES: dict[str, Any] = {
    "absolute": lambda out: tar([member(f"{out}/evil", b"x")]),
    "dots": lambda out: tar([member("../" * 20 + f"{out}/evil", b"x")]),
    "chain of links": lambda out: tar([link("a", "b"), link("b", out), member("a/evil", b"x")]),
    "climbing link": lambda out: tar([link("a", "../" * 30 + out), member("a/evil", b"x")]),
    "hard link out": lambda out: tar([hard("a", f"{out}/kept"), member("a", b"x")]),
    "hard link through a link": lambda out: tar([link("l", out), hard("a", "l/kept"), member("a", b"x")]),
    "ring": lambda out: tar([link("a", "b"), link("b", "a"), member("a/x", b"x")]),
    "device": lambda out: tar([member("d", type=tarfile.BLKTYPE, devmajor=8, devminor=0)]),
    "impossible device": lambda out: patched(329, b"7777777\0"),
    "whiteout of parents": lambda out: tar([member(".wh...")]),
    "whiteout through a link": lambda out: tar([link("l", out), member("l/.wh.kept"), member("l/.wh..wh..opq")]),
    "twice": lambda out: tar([member("f", b"1"), link("f", f"{out}/kept"), member("f", b"2")]),
    "below a file": lambda out: tar([member("f", b"1"), member("f/g", b"2")]),
    "long name": lambda out: tar([member("n" * 65_000, b"x")]),
    "longest name": lambda out: tar([member("n" * 70_000, b"x")]),
    "deep": lambda out: tar([member("d/" * 30_000 + "f", b"x")]),
    "negative size": lambda out: patched(124, b"-0000000001\0"),
    "binary negative size": lambda out: patched(124, b"\xff" * 12),
    "octal overflow": lambda out: patched(100, b"99999999"),
    "huge size": lambda out: patched(124, b"\x80" + b"\x7f" * 11),
    "huge id": lambda out: patched(108, b"\x80" + b"\x7f" * 7),
    "huge time": lambda out: patched(136, b"\x80" + b"\x7f" * 11),
    "pax time": lambda out: tar([member("f", pax_headers={"mtime": "9" * 20})]),
    "pax size": lambda out: tar([member("f", pax_headers={"size": "9" * 19})]),
    "sparse": lambda out: sparse(1 << 62),
    "no archive": lambda out: b"\0" * 511 + b"x" * 600,
}


@pytest.fixture(scope="module")
def engine(castoff_command: list[str]) -> Iterator[Engine]:
    """Give a store."""
    yield from root_engine(castoff_command)


@pytest.fixture
def outside(tmp_path: Any) -> Iterator[str]:
    """Give a folder of the host, and fail if anything in it is not as it was."""
    (tmp_path / "kept").write_text("kept")
    yield str(tmp_path)
    assert os.listdir(tmp_path) == ["kept"]
    assert (tmp_path / "kept").read_text() == "kept"


def layout(engine: Engine, layer: bytes) -> str:
    """Write an image of one layer and return the path of its layout."""
    blobs: dict[str, bytes] = {}

    def put(data: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = data
        return {"mediaType": f"application/vnd.oci.image.{media_type}", "digest": f"sha256:{digest}", "size": len(data)}

    diff_id = "sha256:" + hashlib.sha256(layer).hexdigest()
    document = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [diff_id]}}
    config = put(json.dumps(document).encode(), "config.v1+json")
    layers = [put(gzip.compress(layer, mtime=0), "layer.v1.tar+gzip")]
    manifest = {"schemaVersion": 2, "config": config, "layers": layers}
    index = {"schemaVersion": 2, "manifests": [put(json.dumps(manifest).encode(), "manifest.v1+json")]}
    files = {**blobs, "oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": json.dumps(index).encode()}
    return engine.context(files)


@pytest.mark.parametrize("way", ["base", "ADD"])
@pytest.mark.parametrize("case", CASES)
def test_nothing_gets_out(engine: Engine, outside: str, case: str, way: str) -> None:
    data = CASES[case](outside)
    if way == "base":
        context = engine.context({"Dockerfile": "FROM base\nCOPY f /copied\n", "f": "f"})
        more = ["--platform", "linux/amd64", "--build-context", f"base=oci-layout://{layout(engine, data)}"]
    else:
        context = engine.context({"Dockerfile": "FROM scratch\nADD a.tar /sub/\n", "a.tar": data})
        more = []
    target = f"{context}-out"
    outcome = engine.build(context, *more, "-o", f"type=local,dest={target}")
    assert outcome.code in (0, 1, 6), outcome.err
    assert "Traceback" not in outcome.err
    assert "inside castoff" not in outcome.err
    found = engine.castoff("doctor", "--store", "--format", "json")
    assert (found.code, json.loads(found.out)["Problems"]) == (0, [])
    assert engine.temporary() == []
