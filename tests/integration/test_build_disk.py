"""Stores that can't take more: full, read-only, of another format, or no folder at all."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from failure_rig import Bench, make_bench, one_sentence

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.integration

MIB = 1 << 20


@pytest.fixture(scope="module", params=["root", "user"])
def full_bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Give a bench with a store on a file system of 32 MiB."""
    request.getfixturevalue("require").root()
    for bench in make_bench(request, request.param):
        place = os.path.join(bench.folder, "small")
        os.mkdir(place)
        options = f"size={32 * MIB}" + (f",uid={bench.owner[0]},gid={bench.owner[1]}" if bench.owner else "")
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], check=True)
        try:
            small = replace(bench, store=f"{place}/store")
            archive = f"{bench.folder}/base.tar"
            assert bench.castoff("save", "-o", archive, "busybox").code == 0
            loaded = small.castoff("load", "-i", archive)
            assert loaded.code == 0, loaded.err
            yield small
        finally:
            subprocess.run(["umount", place], check=True)


def check_full(bench: Bench, said: str) -> None:
    """Fail unless a message says that the disk is full and what to do, and the store goes on working."""
    assert "no space left" in one_sentence(said).lower()
    assert "free some space" in said.partition("hint: ")[2]
    bench.check_next()


def test_a_copy_that_does_not_fit(full_bench: Bench) -> None:
    context = full_bench.context({"Dockerfile": "FROM busybox\nCOPY big /\n", "big": os.urandom(MIB) * 48})
    said = full_bench.refused("build", "--progress=plain", "-t", "t", context, code=6)
    check_full(full_bench, said)
    text = "FROM busybox\nCOPY big /\nRUN true\n"
    full_bench.write(context, {"Dockerfile": text})
    said = full_bench.refused("build", "--progress=plain", "-t", "t", context, code=6)
    check_full(full_bench, said)
    assert " 3 | >>> RUN true" in said or " 2 | >>> COPY big /" in said
    os.unlink(f"{context}/big")


def test_a_step_that_fills_the_disk(full_bench: Bench) -> None:
    said = full_bench.fails("FROM busybox\nRUN dd if=/dev/zero of=/big bs=1M count=64\n", code=1)
    assert "No space left on device" in said
    assert one_sentence(said).endswith("exit code: 1")
    full_bench.check_next()


def test_a_layer_that_does_not_fit(full_bench: Bench) -> None:
    """What RUN wrote fits once, and not a second time as a layer."""
    said = full_bench.fails("FROM busybox\nRUN dd if=/dev/urandom of=/big bs=1M count=18\n", code=6)
    check_full(full_bench, said)


def test_an_export_that_does_not_fit(full_bench: Bench) -> None:
    place = os.path.dirname(full_bench.store)
    text = "FROM busybox\nRUN dd if=/dev/urandom of=/big bs=1M count=9 2>/dev/null\n"
    elsewhere = full_bench.copy()
    context = elsewhere.context({"Dockerfile": text})
    status = os.statvfs(place)
    with open(f"{place}/filler", "wb") as file:
        file.write(bytes(status.f_bavail * status.f_frsize - 6 * MIB))
    try:
        for kind in ("oci", "docker", "tar", "local"):
            said = elsewhere.refused(
                "build", "--progress=plain", "-o", f"type={kind},dest={place}/out", context, code=6
            )
            assert "there is no space left" in one_sentence(said)
            assert sorted(os.listdir(place)) == ["filler", "store"]
    finally:
        os.unlink(f"{place}/filler")
    full_bench.check_next()


def test_a_store_that_may_not_be_written(request: pytest.FixtureRequest) -> None:
    request.getfixturevalue("require").root()
    for bench in make_bench(request, "root"):
        context = bench.context({"Dockerfile": "FROM busybox\nRUN true\n"})
        bench.good(context)
        subprocess.run(["mount", "--bind", bench.store, bench.store], check=True)
        try:
            subprocess.run(["mount", "-o", "remount,bind,ro", bench.store], check=True)
            bench.write(context, {"Dockerfile": "FROM busybox\nRUN echo\n"})
            outcome = bench.build(context)
            assert outcome.code == 6
            assert "the file system is read-only" in one_sentence(outcome.err)
            listed = bench.castoff("images")
            assert (listed.code, "busybox" in listed.out) == (0, True), listed.err
        finally:
            subprocess.run(["umount", bench.store], check=True)
        bench.good(context)


def test_a_store_of_somebody_else(request: pytest.FixtureRequest) -> None:
    request.getfixturevalue("require").root()
    for bench in make_bench(request, "user"):
        closed = os.path.join(bench.folder, "closed")
        os.mkdir(closed, 0o700)
        context = bench.context({"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
        for store in (f"{closed}/store", closed):
            said = replace(bench, store=store).refused("build", context, code=6)
            assert "permission was denied" in one_sentence(said)
            assert closed in one_sentence(said)


def test_a_store_that_is_none(request: pytest.FixtureRequest, tmp_path: os.PathLike[str]) -> None:
    place = os.fspath(tmp_path)
    context = os.path.join(place, "context")
    os.mkdir(context)
    with open(f"{context}/Dockerfile", "w", encoding="utf-8") as file:
        file.write("FROM scratch\nCOPY Dockerfile /\n")
    for bench in make_bench(request, "root"):
        newer = bench.copy()
        with open(f"{newer.store}/castoff.json", "w", encoding="utf-8") as file:
            json.dump({"version": 1000}, file)
        said = one_sentence(newer.refused("build", context, code=6))
        assert "has format 1000" in said
        with open(f"{newer.store}/castoff.json", "w", encoding="utf-8") as file:
            file.write("{")
        assert "castoff.json" in one_sentence(newer.refused("build", context, code=6))
        on_file = replace(bench, store=f"{context}/Dockerfile")
        assert "which is a file" in one_sentence(on_file.refused("build", context, code=6))
        below_file = replace(bench, store=f"{context}/Dockerfile/store")
        assert "a part of which is a file" in one_sentence(below_file.refused("build", context, code=6))
        used = replace(bench, store=context)
        assert "is no store of castoff" in one_sentence(used.refused("build", context, code=6))
        assert os.listdir(context) == ["Dockerfile"]
