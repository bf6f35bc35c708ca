"""Layout folders that are hostile: what can't be an image is refused before it fills or stalls anything."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from castoff.errors import BlobNotFoundError, CastoffError, DigestMismatchError, InvalidImageError
from castoff.events import NullObserver
from castoff.export.exporter import ImageResult
from castoff.export.layout import LayoutExporter
from castoff.image.image import StoredImage
from castoff.image.layoutfolder import LayoutFolder
from castoff.oci.platform import Platform
from castoff.store.memory import MemoryStore
from castoff.testing.random_images import random_image

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def layout(tmp_path: Path) -> LayoutFolder:
    """Give a layout with one image."""
    store = MemoryStore()
    result = ImageResult(random_image(store), (), store.blobs)
    LayoutExporter(str(tmp_path / "l"), tar=False).export(result, NullObserver())
    return LayoutFolder(str(tmp_path / "l"))


def layer_path(layout: LayoutFolder) -> str:
    """Return the host path of the first layer."""
    image = StoredImage(layout, layout.choose())  # type: ignore[arg-type]
    digest = image.layers()[0].descriptor.digest
    return f"{layout.path}/blobs/{digest.algorithm}/{digest.hex}"


def take(layout: LayoutFolder) -> None:
    """Take the image into an empty store, and see to it that a failure leaves no layer."""
    store = MemoryStore()
    try:
        layout.take(layout.choose(), store.blobs, Platform.host())
    except CastoffError:
        assert list(store.blobs) == []
        raise


def test_a_good_layout_is_taken(layout: LayoutFolder) -> None:
    take(layout)


def test_a_fifo_stalls_nothing(layout: LayoutFolder) -> None:
    path = layer_path(layout)
    os.unlink(path)
    os.mkfifo(path)
    with pytest.raises(InvalidImageError, match="descriptor says"):
        take(layout)


def test_a_blob_that_is_longer_than_it_says_is_not_copied(layout: LayoutFolder) -> None:
    os.truncate(layer_path(layout), 1 << 40)  # copying it would fill any disk
    with pytest.raises(InvalidImageError, match="descriptor says"):
        take(layout)


def test_a_damaged_blob(layout: LayoutFolder) -> None:
    with open(layer_path(layout), "r+b") as file:
        file.write(b"\xa5")
    with pytest.raises(DigestMismatchError):
        take(layout)


def test_a_missing_blob(layout: LayoutFolder) -> None:
    os.unlink(layer_path(layout))
    with pytest.raises(BlobNotFoundError):
        take(layout)


def test_an_index_nested_without_end(layout: LayoutFolder) -> None:
    with open(layout.index_path, "w", encoding="ascii") as file:
        file.write("[" * 100_000)
    with pytest.raises(InvalidImageError):
        layout.choose()


def test_a_digest_of_another_algorithm_is_verified(layout: LayoutFolder) -> None:
    os.makedirs(f"{layout.path}/blobs/sha512")
    name = "0" * 128
    with open(f"{layout.path}/blobs/sha512/{name}", "wb") as file:
        file.write(b"{}")
    entry = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": f"sha512:{name}", "size": 2}
    with open(layout.index_path, "w", encoding="ascii") as file:
        json.dump({"schemaVersion": 2, "manifests": [entry]}, file)
    with pytest.raises(DigestMismatchError):
        take(layout)
