from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from castoff.errors import BlobNotFoundError, StoreError
from castoff.oci.descriptor import Descriptor
from castoff.oci.digest import Digest
from castoff.oci.reference import Reference
from castoff.store.directory import DirectoryStore
from castoff.store.gc import closure, collect, reachable
from castoff.store.images import ImageRecord, ImageTable, format_time, parse_time
from castoff.store.memory import MemoryStore
from castoff.testing.random_images import random_image, random_index

if TYPE_CHECKING:
    from castoff.store.store import Store


@pytest.fixture(params=["directory", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
    else:
        with DirectoryStore.open_(str(tmp_path / "store")) as opened:
            yield opened


def ref(text: str) -> Reference:
    return Reference.parse(text)


def names(store: Store) -> list[str]:
    return sorted(record.name for record in store.images)


def test_a_tag_names_an_image(store: Store) -> None:
    image = random_image(store)
    store.images.set_(ref("app:1"), image, 1000.5)
    found = store.images.get(ref("docker.io/library/app:1"))
    assert found is not None
    assert found == image
    assert store.images.get(ref("app:2")) is None
    (record,) = store.images
    assert record.name == "app:1"
    assert record.created == 1000.5


def test_an_image_may_have_several_names(store: Store) -> None:
    image = random_image(store)
    for name in ("b:1", "a:1", "ghcr.io/o/r:2"):
        store.images.set_(ref(name), image, 1)
    assert names(store) == ["a:1", "b:1", "ghcr.io/o/r:2"]


def test_a_tag_that_moves_leaves_its_image_without_a_name(store: Store) -> None:
    old, new = random_image(store, seed=1), random_image(store, seed=2)
    store.images.set_(ref("app"), old, 1)
    store.images.set_(ref("app"), new, 2)
    assert names(store) == ["<none>", "app:latest"]
    assert store.images.get(ref("app")) == new


def test_an_image_with_another_name_left_does_not_become_nameless(store: Store) -> None:
    old, new = random_image(store, seed=1), random_image(store, seed=2)
    store.images.set_(ref("app"), old, 1)
    store.images.set_(ref("app:old"), old, 1)
    store.images.set_(ref("app"), new, 2)
    assert names(store) == ["app:latest", "app:old"]


def test_tagging_the_same_again_changes_nothing(store: Store) -> None:
    image = random_image(store)
    store.images.set_(ref("app"), image, 1)
    store.images.set_(ref("app"), image, 2)
    (record,) = store.images
    assert record.created == 1


def test_a_nameless_image_is_listed_once_and_gets_a_name(store: Store) -> None:
    image = random_image(store)
    store.images.keep(image, 1)
    store.images.keep(image, 2)
    assert names(store) == ["<none>"]
    store.images.set_(ref("app"), image, 3)
    assert names(store) == ["app:latest"]
    store.images.keep(image, 4)
    assert names(store) == ["app:latest"]


def test_removing_a_tag(store: Store) -> None:
    store.images.set_(ref("app"), random_image(store), 1)
    generation = store.generation()
    assert store.images.remove(ref("app"))
    assert store.generation() == generation + 1
    assert not store.images.remove(ref("app"))
    assert store.generation() == generation + 1
    assert names(store) == []


def test_removing_by_digest(store: Store) -> None:
    image = random_image(store)
    store.images.set_(ref("a"), image, 1)
    store.images.set_(ref("b"), image, 1)
    assert store.images.remove_digest(image.digest)
    assert names(store) == []


def test_a_reference_with_a_digest(store: Store) -> None:
    one, two = random_image(store, seed=1), random_image(store, seed=2)
    store.images.set_(ref("app:1"), one, 1)
    store.images.set_(ref("app:2"), two, 1)
    assert store.images.get(ref(f"app@{one.digest}")) == one
    assert store.images.get(ref(f"app:2@{one.digest}")) == one
    assert store.images.get(ref(f"other@{one.digest}")) is None
    store.images.set_(ref(f"pinned@{two.digest}"), two, 1)
    assert store.images.get(ref(f"pinned@{two.digest}")) == two
    with pytest.raises(StoreError, match="digests differ"):
        store.images.set_(ref(f"pinned@{two.digest}"), one, 1)


def test_what_is_not_in_the_store_can_not_be_named(store: Store) -> None:
    absent = Descriptor("application/vnd.oci.image.manifest.v1+json", Digest.of(b"absent"), 6)
    with pytest.raises(StoreError, match="not in the store"):
        store.images.set_(ref("app"), absent, 1)


def test_finding(store: Store) -> None:
    image = random_image(store)
    store.images.set_(ref("app:1"), image, 1)
    config = config_digest(store, image)
    for text in ("app:1", str(image.digest), image.digest.hex[:12], str(config), config.hex, config.hex[:4]):
        assert store.images.find(text).name == "app:1", text
    assert store.images.find(f"app@{image.digest}").descriptor == image


def test_finding_prefers_a_name_to_an_id(store: Store) -> None:
    one, two = random_image(store, seed=1), random_image(store, seed=2)
    prefix = config_digest(store, one).hex[:8]
    store.images.keep(one, 1)
    store.images.set_(ref(prefix), two, 1)
    assert store.images.find(prefix).descriptor == two


def test_finding_nothing(store: Store) -> None:
    with pytest.raises(BlobNotFoundError, match="no image in the store is 'app'"):
        store.images.find("app")
    with pytest.raises(BlobNotFoundError):
        store.images.find("0" * 64)


def test_an_ambiguous_beginning_is_an_error() -> None:
    store = MemoryStore()
    seen: set[str] = set()
    for seed in range(2000):
        image = random_image(store, layers=1, size=1, seed=seed)
        prefix = config_digest(store, image).hex[:4]
        if prefix in seen:
            break
        seen.add(prefix)
    else:
        pytest.fail("no two ids of 2000 begin with the same four digits")
    for other in range(seed + 1):
        store.images.keep(random_image(store, layers=1, size=1, seed=other), 1)
    with pytest.raises(StoreError, match=r"ids of \d images"):
        store.images.find(prefix)


def test_three_digits_are_a_reference(store: Store) -> None:
    image = random_image(store)
    store.images.keep(image, 1)
    with pytest.raises(BlobNotFoundError):
        store.images.find(image.digest.hex[:3])


def config_digest(store: Store, image: Descriptor) -> Digest:
    return Digest.parse(json.loads(store.blobs.read(image.digest))["config"]["digest"])


def test_an_index_is_found_by_the_config_of_each_platform(store: Store) -> None:
    index = random_index(store, "multi")
    children = json.loads(store.blobs.read(index.digest))["manifests"]
    for child in children:
        manifest = json.loads(store.blobs.read(Digest.parse(child["digest"])))
        assert store.images.find(manifest["config"]["digest"]).descriptor == index


def test_the_index_of_the_layout_has_the_names_that_others_look_for(tmp_path: Path) -> None:
    store = DirectoryStore.open_(str(tmp_path / "store"))
    store.images.set_(ref("devops-info-service-go"), random_image(store), 0.25)
    (entry,) = json.loads((tmp_path / "store/index.json").read_bytes())["manifests"]
    assert entry["annotations"] == {
        "dev.castoff.created": "1970-01-01T00:00:00.250000Z",
        "io.containerd.image.name": "docker.io/library/devops-info-service-go:latest",
        "org.opencontainers.image.ref.name": "devops-info-service-go:latest",
    }
    assert entry["platform"] == {"architecture": "amd64", "os": "linux"}


def test_entries_of_other_programs_are_read_and_kept(tmp_path: Path) -> None:
    store = DirectoryStore.open_(str(tmp_path / "store"))
    image = random_image(store)
    value = {
        "schemaVersion": 2,
        "annotations": {"own": "1"},
        "manifests": [
            {**image.to_json(), "annotations": {"org.opencontainers.image.ref.name": "web:2", "x": "y"}},
            {**image.to_json(), "annotations": {"org.opencontainers.image.ref.name": "NOT A REFERENCE"}},
        ],
    }
    path = tmp_path / "store/index.json"
    path.write_text(json.dumps(value))
    assert names(store) == ["<none>", "web:2"]
    store.images.set_(ref("new"), image, 1)
    written = json.loads(path.read_bytes())
    assert written["annotations"] == {"own": "1"}
    assert written["manifests"][0]["annotations"]["x"] == "y"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schemaVersion":2,"manifests":[7]}', '{"schemaVersion":1}'])
def test_a_broken_index_is_one_clear_error(tmp_path: Path, text: str) -> None:
    store = DirectoryStore.open_(str(tmp_path / "store"))
    (tmp_path / "store/index.json").write_text(text)
    with pytest.raises(StoreError, match="list of images"):
        list(store.images)
    with pytest.raises(StoreError, match="list of images"):
        store.images.keep(random_image(store), 1)
    assert (tmp_path / "store/index.json").read_text() == text


def test_a_store_that_another_process_changes_is_read_anew(tmp_path: Path) -> None:
    one = DirectoryStore.open_(str(tmp_path / "store"))
    two = DirectoryStore.open_(str(tmp_path / "store"))
    assert names(one) == []
    random_image(two, "app")
    assert names(one) == ["app:latest"]


def test_times_round_trip() -> None:
    for seconds in (0.5, 1_700_000_000.123456, 315532800.0):
        assert parse_time(format_time(seconds)) == seconds
    assert parse_time("") == 0
    assert parse_time("yesterday") == 0
    assert parse_time("2026-02-02T11:19:14+01:00") == parse_time("2026-02-02T10:19:14Z")


def test_records_round_trip() -> None:
    plain = Descriptor("application/vnd.oci.image.manifest.v1+json", Digest.of(b"x"), 1, annotations=(("k", "v"),))
    for record in (ImageRecord(ref("a/b:c"), plain, 2.0), ImageRecord(None, plain, 0.0)):
        assert ImageRecord.from_descriptor(record.to_descriptor()) == record
    assert ImageTable().get(ref("a")) is None


def test_what_images_need_is_reachable(store: Store) -> None:
    image, index = random_image(store, "app"), random_index(store, "multi")
    loose = store.blobs.add(b"loose")
    assert reachable(store) == set(store.blobs) - {loose}
    assert reachable(store) == closure(store.blobs, image) | closure(store.blobs, index)
    assert len(closure(store.blobs, image)) == 4


def test_collecting_removes_what_nothing_needs(tmp_path: Path) -> None:
    with DirectoryStore.open_(str(tmp_path / "store")) as store:
        random_image(store, "app", seed=1)
        random_image(store, "old", seed=2)
        extra = random_image(store, seed=3)
        cached, loose = store.blobs.add(b"cached"), store.blobs.add(b"loose")
        store.images.remove(ref("old"))
        generation = store.generation()
        report = collect(store, [extra], [cached])
        assert loose in report.removed
        assert len(report.removed) == 5
        assert report.freed > 2000
        assert store.generation() == generation + 1
        assert set(store.blobs) == reachable(store, [extra]) | {cached}
        assert collect(store, [extra], [cached]).removed == ()


def test_nothing_is_collected_while_another_process_uses_the_store(tmp_path: Path) -> None:
    root = str(tmp_path / "store")
    with DirectoryStore.open_(root) as busy, DirectoryStore.open_(root) as store:
        busy.session()
        blob = busy.blobs.add(b"not tagged yet")
        assert collect(store).deferred
        assert store.blobs.size(blob) is not None
        busy.close()
        assert collect(store).removed == (blob,)


def test_a_damaged_manifest_stops_no_collection(tmp_path: Path) -> None:
    with DirectoryStore.open_(str(tmp_path / "store")) as store:
        image = random_image(store, "app")
        Path(store.blobs.path(image.digest)).write_bytes(b"{}")
        assert image.digest not in collect(store).removed


def test_a_session_that_holds_no_blobs_stops_no_collection(tmp_path: Path) -> None:
    root = str(tmp_path / "store")
    with DirectoryStore.open_(root) as running, DirectoryStore.open_(root) as store:
        running.session(holds_blobs=False).new_dir()
        assert not collect(store).deferred
        blob = running.blobs.add(b"x")
        assert collect(store).deferred
        running.session(holds_blobs=False).release_blobs()
        assert collect(store).removed == (blob,)
