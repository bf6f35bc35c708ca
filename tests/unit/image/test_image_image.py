from __future__ import annotations

from dataclasses import replace

import pytest

from castoff.errors import BlobNotFoundError, DigestMismatchError, InvalidImageError
from castoff.image.image import MAX_DEPTH, StoredImage, fallbacks, iter_manifests, resolve, select
from castoff.image.mutate import (
    DraftImage,
    append_history,
    append_layer,
    draft_of,
    store_manifest,
    with_annotations,
    with_config,
    with_created,
)
from castoff.image.recompress import recompress
from castoff.image.validate import problems, validate
from castoff.layer.compression import Compression
from castoff.oci import mediatypes
from castoff.oci.config import ContainerConfig, History, ImageConfig
from castoff.oci.descriptor import Descriptor
from castoff.oci.digest import Digest
from castoff.oci.manifest import Index, Manifest
from castoff.oci.platform import Platform
from castoff.store.memory import MemoryStore
from castoff.testing.random_images import index_of, random_image, random_index, random_layer


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def platform(text: str) -> Platform:
    return Platform.parse(text)


def test_the_parts_of_an_image(store: MemoryStore) -> None:
    descriptor = random_image(store, layers=3)
    image = StoredImage.open_(store.blobs, descriptor)
    assert image.descriptor == descriptor
    assert image.config_digest() == image.manifest().config.digest
    assert [layer.diff_id for layer in image.layers()] == list(image.config().diff_ids)
    assert [layer.descriptor for layer in image.layers()] == list(image.manifest().layers)
    assert image.size() == sum(len(store.blobs.read(digest)) for digest in store.blobs)


def test_the_same_seed_gives_the_same_image(store: MemoryStore) -> None:
    assert random_image(store, seed=1) == random_image(MemoryStore(), seed=1)
    assert random_image(store, seed=1) != random_image(store, seed=2)


def test_a_damaged_document_is_refused(store: MemoryStore) -> None:
    descriptor = random_image(store)
    store.blobs._blobs[descriptor.digest] = store.blobs.read(descriptor.digest).replace(b"2", b"3", 1)
    with pytest.raises(DigestMismatchError):
        StoredImage(store.blobs, descriptor).manifest()


def test_a_document_of_another_size_is_refused(store: MemoryStore) -> None:
    descriptor = random_image(store)
    with pytest.raises(InvalidImageError, match="its descriptor says"):
        StoredImage(store.blobs, replace(descriptor, size=descriptor.size + 1)).manifest()


def test_different_numbers_of_layers_are_refused(store: MemoryStore) -> None:
    manifest = StoredImage(store.blobs, random_image(store)).manifest()
    shorter = store_manifest(store.blobs, replace(manifest, layers=manifest.layers[:1]))
    with pytest.raises(InvalidImageError, match="has 1 layers, and its config has 2 diff_ids"):
        StoredImage(store.blobs, shorter).layers()


@pytest.mark.parametrize(
    ("wanted", "chain"),
    [
        ("linux/amd64", ["linux/amd64"]),
        ("linux/amd64/v3", ["linux/amd64/v3", "linux/amd64/v2", "linux/amd64"]),
        ("linux/arm/v7", ["linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]),
        ("linux/arm/v6", ["linux/arm/v6", "linux/arm/v5"]),
        ("linux/arm64", ["linux/arm64"]),
        ("linux/arm64/v9", ["linux/arm64/v9", "linux/arm64"]),
    ],
)
def test_fallbacks(wanted: str, chain: list[str]) -> None:
    assert [str(one) for one in fallbacks(platform(wanted))] == chain


def test_the_best_variant_is_selected(store: MemoryStore) -> None:
    index = Index.parse(store.blobs.read(random_index(store, platforms=["arm/v5", "arm/v7", "arm/v6", "amd64"]).digest))
    for wanted, got in (("linux/arm/v7", "v7"), ("linux/arm/v6", "v6"), ("linux/arm/v8", "v7")):
        entry = select(index, platform(wanted))
        assert entry is not None
        assert entry.platform is not None
        assert entry.platform.variant == got
    assert select(index, platform("linux/arm64")) is None
    assert select(index, platform("windows/amd64")) is None


def test_opening_an_index(store: MemoryStore) -> None:
    index = random_index(store, platforms=["amd64", "arm64"])
    image = StoredImage.open_(store.blobs, index, platform("linux/arm64"))
    assert str(image.config().platform) == "linux/arm64"
    with pytest.raises(BlobNotFoundError, match="not for the platform linux/s390x") as caught:
        StoredImage.open_(store.blobs, index, platform("linux/s390x"))
    assert caught.value.hint == "its platforms: linux/amd64, linux/arm64"


def test_an_entry_without_a_platform_is_known_by_its_config(store: MemoryStore) -> None:
    plain = [replace(random_image(store, platform=platform(text)), platform=None) for text in ("arm64", "amd64")]
    assert resolve(store.blobs, index_of(store.blobs, plain), platform("linux/amd64")).digest == plain[1].digest


def test_attestations_are_no_images(store: MemoryStore) -> None:
    image = random_image(store)
    attestation = replace(random_image(store, seed="a"), platform=Platform("unknown", "unknown")).with_annotations(
        {"vnd.docker.reference.type": "attestation-manifest"}
    )
    index = index_of(store.blobs, [attestation, image])
    assert list(iter_manifests(store.blobs, index)) == [image]


def test_nested_indexes(store: MemoryStore) -> None:
    image = random_image(store)
    index = image
    for _ in range(MAX_DEPTH):
        index = index_of(store.blobs, [index])
    assert resolve(store.blobs, index, platform("linux/amd64")) == image
    with pytest.raises(InvalidImageError, match="nested more than 5 deep"):
        resolve(store.blobs, index_of(store.blobs, [index]), platform("linux/amd64"))


def test_too_many_manifests(store: MemoryStore) -> None:
    image = random_image(store)
    index = index_of(store.blobs, [replace(image, platform=None)] * 1001)
    with pytest.raises(InvalidImageError, match="more than 1000 manifests"):
        list(iter_manifests(store.blobs, index))


def test_artefacts_beside_images_are_passed_over(store: MemoryStore) -> None:
    image = random_image(store)
    other = Descriptor("application/vnd.example.chart", Digest.of(b"x"), 1)
    assert list(iter_manifests(store.blobs, index_of(store.blobs, [other, image]))) == [image]
    with pytest.raises(InvalidImageError, match="which is no image"):
        resolve(store.blobs, other)


def test_drafts(store: MemoryStore) -> None:
    first = DraftImage(ImageConfig(platform("linux/amd64")))
    layer = random_layer(store.blobs)
    draft = append_layer(first, layer, History(created_by="COPY a /"))
    draft = append_history(draft, History(created_by="CMD x"))
    draft = with_created(with_config(draft, ContainerConfig(user="app")), "1980-01-01T00:00:00Z")
    draft = with_annotations(with_annotations(draft, {"b": "1", "a": "0"}), {"b": "2"})
    image = StoredImage(store.blobs, draft.store(store.blobs))
    assert image.config().config.user == "app"
    assert image.config().created == "1980-01-01T00:00:00Z"
    assert [entry.empty_layer for entry in image.config().history] == [False, True]
    assert image.layers() == (layer,)
    assert image.manifest().annotations == (("a", "0"), ("b", "2"))
    assert draft_of(image) == draft
    assert first.layers == ()


def test_a_draft_of_a_docker_image_is_an_oci_image(store: MemoryStore) -> None:
    manifest = StoredImage(store.blobs, random_image(store)).manifest()
    docker = Manifest(
        replace(manifest.config, media_type=mediatypes.DOCKER_CONFIG),
        tuple(replace(layer, media_type=mediatypes.DOCKER_LAYER_GZIP) for layer in manifest.layers),
        mediatypes.DOCKER_MANIFEST,
    )
    draft = draft_of(StoredImage(store.blobs, store_manifest(store.blobs, docker)))
    assert StoredImage(store.blobs, draft.store(store.blobs)).manifest() == manifest


def test_a_draft_must_have_as_many_diff_ids_as_layers(store: MemoryStore) -> None:
    draft = draft_of(StoredImage(store.blobs, random_image(store)))
    with pytest.raises(InvalidImageError, match="1 layers and 2 diff_ids"):
        replace(draft, layers=draft.layers[:1]).store(store.blobs)
    with pytest.raises(InvalidImageError, match="without layers"):
        DraftImage(ImageConfig(platform("linux/amd64"))).store(store.blobs)


def test_a_good_image_is_valid(store: MemoryStore) -> None:
    validate(store.blobs, random_image(store))
    validate(store.blobs, random_index(store))


def test_a_missing_layer_is_found(store: MemoryStore) -> None:
    image = random_image(store)
    layer = StoredImage(store.blobs, image).layers()[1]
    store.blobs.delete(layer.descriptor.digest)
    with pytest.raises(InvalidImageError, match=f"the layer {layer.descriptor.digest} is missing"):
        validate(store.blobs, image, deep=False)


def test_a_damaged_layer_is_found_only_by_reading_it(store: MemoryStore) -> None:
    image = random_image(store)
    digest = StoredImage(store.blobs, image).layers()[0].descriptor.digest
    data = store.blobs.read(digest)
    store.blobs._blobs[digest] = data[:-1] + bytes([data[-1] ^ 1])
    assert problems(store.blobs, image, deep=False) == []
    assert problems(store.blobs, image) == [f"the layer {digest} is damaged"]
    store.blobs._blobs[digest] = data[:-1]
    assert "its descriptor says" in problems(store.blobs, image, deep=False)[0]


def test_a_wrong_diff_id_is_found(store: MemoryStore) -> None:
    draft = draft_of(StoredImage(store.blobs, random_image(store)))
    swapped = replace(draft, config=replace(draft.config, diff_ids=draft.config.diff_ids[::-1]))
    found = problems(store.blobs, swapped.store(store.blobs))
    assert len(found) == 2
    assert "has the diff_id" in found[0]


def test_a_layer_that_is_no_gzip_is_found(store: MemoryStore) -> None:
    draft = draft_of(StoredImage(store.blobs, random_image(store, layers=1)))
    data = b"\x1f\x8b\x08" + bytes(100)
    broken = replace(draft.layers[0], digest=store.blobs.add(data), size=len(data))
    (problem,) = problems(store.blobs, replace(draft, layers=(broken,)).store(store.blobs))
    assert "gzip" in problem


def test_history_and_platform_must_agree(store: MemoryStore) -> None:
    draft = draft_of(StoredImage(store.blobs, random_image(store)))
    draft = replace(draft, config=replace(draft.config, history=draft.config.history[1:]))
    found = problems(store.blobs, draft.store(store.blobs, platform("linux/arm64")))
    assert found == [
        "the history has 1 entries that make layers, and there are 2 layers",
        "the index says linux/arm64, and the config says linux/amd64",
    ]


@pytest.mark.parametrize("name", ["gzip", "zstd", "uncompressed"])
def test_compressing_anew_keeps_the_image_id(store: MemoryStore, name: str) -> None:
    before = random_image(store)
    compression = Compression.parse(name)
    after = recompress(store.blobs, before, compression, force=True)
    one, two = StoredImage(store.blobs, before), StoredImage(store.blobs, after)
    assert one.config_digest() == two.config_digest()
    assert {layer.media_type for layer in two.manifest().layers} == {compression.media_type}
    assert (after == before) == (name == "gzip")
    validate(store.blobs, after)
    assert (
        recompress(store.blobs, recompress(store.blobs, after, Compression(), force=True), compression, force=True)
        == after
    )


def test_compressing_gives_the_bytes_of_a_new_layer(store: MemoryStore) -> None:
    image = random_image(store)
    plain = recompress(store.blobs, image, Compression("none"), force=True)
    assert recompress(store.blobs, plain, Compression()) == image
    assert recompress(store.blobs, image, Compression("zstd")) == image


def test_compressing_a_damaged_layer_stores_nothing(store: MemoryStore) -> None:
    draft = draft_of(StoredImage(store.blobs, random_image(store)))
    swapped = replace(draft, config=replace(draft.config, diff_ids=draft.config.diff_ids[::-1])).store(store.blobs)
    before = set(store.blobs)
    with pytest.raises(DigestMismatchError):
        recompress(store.blobs, swapped, Compression("zstd"), force=True)
    assert set(store.blobs) == before
