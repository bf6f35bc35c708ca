from __future__ import annotations

import io
import json
import os
import stat
import tarfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from castoff.errors import BlobNotFoundError, DigestMismatchError, ExportError, InvalidImageError, StoreError
from castoff.events import NullObserver, StatusEvent
from castoff.export.archive import DockerArchiveExporter
from castoff.export.exporter import ImageResult
from castoff.export.layout import LayoutExporter
from castoff.export.placement import new_file
from castoff.image.image import StoredImage
from castoff.oci.digest import Digest
from castoff.oci.reference import Reference
from castoff.store.directory import DirectoryStore
from castoff.store.memory import MemoryStore
from castoff.testing.random_images import index_of, random_image, random_index

if TYPE_CHECKING:
    from castoff.oci.descriptor import Descriptor
    from castoff.store.blobs import BlobStore

TIME = "1980-01-01T00:00:00Z"


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def result(store: MemoryStore | DirectoryStore, descriptor: Descriptor, *references: str) -> ImageResult:
    blobs: BlobStore = store.blobs
    return ImageResult(descriptor, tuple(map(Reference.parse, references)), blobs, TIME)


def read_tar(path: str | Path) -> dict[str, bytes]:
    found = {}
    with tarfile.open(path, "r:") as archive:
        for info in archive:
            file = archive.extractfile(info) if info.isreg() else None
            found[info.name] = file.read() if file else b""
    return found


def read_folder(path: Path) -> dict[str, bytes]:
    return {str(one.relative_to(path)): one.read_bytes() for one in path.rglob("*") if one.is_file()}


class Recorder(NullObserver):
    def __init__(self) -> None:
        self.events: list[StatusEvent] = []

    def status(self, event: StatusEvent) -> None:
        self.events.append(event)


def test_a_layout_archive(store: MemoryStore, tmp_path: Path) -> None:
    image = random_image(store)
    report = LayoutExporter(str(tmp_path / "o.tar")).export(result(store, image, "app:1"), NullObserver())
    files = read_tar(tmp_path / "o.tar")
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    (entry,) = json.loads(files["index.json"])["manifests"]
    assert entry["digest"] == str(image.digest)
    assert entry["annotations"] == {
        "io.containerd.image.name": "docker.io/library/app:1",
        "org.opencontainers.image.created": TIME,
        "org.opencontainers.image.ref.name": "1",
    }
    for digest in store.blobs:
        assert files[f"blobs/sha256/{digest.hex}"] == store.blobs.read(digest)
    assert len(files) == 2 + 2 + len(list(store.blobs))
    assert report.size == (tmp_path / "o.tar").stat().st_size
    assert report.digest == image.digest
    assert os.listdir(tmp_path) == ["o.tar"]


def test_archives_are_sorted_and_without_times(store: MemoryStore, tmp_path: Path) -> None:
    image = random_image(store)
    for name in ("a", "b"):
        LayoutExporter(str(tmp_path / name)).export(result(store, image, "x"), NullObserver())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with tarfile.open(tmp_path / "a") as archive:
        names = [info.name + "/" * info.isdir() for info in archive.getmembers()]
        assert names == sorted(names)
        assert {(info.mtime, info.uid, info.gid, info.uname) for info in archive.getmembers()} == {(0, 0, 0, "")}


def test_each_name_has_an_entry(store: MemoryStore, tmp_path: Path) -> None:
    image = random_image(store)
    LayoutExporter(str(tmp_path / "o")).export(result(store, image, "a:1", "ghcr.io/b/c:2"), NullObserver())
    entries = json.loads(read_tar(tmp_path / "o")["index.json"])["manifests"]
    assert [entry["annotations"]["io.containerd.image.name"] for entry in entries] == [
        "docker.io/library/a:1",
        "ghcr.io/b/c:2",
    ]


def test_without_a_name(store: MemoryStore, tmp_path: Path) -> None:
    LayoutExporter(str(tmp_path / "o")).export(result(store, random_image(store)), NullObserver())
    (entry,) = json.loads(read_tar(tmp_path / "o")["index.json"])["manifests"]
    assert entry["annotations"] == {"org.opencontainers.image.created": TIME}


def test_a_layout_folder_is_made(store: MemoryStore, tmp_path: Path) -> None:
    image = random_image(store)
    LayoutExporter(str(tmp_path / "o"), tar=False).export(result(store, image, "app:1"), NullObserver())
    files = read_folder(tmp_path / "o")
    assert set(files) == {"index.json", "oci-layout"} | {f"blobs/sha256/{digest.hex}" for digest in store.blobs}
    assert os.listdir(tmp_path) == ["o"]


def test_a_layout_folder_is_added_to(store: MemoryStore, tmp_path: Path) -> None:
    exporter = LayoutExporter(str(tmp_path / "o"), tar=False)
    one, two, three = (random_image(store, seed=seed) for seed in range(3))
    exporter.export(result(store, one, "app:1"), NullObserver())
    exporter.export(result(store, two, "app:2"), NullObserver())
    exporter.export(result(store, three, "app:1"), NullObserver())
    exporter.export(result(store, three), NullObserver())
    exporter.export(result(store, three), NullObserver())
    entries = json.loads((tmp_path / "o/index.json").read_bytes())["manifests"]
    named = [(e["digest"], e["annotations"].get("org.opencontainers.image.ref.name")) for e in entries]
    assert named == [(str(two.digest), "2"), (str(three.digest), "1"), (str(three.digest), None)]


def test_an_empty_folder_becomes_a_layout(store: MemoryStore, tmp_path: Path) -> None:
    LayoutExporter(str(tmp_path), tar=False).export(result(store, random_image(store), "a"), NullObserver())
    assert {"oci-layout", "index.json", "blobs"} == set(os.listdir(tmp_path))


@pytest.mark.parametrize("kind", ["file", "other folder", "broken layout"])
def test_what_can_not_become_a_layout(store: MemoryStore, tmp_path: Path, kind: str) -> None:
    dest = tmp_path / "o"
    if kind == "file":
        dest.write_text("x")
    else:
        dest.mkdir()
        (dest / "letter").write_text("x")
        if kind == "broken layout":
            (dest / "oci-layout").write_text("{}")
            (dest / "index.json").write_text("7")
    with pytest.raises(ExportError):
        LayoutExporter(str(dest), tar=False).export(result(store, random_image(store), "a"), NullObserver())
    assert os.listdir(tmp_path) == ["o"]


def test_a_blob_that_a_layout_folder_has_cut_short_is_written_anew(store: MemoryStore, tmp_path: Path) -> None:
    image = random_image(store)
    exporter = LayoutExporter(str(tmp_path / "o"), tar=False)
    exporter.export(result(store, image, "a"), NullObserver())
    blob = tmp_path / f"o/blobs/sha256/{image.digest.hex}"
    blob.write_bytes(b"")
    exporter.export(result(store, image, "a"), NullObserver())
    assert blob.read_bytes() == store.blobs.read(image.digest)


def test_a_docker_archive(store: MemoryStore, tmp_path: Path) -> None:
    image = random_image(store)
    DockerArchiveExporter(str(tmp_path / "d")).export(result(store, image, "app:1", "ghcr.io/b/c:2"), NullObserver())
    files = read_tar(tmp_path / "d")
    (entry,) = json.loads(files["manifest.json"])
    manifest = StoredImage(store.blobs, image).manifest()
    assert entry == {
        "Config": f"blobs/sha256/{manifest.config.digest.hex}",
        "RepoTags": ["app:1", "ghcr.io/b/c:2"],
        "Layers": [f"blobs/sha256/{layer.digest.hex}" for layer in manifest.layers],
    }
    assert all(name in files for name in (entry["Config"], *entry["Layers"], "oci-layout", "index.json"))


def test_several_images_share_their_layers(store: MemoryStore, tmp_path: Path) -> None:
    one, two = random_image(store, seed=1), random_image(store, seed=2)
    results = [result(store, one, "a"), result(store, two, "b"), result(store, one, "c")]
    DockerArchiveExporter(str(tmp_path / "d")).export_all(results, NullObserver())
    with tarfile.open(tmp_path / "d") as archive:
        names = archive.getnames()
    assert len(names) == len(set(names))
    assert len(json.loads(read_tar(tmp_path / "d")["manifest.json"])) == 3


def test_a_docker_archive_is_for_one_platform(store: MemoryStore, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="for one platform"):
        DockerArchiveExporter(str(tmp_path / "d")).export(result(store, random_index(store), "a"), NullObserver())
    one = random_image(store)
    index = index_of(store.blobs, [one, random_image(MemoryStore(), seed="elsewhere")])
    DockerArchiveExporter(str(tmp_path / "d")).export(result(store, index, "a"), NullObserver())
    assert len(json.loads(read_tar(tmp_path / "d")["manifest.json"])) == 1


def test_an_index_is_written_with_all_its_images(store: MemoryStore, tmp_path: Path) -> None:
    index = random_index(store)
    LayoutExporter(str(tmp_path / "o")).export(result(store, index, "a"), NullObserver())
    assert {f"blobs/sha256/{digest.hex}" for digest in store.blobs} <= set(read_tar(tmp_path / "o"))


def test_a_missing_layer_leaves_nothing(store: MemoryStore, tmp_path: Path) -> None:
    image = random_image(store)
    store.blobs.delete(StoredImage(store.blobs, image).layers()[0].descriptor.digest)
    for exporter in (LayoutExporter(str(tmp_path / "o")), LayoutExporter(str(tmp_path / "o"), tar=False)):
        with pytest.raises(BlobNotFoundError):
            exporter.export(result(store, image, "a"), NullObserver())
    assert os.listdir(tmp_path) == []


def test_a_blob_of_the_wrong_size_leaves_the_old_file(store: MemoryStore, tmp_path: Path) -> None:
    image = random_image(store)
    digest = StoredImage(store.blobs, image).layers()[0].descriptor.digest
    store.blobs._blobs[digest] += b"x"
    (tmp_path / "o").write_text("old")
    with pytest.raises(StoreError, match="does not have the"):
        LayoutExporter(str(tmp_path / "o")).export(result(store, image, "a"), NullObserver())
    with pytest.raises(StoreError, match="does not have the"):
        LayoutExporter(str(tmp_path / "new"), tar=False).export(result(store, image, "a"), NullObserver())
    assert read_folder(tmp_path) == {"o": b"old"}


def test_a_short_blob_of_a_folder_store_is_noticed(tmp_path: Path) -> None:
    with DirectoryStore.open_(str(tmp_path / "store")) as store:
        image = random_image(store)
        path = Path(store.blobs.path(StoredImage(store.blobs, image).layers()[0].descriptor.digest))
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(StoreError, match="does not have the"):
            LayoutExporter(str(tmp_path / "o")).export(result(store, image, "a"), NullObserver())
    assert not (tmp_path / "o").exists()


def test_an_existing_file_is_replaced_whole(store: MemoryStore, tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.write_text("old")
    (tmp_path / "link").symlink_to("real")
    LayoutExporter(str(tmp_path / "link")).export(result(store, random_image(store), "a"), NullObserver())
    assert (tmp_path / "link").is_symlink()
    assert "index.json" in read_tar(real)


def test_a_new_file_has_the_mode_that_the_umask_says(store: MemoryStore, tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        LayoutExporter(str(tmp_path / "o")).export(result(store, random_image(store), "a"), NullObserver())
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "o").stat().st_mode) == 0o640


def test_a_folder_is_no_file(store: MemoryStore, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="it is a folder"):
        LayoutExporter(str(tmp_path)).export(result(store, random_image(store), "a"), NullObserver())
    with pytest.raises(ExportError, match="does not exist"):
        LayoutExporter(str(tmp_path / "none/o")).export(result(store, random_image(store), "a"), NullObserver())


@pytest.mark.parametrize("kind", ["memory", "directory"])
def test_standard_output_may_be_a_pipe(tmp_path: Path, kind: str) -> None:
    store = MemoryStore() if kind == "memory" else DirectoryStore.open_(str(tmp_path / "store"))
    image = random_image(store, size=200_000)
    reading, writing = os.pipe()
    got = io.BytesIO()

    def drain() -> None:
        with os.fdopen(reading, "rb") as pipe:
            got.write(pipe.read())

    thread = threading.Thread(target=drain)
    thread.start()
    with os.fdopen(writing, "wb") as stdout:
        LayoutExporter("-", stdout=stdout).export(result(store, image, "a"), NullObserver())
    thread.join()
    LayoutExporter(str(tmp_path / "o")).export(result(store, image, "a"), NullObserver())
    assert got.getvalue() == (tmp_path / "o").read_bytes()
    if isinstance(store, DirectoryStore):
        store.close()


def test_a_fifo_is_written_directly(store: MemoryStore, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    got: list[bytes] = []
    thread = threading.Thread(target=lambda: got.append((tmp_path / "fifo").read_bytes()))
    thread.start()
    LayoutExporter(str(tmp_path / "fifo")).export(result(store, random_image(store), "a"), NullObserver())
    thread.join()
    assert len(got[0]) > 1000
    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)


def test_a_reader_that_goes_away_is_an_error(store: MemoryStore) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as stdout, pytest.raises(ExportError, match="the reader has gone"):
        LayoutExporter("-", stdout=stdout).export(result(store, random_image(store), "a"), NullObserver())


def test_progress_counts_the_bytes(store: MemoryStore, tmp_path: Path) -> None:
    recorder = Recorder()
    report = LayoutExporter(str(tmp_path / "o")).export(result(store, random_image(store), "a"), recorder, "v")
    assert recorder.events[-1].done
    assert recorder.events[-1].current == report.size
    assert {(event.vertex, event.name) for event in recorder.events} == {("v", "sending tarball")}


def test_nothing_to_export(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no image"):
        LayoutExporter(str(tmp_path / "o")).export_all([], NullObserver())
    with pytest.raises(ExportError, match="no image"):
        DockerArchiveExporter(str(tmp_path / "o")).export_all([], NullObserver())


def test_a_document_that_is_no_manifest(store: MemoryStore, tmp_path: Path) -> None:
    data = b'{"schemaVersion":2}'
    bad = replace(random_image(store), digest=store.blobs.add(data), size=len(data))
    with pytest.raises(InvalidImageError):
        LayoutExporter(str(tmp_path / "o")).export(result(store, bad, "a"), NullObserver())
    assert Digest.of(data) == bad.digest


@pytest.mark.parametrize("form", ["archive", "folder", "docker"])
def test_a_damaged_blob_is_never_shipped(tmp_path: Path, form: str) -> None:
    target = tmp_path / "o"
    target.mkdir()
    with DirectoryStore.open_(str(tmp_path / "store")) as store:
        image = random_image(store)
        with open(store.blobs.path(StoredImage(store.blobs, image).layers()[0].descriptor.digest), "r+b") as file:
            file.write(b"\xa5\xa5")
        exporter = (
            DockerArchiveExporter(str(target / "o"))
            if form == "docker"
            else LayoutExporter(str(target / "o"), tar=form == "archive")
        )
        with pytest.raises(DigestMismatchError, match="is damaged"):
            exporter.export(result(store, image, "a"), NullObserver())
    assert os.listdir(target) == []


def test_a_damaged_blob_of_a_layout_folder_is_written_anew(store: MemoryStore, tmp_path: Path) -> None:
    image = random_image(store)
    LayoutExporter(str(tmp_path / "o"), tar=False).export(result(store, image, "a"), NullObserver())
    before = read_folder(tmp_path)
    digest = StoredImage(store.blobs, image).layers()[0].descriptor.digest
    with open(tmp_path / "o" / "blobs" / "sha256" / digest.hex, "r+b") as file:
        file.write(b"\xa5\xa5")
    LayoutExporter(str(tmp_path / "o"), tar=False).export(result(store, image, "a"), NullObserver())
    assert read_folder(tmp_path) == before


def test_what_a_killed_export_left_is_swept_and_nothing_else(store: MemoryStore, tmp_path: Path) -> None:
    mark = ".castoff-0123456789ab"
    living, path = new_file(str(tmp_path / "o"))
    kept = {os.path.basename(path), f".other{mark}", ".o.0123456789ab", ".o.castoff-notes", f".o{mark}.txt"}
    for name in kept - {os.path.basename(path)}:
        (tmp_path / name).write_text("mine")
    (tmp_path / f".o{mark}").write_text("left")
    (tmp_path / ".o.castoff-ba9876543210").mkdir()
    (tmp_path / ".o.castoff-ba9876543210" / "f").write_text("left")
    LayoutExporter(str(tmp_path / "o")).export(result(store, random_image(store), "a"), NullObserver())
    assert set(os.listdir(tmp_path)) == kept | {"o"}
    os.close(living)
    LayoutExporter(str(tmp_path / "o")).export(result(store, random_image(store), "a"), NullObserver())
    assert set(os.listdir(tmp_path)) == (kept | {"o"}) - {os.path.basename(path)}


def test_names_of_many_bytes(store: MemoryStore, tmp_path: Path) -> None:
    name = "\N{SNOWMAN}" * 80
    LayoutExporter(str(tmp_path / name)).export(result(store, random_image(store), "a"), NullObserver())
    LayoutExporter(str(tmp_path / (name + "f")), tar=False).export(
        result(store, random_image(store), "a"), NullObserver()
    )
    assert sorted(os.listdir(tmp_path)) == [name, name + "f"]
