"""What skopeo and umoci make of what castoff writes, and castoff of what they write."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from castoff.events import NullObserver
from castoff.export.archive import DockerArchiveExporter
from castoff.export.exporter import ImageResult
from castoff.export.layout import LayoutExporter
from castoff.image.image import StoredImage
from castoff.image.load import load
from castoff.image.validate import validate
from castoff.oci.reference import Reference
from castoff.store.directory import DirectoryStore
from castoff.testing.random_images import random_image, random_index

if TYPE_CHECKING:
    from castoff.oci.descriptor import Descriptor

pytestmark = pytest.mark.integration


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DirectoryStore]:
    with DirectoryStore.open_(str(tmp_path / "store")) as opened:
        yield opened


def run(*command: str) -> str:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed (Debian package {command[0]})")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def skopeo_copy(source: str, dest: str) -> None:
    run("skopeo", "--insecure-policy", "copy", source, dest)


def result(store: DirectoryStore, descriptor: Descriptor, *references: str) -> ImageResult:
    return ImageResult(descriptor, tuple(map(Reference.parse, references)), store.blobs, "1980-01-01T00:00:00Z")


def config_digest(store: DirectoryStore, descriptor: Descriptor) -> str:
    return str(StoredImage(store.blobs, descriptor).config_digest())


def test_skopeo_reads_the_store_as_it_stands(store: DirectoryStore) -> None:
    image = random_image(store, "devops-info-service-go:latest", size=50_000)
    random_image(store, "other:1", seed=1)
    seen = json.loads(run("skopeo", "inspect", f"oci:{store.root}:devops-info-service-go:latest"))
    assert seen["Digest"] == str(image.digest)
    assert seen["Labels"] == {"seed": "0"}
    assert seen["Layers"] == [str(layer.digest) for layer in StoredImage(store.blobs, image).manifest().layers]


def test_skopeo_picks_a_platform_of_an_index_in_the_store(store: DirectoryStore) -> None:
    random_index(store, "multi:1")
    for architecture in ("amd64", "arm64"):
        seen = json.loads(run("skopeo", f"--override-arch={architecture}", "inspect", f"oci:{store.root}:multi:1"))
        assert seen["Architecture"] == architecture


def test_through_skopeo_to_a_docker_archive_and_back(store: DirectoryStore, tmp_path: Path) -> None:
    image = random_image(store, "app:1", size=50_000)
    skopeo_copy(f"oci:{store.root}:app:1", f"docker-archive:{tmp_path}/d.tar:back:1")
    (loaded,) = load(str(tmp_path / "d.tar"), store)
    assert loaded.references == (Reference.parse("back:1"),)
    assert str(loaded.config_digest) == config_digest(store, image)
    validate(store.blobs, loaded.descriptor)


@pytest.mark.parametrize("form", ["oci-archive", "oci"])
def test_skopeo_copies_exported_layouts(store: DirectoryStore, tmp_path: Path, form: str) -> None:
    image = random_image(store, size=50_000)
    dest = str(tmp_path / "out")
    LayoutExporter(dest, tar=form == "oci-archive").export(result(store, image, "app:1"), NullObserver())
    skopeo_copy(f"{form}:{dest}:1", f"oci:{tmp_path}/copy:again:2")
    (loaded,) = load(str(tmp_path / "copy"), store)
    assert loaded.descriptor.digest == image.digest
    assert loaded.references == (Reference.parse("again:2"),)


def test_skopeo_reads_docker_archives(store: DirectoryStore, tmp_path: Path) -> None:
    image = random_image(store, size=50_000)
    DockerArchiveExporter(str(tmp_path / "d.tar")).export(result(store, image, "app:1"), NullObserver())
    seen = json.loads(run("skopeo", "inspect", f"docker-archive:{tmp_path}/d.tar:app:1"))
    assert seen["Labels"] == {"seed": "0"}
    skopeo_copy(f"docker-archive:{tmp_path}/d.tar:app:1", f"oci:{tmp_path}/back:app:9")
    with DirectoryStore.open_(str(tmp_path / "second")) as second:
        (loaded,) = load(str(tmp_path / "back"), second)
        assert str(loaded.config_digest) == config_digest(store, image)


def test_umoci_unpacks_an_exported_layout(store: DirectoryStore, tmp_path: Path) -> None:
    image = random_image(store, size=50_000)
    LayoutExporter(str(tmp_path / "o"), tar=False).export(result(store, image, "app:1"), NullObserver())
    rootless = [] if os.geteuid() == 0 else ["--rootless"]
    run("umoci", "unpack", *rootless, "--image", f"{tmp_path}/o:1", str(tmp_path / "bundle"))
    files = [path for path in (tmp_path / "bundle/rootfs").rglob("*") if path.is_file()]
    assert len(files) == 6
    assert {path.stat().st_size for path in files} == {50_000}
    assert {int(path.stat().st_mtime) for path in files} == {315532800}


def test_what_umoci_adds_to_the_store_is_an_image_of_it(store: DirectoryStore) -> None:
    image = random_image(store, "app:1")
    run("umoci", "config", "--image", f"{store.root}:app:1", "--tag", "web:2", "--config.user", "www")
    found = store.images.find("web:2")
    assert StoredImage.open_(store.blobs, found.descriptor).config().config.user == "www"
    assert store.images.find("app:1").descriptor == image
    validate(store.blobs, found.descriptor)


def test_what_skopeo_adds_to_the_store_is_an_image_of_it(store: DirectoryStore, tmp_path: Path) -> None:
    with DirectoryStore.open_(str(tmp_path / "second")) as second:
        image = random_image(second, "app:1")
        skopeo_copy(f"oci:{second.root}:app:1", f"oci:{store.root}:copied:3")
    assert store.images.find("copied:3").descriptor.digest == image.digest
