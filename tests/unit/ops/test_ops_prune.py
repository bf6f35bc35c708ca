"""Pruning a real store, its snapshots and records made by hand."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from castoff.image.image import StoredImage
from castoff.oci.reference import Reference
from castoff.ops.filesystem import snapshot_name
from castoff.ops.prune import PruneReport, PruneRequest, prune
from castoff.ops.pruneitems import disk_size, take_inventory
from castoff.snapshot.overlay import OverlaySnapshotter
from castoff.solve.cache import CacheRecord, DirectoryCacheStore, LayerRecord
from castoff.solve.cachekey import CacheKey, cache_key
from castoff.store.directory import DirectoryStore
from castoff.testing.random_images import random_image, random_layer

if TYPE_CHECKING:
    from castoff.oci.descriptor import Descriptor

NOW = 1_700_000_000.0
PAGE = 4096


class Rig:
    """A store with helpers to fill it."""

    def __init__(self, root: str) -> None:
        self.store = DirectoryStore.open_(root)
        self.session = self.store.session()
        self.snapshots = OverlaySnapshotter(self.store.snapshots, self.session, userxattr=False)
        self.cache = DirectoryCacheStore(f"{self.store.cache}/records")

    def snapshot(self, parent: str = "", size: int = PAGE, name: str | None = None) -> str:
        active = self.snapshots.prepare(parent or None)
        Path(active.upper, "file").write_bytes(b"x" * size)
        return self.snapshots.commit(active, name)

    def record(self, snapshot: str, used: float = NOW, layers: dict[str, LayerRecord] | None = None) -> CacheKey:
        key = cache_key("test", snapshot, str(used))
        self.cache.save(key, CacheRecord(snapshot, "", layers or {}))
        path = self.cache._path(key)
        os.utime(path, (used, used))
        return key

    def layer(self, seed: str) -> LayerRecord:
        layer = random_layer(self.store.blobs, seed=seed)
        blob = layer.descriptor
        return LayerRecord(str(layer.diff_id), str(blob.digest), blob.size, 0, blob.media_type)

    def mount(self, name: str, used: float = NOW, size: int = PAGE) -> Path:
        folder = Path(self.store.root, "cache-mounts", name)
        folder.mkdir(parents=True)
        (folder / "data").write_bytes(b"x" * size)
        lock = folder.with_name(f"{name}.lock")
        lock.touch()
        for path in (folder, lock):
            os.utime(path, (used, used))
        return folder

    def file(self, path: str, used: float = NOW) -> Path:
        full = Path(self.store.cache, path)
        full.parent.mkdir(parents=True, exist_ok=True)
        full.write_bytes(b"x" * PAGE)
        os.utime(full, (used, used))
        return full

    def prune(self, **request: object) -> PruneReport:
        return prune(self.store, self.snapshots, PruneRequest(**request))  # type: ignore[arg-type]

    def names(self) -> set[str]:
        return set(self.snapshots)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(str(tmp_path / "store"))
    yield rig
    rig.store.close()


def kinds(report: PruneReport) -> dict[str, int]:
    counted: dict[str, int] = {}
    for item in report.removed:
        counted[item.kind] = counted.get(item.kind, 0) + 1
    return counted


def blobs_of(rig: Rig, descriptor: Descriptor) -> set[str]:
    manifest = StoredImage(rig.store.blobs, descriptor).manifest()
    return {str(descriptor.digest), str(manifest.config.digest), *(str(layer.digest) for layer in manifest.layers)}


def test_an_empty_store_has_nothing_to_remove(rig: Rig) -> None:
    before = rig.store.generation()
    assert rig.prune() == PruneReport()
    assert rig.store.generation() == before


def test_images_without_a_name_go_and_named_ones_stay(rig: Rig) -> None:
    named = random_image(rig.store, "app:1", seed=1)
    untagged = random_image(rig.store, seed=2)
    rig.store.images.keep(untagged, NOW)
    before = rig.store.generation()
    report = rig.prune()
    assert kinds(report) == {"image": 1, "blob": 4}
    assert report.freed > 3000
    assert {str(digest) for digest in rig.store.blobs} == blobs_of(rig, named)
    assert [record.name for record in rig.store.images] == ["app:1"]
    assert rig.store.generation() > before


def test_an_image_that_has_a_layer_of_another_leaves_it(rig: Rig) -> None:
    named = random_image(rig.store, "app:1", seed=1, layers=1)
    both = random_image(rig.store, seed=1, layers=2)
    rig.store.images.keep(both, NOW)
    rig.prune()
    assert {str(digest) for digest in rig.store.blobs} == blobs_of(rig, named)


def test_blobs_that_nothing_names_go(rig: Rig) -> None:
    digest = rig.store.blobs.add(b"left by somebody")
    report = rig.prune()
    assert [(item.kind, item.name) for item in report.removed] == [("blob", str(digest))]
    assert report.freed == 16


def test_the_whole_build_cache_goes(rig: Rig) -> None:
    base = rig.snapshot()
    top = rig.snapshot(base)
    layer = rig.layer("a")
    rig.record(base)
    key = rig.record(top, layers={"v": layer})
    mount = rig.mount("m")
    noop, context = rig.file("noop/abc"), rig.file("contexts/abc")
    download = rig.file("downloads/abc")
    report = rig.prune()
    assert rig.names() == set()
    assert rig.cache.load(key) is None
    assert list(rig.store.blobs) == []
    assert not mount.exists()
    assert not mount.with_name("m.lock").exists()
    assert (noop.exists(), context.exists(), download.exists()) == (False, False, True)
    assert kinds(report) == {"snapshot": 2, "layer": 1, "cache-mount": 1, "download": 1, "record": 2}
    assert report.kept == 0
    assert report.freed >= 4 * PAGE


def test_downloads_go_with_everything(rig: Rig) -> None:
    download, base = rig.file("downloads/abc"), rig.file("bases/def")
    rig.prune(everything=True)
    assert not download.exists()
    assert not base.exists()


def test_snapshots_of_named_images_stay_unless_everything_goes(rig: Rig) -> None:
    image = StoredImage(rig.store.blobs, random_image(rig.store, "app:1", layers=2))
    one, two = (str(layer.diff_id) for layer in image.layers())
    lower = rig.snapshot("", name=snapshot_name("", one))
    upper = rig.snapshot(lower, name=snapshot_name(lower, two))
    step = rig.snapshot(upper)
    rig.record(step)
    rig.prune()
    assert rig.names() == {lower, upper}
    assert rig.prune() == PruneReport()
    rig.prune(everything=True)
    assert rig.names() == set()


def test_what_a_container_stands_on_stays(rig: Rig) -> None:
    untagged = random_image(rig.store, seed=7)
    rig.store.images.keep(untagged, NOW)
    lower = rig.snapshot()
    upper = rig.snapshot(lower)
    other = rig.snapshot(lower)
    folder = Path(rig.store.root, "containers", "c" * 64)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"snapshot": upper, "image": str(untagged.digest)}))
    report = rig.prune(everything=True)
    assert rig.names() == {lower, upper}
    assert [item.name for item in report.removed] == [other]
    assert {str(digest) for digest in rig.store.blobs} == blobs_of(rig, untagged)


def test_the_last_used_of_the_cache_stays(rig: Rig) -> None:
    old, new = rig.snapshot(size=10 * PAGE), rig.snapshot(size=10 * PAGE)
    old_key, new_key = rig.record(old, NOW - 1000), rig.record(new, NOW)
    older = rig.mount("older", NOW - 2000)
    newer = rig.mount("newer", NOW + 1)
    size = disk_size(f"{rig.store.snapshots}/{new}") + disk_size(str(newer))
    report = rig.prune(keep_bytes=size)
    assert rig.names() == {new}
    assert rig.cache.load(old_key) is None
    assert rig.cache.load(new_key) is not None
    assert (older.exists(), newer.exists()) == (False, True)
    assert report.kept == size
    assert [item.kind for item in report.removed if item.kind != "record"] == ["cache-mount", "snapshot"]
    assert rig.prune(keep_bytes=size) == PruneReport(kept=size)


def test_a_cache_within_its_size_is_left_alone(rig: Rig) -> None:
    key = rig.record(rig.snapshot())
    assert rig.prune(keep_bytes=1 << 30).removed == ()
    assert rig.cache.load(key) is not None


def test_what_nothing_refers_to_goes_even_where_the_cache_is_small(rig: Rig) -> None:
    kept = rig.snapshot()
    rig.record(kept)
    orphan = rig.snapshot(kept)
    stray = Path(rig.store.cache, "records", "ab", "cdef.123.4.5")
    stray.parent.mkdir(parents=True, exist_ok=True)
    stray.write_text("{}")
    report = rig.prune(keep_bytes=1 << 30)
    assert rig.names() == {kept}
    assert ("snapshot", orphan) in {(item.kind, item.name) for item in report.removed}
    assert not stray.exists()


def test_a_parent_is_used_when_its_child_is(rig: Rig) -> None:
    parent = rig.snapshot()
    child = rig.snapshot(parent)
    other = rig.snapshot()
    rig.record(parent, NOW - 5000)
    rig.record(child, NOW)
    rig.record(other, NOW - 100)
    rig.prune(before=NOW - 50)
    assert rig.names() == {parent, child}


def test_until_spares_what_is_younger(rig: Rig) -> None:
    young, old = random_image(rig.store, seed=1), random_image(rig.store, seed=2)
    rig.store.images.keep(young, NOW)
    rig.store.images.keep(old, NOW - 1000)
    layer = rig.layer("young")
    fresh, stale = rig.record("", NOW, {"v": layer}), rig.record("", NOW - 1000, {"v": rig.layer("old")})
    mount = rig.mount("m", NOW - 1000)
    rig.prune(before=NOW - 500)
    assert [record.descriptor.digest for record in rig.store.images] == [young.digest]
    assert rig.cache.load(fresh) is not None
    assert rig.cache.load(stale) is None
    assert {str(digest) for digest in rig.store.blobs} == {*blobs_of(rig, young), layer.digest}
    assert not mount.exists()


def test_using_a_record_makes_it_younger(rig: Rig) -> None:
    name = rig.snapshot()
    key = rig.record(name, 1000.0)
    rig.cache.load(key)
    (item,) = take_inventory(rig.store, rig.snapshots).items
    assert item.used > NOW


def test_notes_of_builds_stay_with_their_images(rig: Rig) -> None:
    image = StoredImage(rig.store.blobs, random_image(rig.store, "app:1"))
    kept, gone = rig.file(f"builds/{image.config_digest().hex}"), rig.file("builds/" + "0" * 64)
    rig.record(rig.snapshot())
    rig.prune()
    assert (kept.exists(), gone.exists()) == (True, False)


def test_nothing_is_removed_while_another_uses_the_store(rig: Rig) -> None:
    rig.store.images.keep(random_image(rig.store, seed=1), NOW)
    name = rig.snapshot()
    other = DirectoryStore.open_(rig.store.root)
    other.session()
    try:
        assert rig.prune(everything=True) == PruneReport(deferred=True)
    finally:
        other.close()
    assert rig.names() == {name}
    assert not rig.prune(everything=True).deferred
    assert rig.names() == set()


def test_a_mount_that_is_locked_is_left(rig: Rig) -> None:
    folder = rig.mount("m")
    with open(f"{folder}.lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        report = rig.prune()
    assert report.refused == (str(folder),)
    assert folder.exists()
    assert not report.removed


def test_a_damaged_image_is_no_obstacle(rig: Rig) -> None:
    descriptor = random_image(rig.store, "app:1")
    path = rig.store.blobs.path(StoredImage(rig.store.blobs, descriptor).config_digest())
    Path(path).write_bytes(b"damaged")
    rig.record(rig.snapshot())
    rig.prune()
    assert rig.names() == set()
    assert rig.store.images.get(Reference.parse("app:1")) is not None
    assert os.path.exists(path)


def test_hard_links_are_counted_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 10 * PAGE)
    single = disk_size(str(tmp_path))
    os.link(tmp_path / "a", tmp_path / "b")
    assert disk_size(str(tmp_path)) == single
