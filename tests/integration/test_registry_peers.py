"""castoff, docker-registry and skopeo agree on every image, digest for digest, in both directions."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from registry_rig import Peer, docker_registry

from castoff.image.image import StoredImage
from castoff.image.mutate import DraftImage
from castoff.image.validate import validate
from castoff.layer.compression import Compression
from castoff.oci import mediatypes
from castoff.oci.config import ImageConfig
from castoff.oci.descriptor import Descriptor
from castoff.oci.manifest import Manifest
from castoff.oci.platform import Platform
from castoff.oci.reference import Reference
from castoff.store.directory import DirectoryStore
from castoff.testing.random_images import layer_of, random_image, random_index, random_layer

if TYPE_CHECKING:
    from conftest import Require

pytestmark = pytest.mark.integration

PASSWORD = "correct-horse-battery"


@pytest.fixture(params=["plain", "password", "tls"])
def peer(
    request: pytest.FixtureRequest, tmp_path: Path, require: Require, free_port: Callable[[], int]
) -> Iterator[Peer]:
    """Run each kind of registry; where it wants a password, castoff is logged in."""
    kind = request.param
    user = ("ann", PASSWORD) if kind != "plain" else None
    with docker_registry(tmp_path, require, free_port(), tls=kind == "tls", user=user) as running:
        if running.authority:
            certificates = tmp_path / ".config" / "castoff" / "certs.d" / running.netloc
            certificates.mkdir(parents=True)
            (certificates / "ca.crt").write_bytes(Path(running.authority).read_bytes())
        if user is not None:
            running.castoff("login", "-u", user[0], "--password-stdin", running.netloc, stdin=PASSWORD.encode())
        yield running


@pytest.fixture
def plain(tmp_path: Path, require: Require, free_port: Callable[[], int]) -> Iterator[Peer]:
    """Run a registry that is open to everybody."""
    with docker_registry(tmp_path, require, free_port()) as running:
        yield running


def raw_digest(peer: Peer, reference: str) -> str:
    """Return the digest of a manifest as skopeo computes it from what the registry gives."""
    raw = peer.skopeo("inspect", "--raw", *peer.tls(), f"docker://{peer.netloc}/{reference}")
    place = peer.folder / "raw"
    place.write_text(raw)
    return subprocess.run(["skopeo", "manifest-digest", place], capture_output=True, check=True).stdout.decode().strip()


def test_push_skopeo_pull(peer: Peer, require: Require) -> None:
    require.command("skopeo")
    with DirectoryStore.open_(str(peer.folder / "store")) as store:
        one = random_image(store, f"{peer.netloc}/team/one:1", layers=5, size=50_000)
        several = random_index(store, f"{peer.netloc}/team/several:1", ("amd64", "arm64", "arm/v7"))
    names = [f"{peer.netloc}/team/{name}:1" for name in ("one", "several")]
    said = peer.castoff("push", "-q", *names).stdout.decode().splitlines()
    assert said == [f"{names[0]}@{one.digest}", f"{names[1]}@{several.digest}"]
    assert raw_digest(peer, "team/one:1") == str(one.digest)
    assert raw_digest(peer, "team/several:1") == str(several.digest)

    # skopeo copies it all, and castoff pulls what skopeo has pushed.
    there, layout = f"docker://{peer.netloc}/team/several:1", f"oci:{peer.folder}/layout:1"
    peer.skopeo("copy", "--all", *peer.tls("src-"), there, layout)
    back = f"docker://{peer.netloc}/back/several:2"
    peer.skopeo("copy", "--all", "--preserve-digests", *peer.tls("dest-"), layout, back)
    peer.castoff("rmi", *names)
    peer.castoff("prune", "--force")
    peer.castoff("pull", "--all-platforms", f"{peer.netloc}/back/several:2")
    with DirectoryStore.open_(str(peer.folder / "store")) as store:
        found = store.images.find(f"{peer.netloc}/back/several:2").descriptor
        assert found.digest == several.digest
        validate(store.blobs, found)


def test_a_pulled_base_goes_back_unchanged(peer: Peer, require: Require) -> None:
    require.command("skopeo")
    netloc = peer.netloc
    with DirectoryStore.open_(str(peer.folder / "store")) as store:
        several = random_index(store, f"{netloc}/team/base:1")
    peer.castoff("push", f"{netloc}/team/base:1")
    peer.castoff("rmi", f"{netloc}/team/base:1")
    peer.castoff("prune", "--force")
    peer.castoff("pull", f"{netloc}/team/base:1")
    # With one platform in the store, and all in the repository: the index itself goes back, under another tag.
    peer.castoff("push", "--image", f"{netloc}/team/base:1", f"{netloc}/team/base:again")
    assert raw_digest(peer, "team/base:again") == str(several.digest)
    # Elsewhere the others are missing: the image alone is pushed, and that is said.
    done = peer.castoff("push", "--image", f"{netloc}/team/base:1", f"{netloc}/other/base:1")
    assert "only the image for linux/amd64" in done.stderr.decode()
    with DirectoryStore.open_(str(peer.folder / "store")) as store:
        own = StoredImage.open_(store.blobs, several, Platform("linux", "amd64")).descriptor.digest
    assert raw_digest(peer, "other/base:1") == str(own)


@pytest.mark.parametrize("layers", [1, 127])
def test_any_number_of_layers(plain: Peer, layers: int, require: Require) -> None:
    require.command("skopeo")
    with DirectoryStore.open_(str(plain.folder / "store")) as store:
        image = random_image(store, f"{plain.netloc}/many:1", layers=layers, size=10)
    plain.castoff("push", f"{plain.netloc}/many:1")
    inspected = json.loads(plain.skopeo("inspect", *plain.tls(), f"docker://{plain.netloc}/many:1"))
    assert inspected["Digest"] == str(image.digest)
    assert len(inspected["Layers"]) == layers
    other = replace(plain, folder=plain.folder / "other")
    other.folder.mkdir()
    other.castoff("pull", f"{plain.netloc}/many:1")
    with DirectoryStore.open_(str(other.folder / "store")) as store:
        validate(store.blobs, image)


def make_odd_image(store: DirectoryStore, reference: str, *, docker: bool) -> Descriptor:
    """Make an image with layers of every compression, an empty one, and one twice; in Docker's types if wanted."""
    layers = [
        random_layer(store.blobs, seed=1, compression=Compression("gzip")),
        random_layer(store.blobs, seed=2, compression=Compression("none")),
        layer_of(store.blobs, ()),
        random_layer(store.blobs, seed=1, compression=Compression("gzip")),
    ]
    if not docker:
        layers.append(random_layer(store.blobs, seed=3, compression=Compression("zstd")))
    config = ImageConfig(Platform("linux", "amd64"), diff_ids=tuple(layer.diff_id for layer in layers))
    descriptor = DraftImage(config, tuple(layer.descriptor for layer in layers), ()).store(store.blobs)
    if docker:
        types = {mediatypes.OCI_LAYER: mediatypes.DOCKER_LAYER, mediatypes.OCI_LAYER_GZIP: mediatypes.DOCKER_LAYER_GZIP}
        manifest = StoredImage(store.blobs, descriptor).manifest()
        changed = Manifest(
            replace(manifest.config, media_type=mediatypes.DOCKER_CONFIG),
            tuple(replace(layer, media_type=types[layer.media_type]) for layer in manifest.layers),
            mediatypes.DOCKER_MANIFEST,
        )
        data = changed.to_bytes()
        descriptor = Descriptor(mediatypes.DOCKER_MANIFEST, store.blobs.add(data), len(data))
    store.images.set_(Reference.parse(reference), descriptor, 1.0)
    return descriptor


@pytest.mark.parametrize("docker", [False, True], ids=["oci", "schema 2"])
def test_every_kind_of_layer(plain: Peer, docker: bool) -> None:
    name = f"{plain.netloc}/odd:1"
    with DirectoryStore.open_(str(plain.folder / "store")) as store:
        image = make_odd_image(store, name, docker=docker)
    plain.castoff("push", name)
    other = replace(plain, folder=plain.folder / "other")
    other.folder.mkdir()
    other.castoff("pull", name)
    with DirectoryStore.open_(str(other.folder / "store")) as store:
        found = store.images.find(name).descriptor
        assert found == image
        validate(store.blobs, found)


def test_a_hundred_tags(plain: Peer, require: Require) -> None:
    require.command("skopeo")
    names = [f"{plain.netloc}/tags:v{number}" for number in range(100)]
    with DirectoryStore.open_(str(plain.folder / "store")) as store:
        image = random_image(store, names[0])
        for name in names[1:]:
            store.images.set_(Reference.parse(name), image, 1.0)
    plain.castoff("push", "--all-tags", f"{plain.netloc}/tags", "--digestfile", str(plain.folder / "digest"))
    assert (plain.folder / "digest").read_text() == f"{image.digest}\n"
    listed = json.loads(plain.skopeo("list-tags", *plain.tls(), f"docker://{plain.netloc}/tags"))["Tags"]
    assert sorted(listed) == sorted(name.rpartition(":")[2] for name in names)
    other = replace(plain, folder=plain.folder / "other")
    other.folder.mkdir()
    pulled = other.castoff("pull", "-q", "--all-tags", f"{plain.netloc}/tags").stdout.decode().split()
    assert sorted(pulled) == sorted(names)


def test_base_from_a_registry_and_result_into_it(peer: Peer, tmp_path: Path) -> None:
    netloc = peer.netloc
    with DirectoryStore.open_(str(tmp_path / "store")) as store:
        random_image(store, f"{netloc}/team/base:1", layers=2)
    peer.castoff("push", f"{netloc}/team/base:1")
    context = tmp_path / "context"
    context.mkdir()
    (context / "file").write_text("content")
    (context / "Dockerfile").write_text(f"FROM {netloc}/team/base:1\nCOPY file /made/\n")
    fresh = replace(peer, folder=tmp_path / "fresh")
    fresh.folder.mkdir()
    tags = ["-t", f"{netloc}/team/app:1", "-t", f"{netloc}/team/app:2"]
    fresh.castoff("build", *tags, "--push", "--metadata-file", str(tmp_path / "meta"), str(context))
    digest = json.loads((tmp_path / "meta").read_text())["containerimage.digest"]
    peer.castoff("pull", f"{netloc}/team/app@{digest}")
    for tag in ("1", "2"):
        peer.castoff("pull", f"{netloc}/team/app:{tag}")
    with DirectoryStore.open_(str(tmp_path / "store")) as store:
        assert str(store.images.find(f"{netloc}/team/app:2").descriptor.digest) == digest
        validate(store.blobs, store.images.find(f"{netloc}/team/app:1").descriptor)


def test_nothing_of_a_password_is_anywhere(tmp_path: Path, require: Require, free_port: Callable[[], int]) -> None:
    trace = tmp_path / "arguments"
    with docker_registry(tmp_path, require, free_port(), user=("ann", PASSWORD)) as peer:
        peer.env["CASTOFF_DEBUG"] = "1"
        name = f"{peer.netloc}/secret/app:1"
        with DirectoryStore.open_(str(tmp_path / "store")) as store:
            random_image(store, name)
        said = [peer.castoff("push", name, code=5)]
        said.append(peer.castoff("login", "-u", "ann", "--password-stdin", peer.netloc, stdin=b"wrong", code=5))
        assert not (tmp_path / "docker").exists()
        login = ["login", "-u", "ann", "--password-stdin", peer.netloc]
        said.append(peer.castoff(*login, stdin=f"{PASSWORD}\n".encode()))
        kept = tmp_path / "docker" / "config.json"
        assert kept.stat().st_mode & 0o777 == 0o600
        secret = json.loads(kept.read_text())["auths"][peer.netloc]["auth"]
        said += [peer.castoff("push", name), peer.castoff("pull", name), peer.castoff("pull", f"{name}x", code=5)]
        said.append(peer.castoff("logout", peer.netloc))
        assert secret not in kept.read_text()
        said.append(peer.castoff("logout", peer.netloc))
        assert b"Not logged in" in said[-1].stdout
        said.append(peer.castoff("pull", name, code=5))
        assert b"castoff login" in said[-1].stderr
        for done in said:
            for text in (done.stdout, done.stderr, repr(done.args).encode()):
                assert PASSWORD.encode() not in text
                assert secret.encode() not in text
        for folder, _folders, files in os.walk(tmp_path / "store"):
            for file in files:
                data = (Path(folder) / file).read_bytes()
                assert PASSWORD.encode() not in data
                assert secret.encode() not in data
    assert not trace.exists()


def test_an_unknown_authority_is_refused_and_named(
    tmp_path: Path, require: Require, free_port: Callable[[], int]
) -> None:
    with docker_registry(tmp_path, require, free_port(), tls=True) as peer:
        (tmp_path / "rules.toml").write_text(
            f'[[registry]]\nprefix = "{peer.netloc}"\nca = "trust/ca.crt"\nclient-cert = "client.pem"\n'
            'client-key = "client.key"\n'
        )
        with DirectoryStore.open_(str(tmp_path / "store")) as store:
            random_image(store, f"{peer.netloc}/a:1")
        other = tmp_path / "nobody.pem"
        other.write_bytes((tmp_path / "client.pem").read_bytes())
        failed = peer.castoff("push", "--registry-ca", str(other), f"{peer.netloc}/a:1", code=5)
        assert b"can't be verified" in failed.stderr
        assert b"--registry-ca" in failed.stderr
        peer.castoff("push", "--registry-ca", peer.authority, f"{peer.netloc}/a:1")
        peer.castoff("push", "--registry-config", str(tmp_path / "rules.toml"), f"{peer.netloc}/a:1")
        # Without any certificate it is this machine's own registry, which needs none.
        peer.castoff("pull", f"{peer.netloc}/a:1")


def test_mirrors_come_first_and_only_for_pulls(tmp_path: Path, require: Require, free_port: Callable[[], int]) -> None:
    port = free_port()
    gone = f"127.0.0.1:{free_port()}"
    with docker_registry(tmp_path, require, port) as peer:
        with DirectoryStore.open_(str(tmp_path / "store")) as store:
            random_image(store, f"{peer.netloc}/hub/library/thing:1")
        peer.castoff("push", f"{peer.netloc}/hub/library/thing:1")
        peer.env["CASTOFF_REGISTRIES"] = str(tmp_path / "rules.toml")
        (tmp_path / "rules.toml").write_text(
            '[[registry]]\nprefix = "docker.io"\n'
            f'[[registry.mirror]]\nlocation = "{gone}"\n'
            f'[[registry.mirror]]\nlocation = "{peer.netloc}/hub"\n'
        )
        done = peer.castoff("pull", "thing:1")
        assert re.search(rb"^docker.io/library/thing:1$", done.stdout, re.MULTILINE)
        peer.castoff("rmi", "thing:1")
        peer.env["CASTOFF_REGISTRIES"] = os.environ["CASTOFF_REGISTRIES"]
        blocked = peer.castoff("pull", "thing:1", code=5)
        assert b"is blocked" in blocked.stderr
        only = ["--registry-config", str(tmp_path / "none.toml")]
        (tmp_path / "none.toml").write_text("")
        peer.castoff("pull", *only, "--registry-mirror", f"docker.io={peer.netloc}/hub", "thing:1")
