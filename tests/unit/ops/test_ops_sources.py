"""Sources of COPY: stages whose files are on the disk, contexts that are mounted, and what they never give away."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ops_rig import OpsRig, layer_of

from castoff.errors import ContextError
from castoff.fs.union import open_content
from castoff.ops.filesystem import FileSystem, Forms
from castoff.ops.select import Request


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[OpsRig]:
    made = OpsRig(tmp_path)
    yield made
    made.store.close()


def stage(rig: OpsRig, parent: FileSystem | None, fill: Callable[[Path], None]) -> FileSystem:
    """Return a stage whose topmost snapshot `fill` has written, as a RUN step would."""
    below = parent or FileSystem.empty(rig.workspace, "empty")
    snapshotter = rig.workspace.snapshotter
    active = snapshotter.prepare(below.snapshot() or None)
    fill(Path(active.upper))
    name = snapshotter.commit(active)
    return FileSystem(rig.workspace, below, f"stage {name}", Forms(name))


def test_links_that_a_step_made_lead_nowhere_on_the_host(rig: OpsRig, tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()
    (tmp_path / "host/secret").write_text("secret of the host")

    def lower(root: Path) -> None:
        (root / "sub").mkdir()
        (root / "sub/file").write_text("of the image")

    def upper(root: Path) -> None:
        (root / "abs").symlink_to(tmp_path / "host")
        (root / "up").symlink_to("../" * 30 + str(tmp_path / "host").lstrip("/"))
        (root / "file").symlink_to(tmp_path / "host/secret")
        (root / "sub").symlink_to(tmp_path / "host")

    source = stage(rig, stage(rig, None, lower), upper).as_source()
    for path in ("abs/secret", "up/secret", "file", "sub/secret", "sub/file"):
        with pytest.raises(ContextError, match="is not there"):
            source.select(Request((path,)))
    assert source.select(Request(("*/secret",))) == ()
    (everything,) = source.select(Request(("/",)))
    assert [(path, entry.is_symlink) for path, entry in everything.below] == [
        (b"abs", True),
        (b"file", True),
        (b"sub", True),
        (b"up", True),
    ]
    with pytest.raises(ContextError, match=r"leads through a symbolic link|is not there"):
        source.select(Request(("abs/secret",), parents=True))


def test_links_that_a_step_made_are_followed_within_the_stage(rig: OpsRig) -> None:
    def fill(root: Path) -> None:
        (root / "etc").mkdir()
        (root / "etc/passwd").write_text("of the image")
        (root / "link").symlink_to("/../../etc/passwd")

    (item,) = stage(rig, None, fill).as_source().select(Request(("link",)))
    assert (item.name, item.top.path) == (b"link", b"etc/passwd")
    with open_content(item.top) as file:
        assert file.read() == b"of the image"


def test_pipes_and_devices_of_a_stage_are_never_opened(rig: OpsRig) -> None:
    def fill(root: Path) -> None:
        os.mkfifo(root / "pipe")
        (root / "plain").write_text("x")

    source = stage(rig, None, fill)
    assert len(source.as_source().content_digest(Request(("/",)), owners=True)) == 64
    result = layer_of(rig.copy(source, sources=("/",), dest="/d", is_add=True))
    assert list(result) == ["d", "d/pipe", "d/plain"]


def test_a_digest_of_a_stage_is_remembered_for_its_snapshot(rig: OpsRig) -> None:
    def fill(root: Path) -> None:
        (root / "one").write_text("1")
        (root / "two").write_text("2")

    made = stage(rig, None, fill)
    one = made.as_source().content_digest(Request(("one",)), owners=True)
    again = FileSystem(rig.workspace, made.parent, made.key, Forms(made.name))
    assert again.as_source().content_digest(Request(("one",)), owners=True) == one
    assert again.as_source().content_digest(Request(("two",)), owners=True) != one
    assert again.as_source().content_digest(Request(("one",)), owners=False) != one


def test_a_context_is_mounted_with_the_links_that_lead_to_what_is_asked_for(rig: OpsRig) -> None:
    root = rig.path / "context"
    (root / "real/dir").mkdir(parents=True)
    (root / "real/dir/file").write_text("x")
    (root / "real/other").write_text("x")
    (root / "link").symlink_to("real/dir")
    mounted = rig.context().as_filesystem(Request(("/link",)))
    assert list(layer_of(mounted)) == ["link", "real", "real/dir", "real/dir/file"]
    one = rig.context().as_filesystem(Request(("/link/file",)))
    assert list(layer_of(one)) == ["link", "real", "real/dir", "real/dir/file"]
    assert one.key != mounted.key


def test_what_is_missing_in_a_context_is_explained(rig: OpsRig) -> None:
    root = rig.path / "context"
    root.mkdir()
    (root / "README.md").touch()
    (root / "ignored").touch()
    context = rig.context(b"ignored\n")
    for path, reason in (("readme.md", "did you mean 'README.md'"), ("ignored", r"\.dockerignore leaves it out")):
        with pytest.raises(ContextError, match=reason):
            context.select(Request((path,)))
