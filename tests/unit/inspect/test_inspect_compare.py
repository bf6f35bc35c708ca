"""Comparing two images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from audit_images import Step, file, folder, image_of, link

from castoff.cli.main import main
from castoff.fs.changes import Opaque, Removed
from castoff.inspect.compare import FileChange, compare, file_sizes
from castoff.oci.config import ContainerConfig
from castoff.oci.reference import Reference
from castoff.store.directory import DirectoryStore
from castoff.store.memory import MemoryStore

if TYPE_CHECKING:
    import pytest

BASE = Step(
    "COPY base /", (folder("a"), file("a/same", b"1" * 10), file("a/grown", b"1"), folder("b"), file("b/x", b"22"))
)
UPPER = Step("RUN", (file("a/grown", b"1" * 500), file("new", b"123"), folder("b"), Opaque(b"b"), file("b/y", b"4444")))
LAST = Step("RUN", (Removed(b"a/same"), Removed(b"new"), link("new2", "a")))


def test_sizes_are_those_of_the_merged_files() -> None:
    blobs = MemoryStore().blobs
    config = ContainerConfig()
    assert file_sizes(image_of(blobs, [BASE], config)) == {b"a/same": 10, b"a/grown": 1, b"b/x": 2}
    both = image_of(blobs, [BASE, UPPER], config)
    assert file_sizes(both) == {b"a/same": 10, b"a/grown": 500, b"new": 3, b"b/y": 4}
    assert file_sizes(image_of(blobs, [BASE, UPPER, LAST], config)) == {b"a/grown": 500, b"b/y": 4}


def test_what_is_removed_and_made_again() -> None:
    blobs = MemoryStore().blobs
    steps = [BASE, Step("RUN", (Removed(b"a"),)), Step("RUN", (folder("a"), file("a/again", b"1")))]
    assert file_sizes(image_of(blobs, steps, ContainerConfig())) == {b"a/again": 1, b"b/x": 2}
    steps = [BASE, Step("RUN", (file("a", b"now a file"),))]
    assert file_sizes(image_of(blobs, steps, ContainerConfig())) == {b"a": 10, b"b/x": 2}


def test_a_comparison() -> None:
    blobs = MemoryStore().blobs
    before, after = (image_of(blobs, steps, ContainerConfig()) for steps in ([BASE], [BASE, UPPER]))
    result = compare(before, after, 2)
    assert result.shared == 1
    assert result.shared_compressed == before.layers()[0].descriptor.size
    assert result.changes == (FileChange(b"a/grown", 1, 500), FileChange(b"b/y", None, 4))
    assert result.changed == 4
    assert result.after.total.uncompressed > result.before.total.uncompressed


def test_an_image_is_like_itself() -> None:
    image = image_of(MemoryStore().blobs, [BASE, UPPER], ContainerConfig())
    result = compare(image, image, 10)
    assert (result.changes, result.changed, result.shared) == ((), 0, 2)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(tmp_path / "store")
    monkeypatch.setenv("CASTOFF_ROOT", root)
    with DirectoryStore.open_(root) as store:
        for name, steps in (("old", [BASE]), ("new", [BASE, UPPER])):
            image = image_of(store.blobs, steps, ContainerConfig())
            store.images.set_(Reference.parse(name), image.descriptor, 1.0)
    assert main(["size", "--compare", "old", "new", "--largest", "1"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split() == ["old:latest", "new:latest", "CHANGE", "TIMES"]
    assert "layers" in out
    assert "+499B" in out
    assert out.endswith("and 3 more\n")
    assert main(["size", "--compare", "--format", "json", "new", "old"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["SharedLayers"] == 1
    assert value["Changes"][0] == {"Path": "/a/grown", "Before": 500, "After": 1}
    for wrong in (
        ["size", "old", "new"],
        ["size", "--compare", "old"],
        ["size", "--compare", "--stages", "old", "new"],
    ):
        assert main(wrong) == 2
