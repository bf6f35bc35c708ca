"""Looking a store over: what is damaged is named, what is left over is told apart, and a repair removes both."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from castoff.errors import StoreError
from castoff.image.image import StoredImage
from castoff.oci.reference import Reference
from castoff.ops.storecheck import check_store
from castoff.ops.storerepair import repair_store
from castoff.store.directory import DirectoryStore
from castoff.testing.random_images import random_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DirectoryStore]:
    """Give a store with a tagged image, a snapshot on another one, and a cache record."""
    with DirectoryStore.open_(str(tmp_path / "store")) as store:
        store.images.set_(Reference.parse("a"), random_image(store), 1.0)
        for name, parent in (("base", ""), ("top", "base")):
            os.makedirs(f"{store.snapshots}/{name}/fs")
            write(f"{store.snapshots}/{name}/parent", parent)
        os.makedirs(f"{store.cache}/records/ab")
        write(f"{store.cache}/records/ab/cd", '{"snapshot":"top","parent":"base"}')
        yield store


def write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def layer(store: DirectoryStore) -> str:
    """Return the path of a layer's blob."""
    return store.blobs.path(StoredImage(store.blobs, store.images.find("a").descriptor).layers()[0].descriptor.digest)


def garble(store: DirectoryStore) -> None:
    with open(layer(store), "r+b") as file:
        file.write(b"\xa5\xa5")


def test_a_whole_store(store: DirectoryStore) -> None:
    report = check_store(store)
    assert (report.problems, report.leftovers) == ([], [])
    assert (report.images, report.snapshots, report.records) == (1, 2, 1)
    assert report.blobs == len(list(store.blobs))


DAMAGE: dict[str, tuple[Callable[[DirectoryStore], None], set[str], set[str]]] = {
    "a garbled blob": (garble, {"blob", "image"}, {"image"}),
    "a missing blob": (lambda store: os.unlink(layer(store)), {"image"}, {"image"}),
    "a snapshot without files": (lambda store: os.rmdir(f"{store.snapshots}/top/fs"), {"snapshot"}, set()),
    "a parent without a record": (lambda store: os.unlink(f"{store.snapshots}/base/parent"), {"snapshot"}, set()),
    "a torn record": (lambda store: os.truncate(f"{store.cache}/records/ab/cd", 9), {"record"}, set()),
    "a torn index": (lambda store: os.truncate(f"{store.root}/index.json", 9), {"store"}, {"store"}),
    "a torn generation": (lambda store: write(f"{store.root}/generation", "x"), {"store"}, set()),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_named_and_repaired(store: DirectoryStore, case: str) -> None:
    harm, found, left = DAMAGE[case]
    harm(store)
    assert {problem.part for problem in check_store(store).problems} == found
    report, removed = repair_store(store)
    assert {problem.part for problem in report.problems} == left
    assert bool(removed) == (found != left)
    assert repair_store(store)[1] == []


def test_a_repair_counts_a_generation(store: DirectoryStore) -> None:
    garble(store)
    before = store.generation()
    repair_store(store)
    assert store.generation() > before
    write(f"{store.root}/generation", "x")
    repair_store(store)
    assert store.generation() > 1_000_000_000, "never a number that an old record may have"


def test_what_is_left_over_is_no_damage(store: DirectoryStore) -> None:
    left = [f"{store.root}/tmp/1-ab", f"{store.cache}/records/ab/cd.7.ab.1", f"{store.root}/.castoff.json.0123456789ab"]
    for path in left:
        write(path, "")
    report = check_store(store, alone=True)
    assert report.problems == []
    assert set(report.leftovers) == set(left)
    assert set(repair_store(store)[1]) == set(left)
    assert check_store(store, alone=True).leftovers == []


def test_nothing_is_repaired_beside_another_process(store: DirectoryStore) -> None:
    garble(store)
    with DirectoryStore.open_(store.root) as other:
        other.session()
        with pytest.raises(StoreError, match="another castoff"):
            repair_store(store)
    assert os.path.exists(layer(store))


def test_a_damaged_blob_is_healed_by_storing_it_again(store: DirectoryStore) -> None:
    with open(layer(store), "rb") as file:
        data = file.read()
    garble(store)
    store.blobs.add(data)
    assert check_store(store).problems == []
