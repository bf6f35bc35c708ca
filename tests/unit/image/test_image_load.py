from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from castoff.errors import DigestMismatchError, InvalidImageError, StoreError
from castoff.events import NullObserver
from castoff.export.archive import DockerArchiveExporter
from castoff.export.exporter import ImageResult
from castoff.export.layout import LayoutExporter
from castoff.image.archivefiles import TarFiles
from castoff.image.image import StoredImage
from castoff.image.load import load, load_stream
from castoff.image.recompress import recompress
from castoff.image.validate import validate
from castoff.layer.compression import Compression
from castoff.oci.descriptor import Descriptor
from castoff.oci.digest import Digest
from castoff.oci.reference import Reference
from castoff.store.directory import DirectoryStore
from castoff.store.memory import MemoryStore
from castoff.testing.archives import Member, legacy_docker_members, tar_of
from castoff.testing.random_images import index_of, random_image, random_index


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DirectoryStore]:
    with DirectoryStore.open_(str(tmp_path / "store")) as opened:
        yield opened


@pytest.fixture
def source() -> MemoryStore:
    return MemoryStore()


def plain_image(source: MemoryStore, seed: object = 0) -> Descriptor:
    return recompress(source.blobs, random_image(source, seed=seed), Compression("none"), force=True)


def write(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


def names(store: DirectoryStore) -> list[str]:
    return sorted(record.name for record in store.images)


def result(source: MemoryStore, descriptor: Descriptor, *references: str) -> ImageResult:
    return ImageResult(descriptor, tuple(map(Reference.parse, references)), source.blobs)


def layout_members(source: MemoryStore, *entries: dict[str, object]) -> dict[str, bytes]:
    members = {f"blobs/sha256/{digest.hex}": source.blobs.read(digest) for digest in source.blobs}
    members["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    members["index.json"] = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    return members


def tar(members: dict[str, bytes]) -> bytes:
    return tar_of(Member(name, data) for name, data in members.items())


def test_old_docker_archives_with_linked_layers(store: DirectoryStore, source: MemoryStore, tmp_path: Path) -> None:
    image = plain_image(source)
    members = legacy_docker_members(source.blobs, [(image, ["app:1", "app:2"]), (image, ["ghcr.io/o/other:x"])])
    assert any(member.type == tarfile.SYMTYPE for member in members)
    loaded = load(write(tmp_path / "a.tar", tar_of(members)), store)
    assert names(store) == ["app:1", "app:2", "ghcr.io/o/other:x"]
    assert [one.config_digest for one in loaded] == [StoredImage(source.blobs, image).config_digest()] * 2
    assert loaded[0].descriptor.digest == image.digest
    validate(store.blobs, loaded[0].descriptor)


def test_a_docker_archive_with_compressed_layers(store: DirectoryStore, source: MemoryStore, tmp_path: Path) -> None:
    image = random_image(source)
    members = legacy_docker_members(source.blobs, [(image, ["app"])])
    (loaded,) = load(write(tmp_path / "a.tar", tar_of(members)), store)
    assert StoredImage(store.blobs, loaded.descriptor).manifest().layers == (
        StoredImage(source.blobs, image).manifest().layers
    )
    validate(store.blobs, loaded.descriptor)


@pytest.mark.parametrize(
    "compress",
    [gzip.compress, bz2.compress, lzma.compress, zstandard.ZstdCompressor().compress],
    ids=lambda f: str(f)[:20],
)
def test_compressed_archives(store: DirectoryStore, source: MemoryStore, tmp_path: Path, compress: object) -> None:
    assert callable(compress)
    data = tar_of(legacy_docker_members(source.blobs, [(plain_image(source), ["app"])]))
    load(write(tmp_path / "a.tar.x", compress(data)), store)
    assert names(store) == ["app:latest"]
    assert os.listdir(store.session().path) == []


def test_an_archive_from_a_pipe(store: DirectoryStore, source: MemoryStore) -> None:
    data = tar_of(legacy_docker_members(source.blobs, [(plain_image(source), ["app"])]))
    reading, writing = os.pipe()

    def feed() -> None:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(data)

    thread = threading.Thread(target=feed)
    thread.start()
    with os.fdopen(reading, "rb") as stream:
        load_stream(stream, store)
    thread.join()
    assert names(store) == ["app:latest"]


@pytest.mark.parametrize("form", ["oci", "folder", "docker"])
def test_what_castoff_writes_comes_back_the_same(
    store: DirectoryStore, source: MemoryStore, tmp_path: Path, form: str
) -> None:
    image = random_image(source)
    dest = str(tmp_path / "out")
    exporter = DockerArchiveExporter(dest) if form == "docker" else LayoutExporter(dest, tar=form == "oci")
    exporter.export(result(source, image, "app:1", "ghcr.io/o/r:2"), NullObserver())
    (loaded,) = load(dest, store, created=5.0)
    assert loaded.descriptor == image
    assert [str(name) for name in loaded.references] == ["docker.io/library/app:1", "ghcr.io/o/r:2"]
    assert names(store) == ["app:1", "ghcr.io/o/r:2"]
    assert {record.created for record in store.images} == {5.0}
    assert set(store.blobs) == set(source.blobs)


def test_an_index_comes_back_whole(store: DirectoryStore, source: MemoryStore, tmp_path: Path) -> None:
    index = random_index(source)
    LayoutExporter(str(tmp_path / "o")).export(result(source, index, "multi"), NullObserver())
    (loaded,) = load(str(tmp_path / "o"), store)
    assert loaded.descriptor == index
    assert loaded.config_digest is None
    validate(store.blobs, index)


def test_an_index_with_one_platform_missing(store: DirectoryStore, source: MemoryStore, tmp_path: Path) -> None:
    here, absent = random_image(source, seed=1), random_image(MemoryStore(), seed=2)
    index = index_of(source.blobs, [absent, here])
    load(write(tmp_path / "a", tar(layout_members(source, index.to_json()))), store)
    assert store.blobs.size(here.digest) is not None
    (record,) = store.images
    assert record.descriptor == index


def test_an_index_with_no_platform_there(store: DirectoryStore, source: MemoryStore, tmp_path: Path) -> None:
    index = index_of(source.blobs, [random_image(MemoryStore())])
    with pytest.raises(InvalidImageError, match="none of the images"):
        load(write(tmp_path / "a", tar(layout_members(source, index.to_json()))), store)


def test_indexes_that_are_nested_too_deeply(store: DirectoryStore, source: MemoryStore, tmp_path: Path) -> None:
    inner = random_index(source)
    outer = inner
    for _ in range(6):
        outer = index_of(source.blobs, [outer])
    with pytest.raises(InvalidImageError, match="nested more than"):
        load(write(tmp_path / "a", tar(layout_members(source, outer.to_json()))), store)


@pytest.mark.parametrize(
    ("annotations", "name"),
    [
        ({"io.containerd.image.name": "docker.io/library/app:1", "org.opencontainers.image.ref.name": "1"}, "app:1"),
        ({"io.containerd.image.name": "docker.io/library/app:1", "org.opencontainers.image.ref.name": "2"}, "app:2"),
        ({"io.containerd.image.name": "docker.io/library/app:1", "org.opencontainers.image.ref.name": "b:2"}, "b:2"),
        ({"io.containerd.image.name": "docker.io/library/app:1", "org.opencontainers.image.ref.name": "!"}, "app:1"),
        ({"io.containerd.image.name": "quay.io/o/app:1"}, "quay.io/o/app:1"),
        ({"org.opencontainers.image.ref.name": "localhost/app:2"}, "localhost/app:2"),
        ({"org.opencontainers.image.ref.name": "app:2"}, "app:2"),
        ({"org.opencontainers.image.ref.name": "latest"}, "<none>"),
        ({"org.opencontainers.image.ref.name": "../../etc:x"}, "<none>"),
        ({}, "<none>"),
    ],
)
def test_names_from_annotations(
    store: DirectoryStore, source: MemoryStore, tmp_path: Path, annotations: dict[str, str], name: str
) -> None:
    entry = random_image(source).with_annotations(annotations)
    load(write(tmp_path / "a", tar(layout_members(source, entry.to_json()))), store)
    assert names(store) == [name]


def test_a_damaged_blob_tags_nothing(store: DirectoryStore, source: MemoryStore, tmp_path: Path) -> None:
    image = random_image(source)
    members = layout_members(source, image.to_json())
    layer = StoredImage(source.blobs, image).layers()[1].descriptor.digest
    name = f"blobs/sha256/{layer.hex}"
    members[name] = members[name][:-1] + b"?"
    with pytest.raises(DigestMismatchError, match="is damaged"):
        load(write(tmp_path / "a", tar(members)), store)
    assert names(store) == []
    assert store.blobs.size(layer) is None


def test_a_blob_of_the_wrong_size(store: DirectoryStore, source: MemoryStore, tmp_path: Path) -> None:
    image = random_image(source)
    entry = replace(image, size=image.size - 1)
    with pytest.raises(InvalidImageError, match="its descriptor says"):
        load(write(tmp_path / "a", tar(layout_members(source, entry.to_json()))), store)


def test_a_missing_blob(store: DirectoryStore, source: MemoryStore, tmp_path: Path) -> None:
    image = random_image(source)
    members = layout_members(source, image.to_json())
    del members[f"blobs/sha256/{StoredImage(source.blobs, image).config_digest().hex}"]
    with pytest.raises(InvalidImageError, match="lacks the blob"):
        load(write(tmp_path / "a", tar(members)), store)


def test_a_docker_layer_that_is_not_that_of_its_diff_id(
    store: DirectoryStore, source: MemoryStore, tmp_path: Path
) -> None:
    for number, image in enumerate((plain_image(source), random_image(source))):
        members = legacy_docker_members(source.blobs, [(image, ["app"])])
        other = tar_of([Member("other", b"x")])
        data = gzip.compress(other) if number else other
        changed = [replace(m, data=data) if m.name.endswith("layer.tar") else m for m in members]
        with pytest.raises(DigestMismatchError, match="is damaged"):
            load(write(tmp_path / "a", tar_of(changed)), store)
    assert names(store) == []


def test_a_config_that_is_not_that_of_its_name(store: DirectoryStore, source: MemoryStore, tmp_path: Path) -> None:
    members = legacy_docker_members(source.blobs, [(plain_image(source), ["app"])])
    changed = [replace(m, data=m.data + b" ") if m.name.endswith(".json") and len(m.name) > 60 else m for m in members]
    with pytest.raises(DigestMismatchError, match="the config"):
        load(write(tmp_path / "a", tar_of(changed)), store)


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"{}",
        b"[]",
        b"[1]",
        b'[{"Config":"../../etc/passwd","Layers":[]}]',
        b'[{"Config":"missing.json","Layers":[]}]',
        b'[{"Config":7,"Layers":[]}]',
        b"[" * 5000,
    ],
)
def test_hostile_docker_manifests(store: DirectoryStore, tmp_path: Path, manifest: bytes) -> None:
    with pytest.raises(InvalidImageError):
        load(write(tmp_path / "a", tar({"manifest.json": manifest})), store)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        bytes(10240),
        os.urandom(4096),
        tar_of([Member("a", b"x" * 600)])[:700],
        tar_of([Member("../manifest.json", b"[]")]),
        tar_of([Member("a/../../b", b"")]),
        tar_of([Member("manifest.json", b"[]", size=1 << 40)]),
        tar_of([Member("x", b"", type=tarfile.XHDTYPE, size=1 << 34)]),
        tar_of([Member("manifest.json", type=tarfile.SYMTYPE, link="/etc/passwd")]),
        tar_of([Member("manifest.json", type=tarfile.SYMTYPE, link="manifest.json")]),
        tar_of([Member("manifest.json", type=tarfile.FIFOTYPE)]),
        gzip.compress(b"no tar"),
        gzip.compress(tar_of([Member("manifest.json", b"[]")]))[:-20],
        b"\x28\xb5\x2f\xfd" + bytes(50),
    ],
)
def test_hostile_archives(store: DirectoryStore, tmp_path: Path, data: bytes) -> None:
    with pytest.raises(InvalidImageError):
        load(write(tmp_path / "a", data), store)
    assert names(store) == []
    assert list(store.blobs) == []
    assert os.listdir(store.session().path) == []


def test_an_archive_with_too_many_entries(
    store: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("castoff.image.archivefiles._MAX_ENTRIES", 10)
    with pytest.raises(InvalidImageError, match="more than 10 entries"):
        load(write(tmp_path / "a", tar_of(Member(f"f{number}") for number in range(11))), store)


def test_a_bomb(store: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("castoff.image.spool._BOMB_FREE", 1 << 20)
    with pytest.raises(InvalidImageError, match="more than 200 times"):
        load(write(tmp_path / "a", gzip.compress(bytes(8 << 20))), store)
    assert os.listdir(store.session().path) == []


def test_links_are_followed_inside_the_archive_only(tmp_path: Path) -> None:
    data = tar_of(
        [
            Member("./d/file", b"content"),
            Member("abs", type=tarfile.SYMTYPE, link="/d/file"),
            Member("d/up", type=tarfile.SYMTYPE, link="../d/file"),
            Member("chain", type=tarfile.SYMTYPE, link="abs"),
            Member("hard", type=tarfile.LNKTYPE, link="d/file"),
            Member("out", type=tarfile.SYMTYPE, link="../../etc/passwd"),
            Member("etc", type=tarfile.SYMTYPE, link="/etc/passwd"),
        ]
    )
    with open(write(tmp_path / "a", data), "rb") as file:
        files = TarFiles(file.fileno(), "a")
        for name in ("d/file", "abs", "d/up", "chain", "hard", "./d//file"):
            assert b"".join(files.iter_(name)) == b"content", name
        for name in ("out", "etc", "none", "d", "../a", "d/../../x"):
            assert files.size(name) is None, name
            with pytest.raises(InvalidImageError):
                list(files.iter_(name))


def test_the_last_of_two_entries_with_one_name_counts(tmp_path: Path) -> None:
    data = tar_of(
        [Member("a", b"1"), Member("b", type=tarfile.SYMTYPE, link="a"), Member("b", b"2"), Member("a", b"3")]
    )
    with open(write(tmp_path / "a", data), "rb") as file:
        files = TarFiles(file.fileno(), "a")
        assert b"".join(files.iter_("a")) == b"3"
        assert b"".join(files.iter_("b")) == b"2"


def test_a_layout_folder_of_links_and_strange_files(store: DirectoryStore, source: MemoryStore, tmp_path: Path) -> None:
    image = random_image(source)
    folder = tmp_path / "layout"
    for name, data in layout_members(source, image.to_json()).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    moved = tmp_path / "elsewhere"
    blob = folder / f"blobs/sha256/{image.digest.hex}"
    blob.rename(moved)
    blob.symlink_to(moved)
    load(str(folder), store)
    assert store.images.find(str(image.digest)).descriptor == image
    config = StoredImage(source.blobs, image).config_digest()
    (folder / f"blobs/sha256/{config.hex}").unlink()
    os.mkfifo(folder / f"blobs/sha256/{config.hex}")
    with (
        DirectoryStore.open_(str(tmp_path / "second")) as second,
        pytest.raises(InvalidImageError, match="lacks the blob"),
    ):
        load(str(folder), second)


def test_what_is_no_image(store: DirectoryStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        load(str(tmp_path / "none"), store)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidImageError, match="neither a Docker archive"):
        load(str(tmp_path / "empty"), store)


def test_loading_twice_adds_nothing(store: DirectoryStore, source: MemoryStore, tmp_path: Path) -> None:
    path = write(tmp_path / "a", tar_of(legacy_docker_members(source.blobs, [(plain_image(source), ["app"])])))
    first = load(path, store)
    before = {digest: os.stat(store.blobs.path(digest)).st_ino for digest in store.blobs}
    assert load(path, store) == first
    assert {digest: os.stat(store.blobs.path(digest)).st_ino for digest in store.blobs} == before
    assert names(store) == ["app:latest"]


def test_a_docker_archive_whose_layer_is_compressed_in_a_strange_way(
    store: DirectoryStore, source: MemoryStore, tmp_path: Path
) -> None:
    members = legacy_docker_members(source.blobs, [(plain_image(source), ["app"])])
    changed = [replace(m, data=bz2.compress(m.data)) if m.name.endswith("layer.tar") else m for m in members]
    with pytest.raises(InvalidImageError, match="compressed with bzip2"):
        load(write(tmp_path / "a", tar_of(changed)), store)


def test_a_layer_named_by_digest_only(store: DirectoryStore, source: MemoryStore, tmp_path: Path) -> None:
    image = random_image(source)
    DockerArchiveExporter(str(tmp_path / "d")).export(result(source, image), NullObserver())
    with tarfile.open(tmp_path / "d") as archive:
        members = [
            Member(info.name, file.read())
            for info in archive
            if (file := archive.extractfile(info)) is not None and info.name not in ("index.json", "oci-layout")
        ]
    (loaded,) = load(write(tmp_path / "a", tar_of(members)), store)
    assert loaded.config_digest == StoredImage(source.blobs, image).config_digest()
    assert loaded.references == ()
    assert names(store) == ["<none>"]
    assert Digest.of(io.BytesIO(store.blobs.read(image.digest)).read()) == image.digest


def test_a_layer_whose_digest_can_not_be_computed(store: DirectoryStore, source: MemoryStore, tmp_path: Path) -> None:
    manifest = json.loads(source.blobs.read(random_image(source).digest))
    manifest["layers"][0]["digest"] = "shake_128:abcdef"
    data = json.dumps(manifest).encode()
    entry = Descriptor(manifest["mediaType"], source.blobs.add(data), len(data))
    members = layout_members(source, entry.to_json())
    members["blobs/shake_128/abcdef"] = bytes(manifest["layers"][0]["size"])
    with pytest.raises(StoreError, match="can't be verified"):
        load(write(tmp_path / "a", tar(members)), store)
    assert names(store) == []
