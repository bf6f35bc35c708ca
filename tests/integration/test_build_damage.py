"""Stores that somebody, or a crash, has damaged: the next build heals or names it, and never gives a wrong image."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest
from failure_rig import Bench, make_bench, one_sentence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from engine_rig import Outcome

pytestmark = pytest.mark.integration

DOCKERFILE = """\
FROM busybox AS builder
COPY f /f
RUN cat /f > /built
FROM busybox
RUN echo runtime > /runtime
COPY --from=builder /built /built
WORKDIR /w
RUN cat /built /runtime > /both
"""


class Damaged:
    """A store with a built image, to be damaged."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.context = bench.context({"Dockerfile": DOCKERFILE, "f": "content\n"})
        self.image = bench.good(self.context).image

    def path(self, *names: str) -> str:
        """Return a path in the store."""
        return os.path.join(self.bench.store, *names)

    def blob(self, digest: str) -> str:
        """Return the path of a blob."""
        return self.path("blobs", *digest.split(":"))

    def manifest(self, image: str = "t") -> list[str]:
        """Return the digests of the config and of the layers of an image."""
        document = self.bench._manifest(image)
        return [document["config"]["digest"], *(layer["digest"] for layer in document["layers"])]  # type: ignore[index]

    def files(self, *names: str) -> list[str]:
        """Return the files below a folder of the store."""
        return [os.path.join(root, name) for root, _, found in os.walk(self.path(*names)) for name in found]

    def check_healed(self) -> Outcome:
        """Build again, and fail unless the image is the same and whole."""
        outcome = self.bench.good(self.context)
        assert outcome.image == self.image
        for digest in self.manifest():
            with open(self.blob(digest), "rb") as file:
                assert "sha256:" + hashlib.sha256(file.read()).hexdigest() == digest
        assert self.bench.read("t", "both") == b"content\nruntime\n"
        self.bench.check_clean()
        self.bench.check_next()
        return outcome

    def check_named(self, what: str) -> None:
        """Build again, and fail unless the error names what is damaged."""
        outcome = self.bench.build(self.context)
        assert outcome.code == 6, outcome.err
        assert what in outcome.err
        one_sentence(outcome.err)
        self.bench.check_clean()


@pytest.fixture(scope="module")
def pristine(request: pytest.FixtureRequest) -> Iterator[Damaged]:
    """Give a store that must stay whole."""
    for bench in make_bench(request, "root"):
        yield Damaged(bench)


@pytest.fixture
def damaged(pristine: Damaged) -> Damaged:
    """Give a copy of the whole store."""
    copy = object.__new__(Damaged)
    copy.bench, copy.context, copy.image = pristine.bench.copy(), pristine.context, pristine.image
    with open(f"{copy.context}/f", encoding="utf-8") as file:
        if file.read() == "content\n":
            return copy
    copy.bench.write(copy.context, {"f": "content\n"})  # a test that failed has left something else
    return copy


def truncate(path: str) -> None:
    """Cut a file in half."""
    os.truncate(path, os.stat(path).st_size // 2)


def garble(path: str) -> None:
    """Give a file other bytes of the same number."""
    with open(path, "r+b") as file:
        size = os.fstat(file.fileno()).st_size
        file.write(bytes([0xA5]) * size)


@pytest.mark.parametrize("harm", [truncate, os.unlink], ids=["truncated", "missing"])
@pytest.mark.parametrize("which", [0, -1, -3], ids=["config", "last layer", "middle layer"])
def test_a_blob_of_the_image(damaged: Damaged, harm: Callable[[str], None], which: int) -> None:
    harm(damaged.blob(damaged.manifest()[which]))
    damaged.check_healed()


@pytest.mark.parametrize("harm", [truncate, os.unlink], ids=["truncated", "missing"])
def test_the_manifest(damaged: Damaged, harm: Callable[[str], None]) -> None:
    with open(damaged.path("index.json"), encoding="utf-8") as file:
        digests = [
            item["digest"]
            for item in json.load(file)["manifests"]
            if item["annotations"].get("org.opencontainers.image.ref.name") == "t:latest"
        ]
    harm(damaged.blob(digests[0]))
    damaged.check_healed()


@pytest.mark.parametrize("harm", [truncate, os.unlink], ids=["truncated", "missing"])
@pytest.mark.parametrize("snapshots", [True, False], ids=["unpacked", "packed"])
@pytest.mark.parametrize("which", [1, 0], ids=["layer", "config"])
def test_a_blob_of_the_base(damaged: Damaged, harm: Callable[[str], None], snapshots: bool, which: int) -> None:
    """The base can't be made again: its own image was built from something else."""
    digest = damaged.manifest("busybox")[which]
    harm(damaged.blob(digest))
    if not snapshots:
        shutil.rmtree(damaged.path("snapshots"))
    damaged.check_named(digest)


def test_a_layer_of_the_base_with_other_bytes(damaged: Damaged) -> None:
    digest = damaged.manifest("busybox")[1]
    garble(damaged.blob(digest))
    shutil.rmtree(damaged.path("snapshots"))
    shutil.rmtree(damaged.path("cache"))
    outcome = damaged.bench.build(damaged.context)
    assert outcome.code == 6
    one_sentence(outcome.err)
    damaged.bench.check_clean()


def test_all_snapshots_are_gone(damaged: Damaged) -> None:
    shutil.rmtree(damaged.path("snapshots"))
    damaged.check_healed()


@pytest.mark.parametrize("part", ["", "fs", "parent"], ids=["whole", "files", "parent"])
def test_a_snapshot_is_gone(damaged: Damaged, part: str) -> None:
    """Each snapshot in turn, the others being there: with layers in the store, and without."""
    for number, name in enumerate(sorted(os.listdir(damaged.path("snapshots")))):
        place = damaged.path("snapshots", name, part) if part else damaged.path("snapshots", name)
        if number % 3:
            continue
        if os.path.isdir(place):
            shutil.rmtree(place)
        elif os.path.exists(place):
            os.unlink(place)
        damaged.bench.write(damaged.context, {"f": f"other {number}\n"})
        changed = damaged.bench.good(damaged.context)
        assert damaged.bench.read("t", "both") == f"other {number}\nruntime\n".encode()
        assert changed.image != damaged.image
        damaged.bench.write(damaged.context, {"f": "content\n"})
    damaged.check_healed()


@pytest.mark.parametrize("harm", [truncate, garble, lambda path: os.truncate(path, 0)], ids=["torn", "other", "empty"])
@pytest.mark.parametrize("folder", ["records", "noop", "contexts", "builds"])
def test_what_is_kept_to_save_time(damaged: Damaged, folder: str, harm: Callable[[str], None]) -> None:
    files = damaged.files("cache", folder)
    assert files
    for path in files:
        harm(path)
    damaged.check_healed()


def test_cache_records_of_another_shape(damaged: Damaged) -> None:
    shapes = ["null", "[]", '{"snapshot":1}', '{"snapshot":"../x","parent":"","layers":{"a":[1]}}']
    for number, path in enumerate(damaged.files("cache", "records")):
        with open(path, "w", encoding="utf-8") as file:
            file.write(shapes[number % len(shapes)])
    damaged.check_healed()


@pytest.mark.parametrize("folder", ["tmp", "cache", "snapshots", "generation"])
def test_a_part_of_the_store_is_gone(damaged: Damaged, folder: str) -> None:
    place = damaged.path(folder)
    if os.path.isdir(place):
        shutil.rmtree(place)
    elif os.path.exists(place):
        os.unlink(place)
    damaged.bench.write(damaged.context, {"f": "other\n"})
    damaged.bench.good(damaged.context)
    damaged.bench.write(damaged.context, {"f": "content\n"})
    damaged.check_healed()


def test_all_blobs_are_gone(damaged: Damaged) -> None:
    shutil.rmtree(damaged.path("blobs"))
    damaged.check_named("sha256:")


@pytest.mark.parametrize("harm", [truncate, garble], ids=["torn", "other"])
def test_the_list_of_images(damaged: Damaged, harm: Callable[[str], None]) -> None:
    harm(damaged.path("index.json"))
    damaged.check_named("list of images")
