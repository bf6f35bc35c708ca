"""The Go service for four platforms: bases assembled for each, a compiler that runs once for each, one index."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from demo_store import ROOT, find_store

from castoff.oci.manifest import Index, Manifest
from castoff.oci.reference import Reference
from castoff.store.directory import DirectoryStore

pytestmark = pytest.mark.integration

PLATFORMS = ("linux/amd64", "linux/arm64", "linux/arm/v7", "linux/ppc64le")
MACHINES = {"amd64": (2, 62), "arm64": (2, 183), "arm": (1, 40), "ppc64le": (2, 21)}
"""Class and machine in the heads of ELF files."""
RECIPE = ROOT / "tests" / "data" / "bases" / "static-plain.toml"
SERVICE = ROOT / "services" / "devops-info-service-go"


@pytest.fixture
def castoff(castoff_command: list[str], require: Any, tmp_path: Any) -> Iterator[list[str]]:
    """Give castoff with the demo's store, and remove the images that were made in it."""
    require.user_namespaces()
    require.overlay(tmp_path)
    command = [*castoff_command, "--root", find_store(castoff_command, ("castoff/golang:1.22",))]
    yield command
    names = [f"castoff-test/{name}:{os.getpid()}" for name in ("static", "go")]
    subprocess.run([*command, "rmi", *names], capture_output=True, check=False)


def run(command: list[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)


def test_one_index_with_a_binary_for_each_platform(castoff: list[str]) -> None:
    base, image = (f"castoff-test/{name}:{os.getpid()}" for name in ("static", "go"))
    made = run(castoff, "base", "assemble", str(RECIPE), "-q", "-t", base, "--platform", ",".join(PLATFORMS))
    if made.returncode == 5:
        pytest.skip(f"packages can't be had: {made.stderr.strip().splitlines()[0]}")
    assert made.returncode == 0, made.stderr
    contexts = [
        "--build-context=golang:1.22-alpine=docker-image://castoff/golang:1.22",
        f"--build-context=gcr.io/distroless/static:nonroot=docker-image://{base}",
    ]
    command = ["build", "--progress=plain", *contexts, "--platform", ",".join(PLATFORMS), "-t", image]
    done = run(castoff, *command, "-f", str(SERVICE / "Dockerfile.multi"), str(SERVICE))
    assert done.returncode == 0, done.stderr
    vertices = dict(line[1:].split(" ", 1) for line in reversed(done.stderr.splitlines()) if line.startswith("#"))
    compilers = [name for name in vertices.values() if "go build" in name]
    assert len(compilers) == len(PLATFORMS)
    assert all("GOARCH=" in name and "[linux/amd64 builder" in name for name in compilers)

    with DirectoryStore.open_(castoff[-1]) as store:
        found = store.images.get(Reference.parse(image))
        assert found is not None
        entries = Index.parse(store.blobs.read(found.digest)).manifests
        assert [str(entry.platform) for entry in entries] == list(PLATFORMS)
        for entry in entries:
            assert entry.platform is not None
            manifest = Manifest.parse(store.blobs.read(entry.digest))
            config = json.loads(store.blobs.read(manifest.config.digest))
            assert config["architecture"] == entry.platform.architecture
            assert config["config"]["User"] == "nonroot"
            assert len(manifest.layers) == 3  # the base, WORKDIR, the binary
            assert binary(store, manifest) == MACHINES[entry.platform.architecture]


def binary(store: DirectoryStore, manifest: Manifest) -> tuple[int, int]:
    """Return class and machine of the ELF file in the topmost layer of an image."""
    import tarfile

    with store.blobs.open_(manifest.layers[-1].digest) as blob, tarfile.open(fileobj=blob) as layer:
        member = layer.extractfile("app/devops-info-service")
        assert member is not None
        head = member.read(20)
    order = "little" if head[5] == 1 else "big"
    assert head[:4] == b"\x7fELF"
    return head[4], int.from_bytes(head[18:20], order)  # type: ignore[arg-type]
