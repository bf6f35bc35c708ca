"""The life of snapshots on disk."""

from __future__ import annotations

import os
import stat
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from castoff.errors import ContextError, StoreError
from castoff.fs.changes import Added, Change, Opaque, Removed
from castoff.fs.entry import FileEntry
from castoff.fs.ownership import DirectOwnership
from castoff.fs.union import UnionTree
from castoff.snapshot.materialise import write_changes
from castoff.snapshot.overlay import OverlaySnapshotter

if TYPE_CHECKING:
    from castoff.snapshot.snapshotter import Snapshotter


class Folders:
    def __init__(self, root: Path) -> None:
        self.root = root

    def new_dir(self) -> str:
        self.root.mkdir(exist_ok=True)
        return tempfile.mkdtemp(dir=self.root)


@pytest.fixture
def snapshotter(tmp_path: Path) -> OverlaySnapshotter:
    return OverlaySnapshotter(str(tmp_path / "snapshots"), Folders(tmp_path / "tmp"), userxattr=True)


def commit(snapshotter: Snapshotter, parent: str | None, name: str | None = None, **files: str) -> str:
    active = snapshotter.prepare(parent)
    for file, text in files.items():
        Path(active.upper, file).write_text(text, encoding="utf-8")
    return snapshotter.commit(active, name)


def test_snapshots_stand_on_one_another(snapshotter: OverlaySnapshotter, tmp_path: Path) -> None:
    one = commit(snapshotter, None, a="1", b="1")
    two = commit(snapshotter, one, "named", b="2")
    assert (two, snapshotter.parent(two), snapshotter.parent(one)) == ("named", one, None)
    assert sorted(snapshotter) == sorted([one, two])
    tree = snapshotter.tree(two)
    assert tree.listdir(b"") == [b"a", b"b"]
    with tree.open_(b"b") as file:
        assert file.read() == b"2"
    active = snapshotter.prepare(two)
    assert active.lowers == tuple(str(tmp_path / "snapshots" / name / "fs") for name in (two, one))
    assert (active.parent, active.userxattr, os.listdir(active.work)) == (two, True, [])
    assert snapshotter.upper_tree(active).listdir(b"") == [b"a", b"b"]
    snapshotter.discard(active)
    snapshotter.discard(active)
    assert os.listdir(tmp_path / "tmp") == []
    assert snapshotter.tree(None).listdir(b"") == []


def test_random_names_are_thirteen_characters(snapshotter: OverlaySnapshotter) -> None:
    name = commit(snapshotter, None)
    assert len(name) == 13
    assert name.isalnum()
    assert name.islower() or name.isdigit()


def test_the_roots_mode_and_time_are_handed_on(snapshotter: OverlaySnapshotter) -> None:
    active = snapshotter.prepare(None)
    os.chmod(active.upper, 0o711)
    os.utime(active.upper, ns=(5, 5))
    second = snapshotter.prepare(snapshotter.commit(active))
    status = os.stat(second.upper)
    assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (0o711, 5)


def test_a_name_that_is_taken_keeps_what_was_there(snapshotter: OverlaySnapshotter, tmp_path: Path) -> None:
    commit(snapshotter, None, "same", a="first")
    assert commit(snapshotter, None, "same", a="second") == "same"
    with snapshotter.tree("same").open_(b"a") as file:
        assert file.read() == b"first"
    assert os.listdir(tmp_path / "tmp") == []


def test_what_overlayfs_leaves_in_its_work_directory_goes(snapshotter: OverlaySnapshotter, tmp_path: Path) -> None:
    active = snapshotter.prepare(None)
    os.mkdir(active.work + "/work", 0)
    name = snapshotter.commit(active)
    assert sorted(os.listdir(tmp_path / "snapshots" / name)) == ["fs", "parent"]


def test_parents_must_exist(snapshotter: OverlaySnapshotter) -> None:
    for action in (snapshotter.prepare, snapshotter.parent, snapshotter.tree, snapshotter.directory):
        with pytest.raises(StoreError, match="no snapshot"):
            action("nowhere")
    assert not snapshotter.exists("nowhere")


@pytest.mark.parametrize("name", ["../evil", ".hidden", "a/b", "x" * 300, "ü"])
def test_names_stay_inside(snapshotter: OverlaySnapshotter, tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match="can't be the name"):
        snapshotter.commit(snapshotter.prepare(None), name)
    with pytest.raises(StoreError):
        snapshotter.remove(name)
    assert not (tmp_path / "evil").exists()


def test_only_what_nothing_stands_on_can_be_removed(snapshotter: OverlaySnapshotter, tmp_path: Path) -> None:
    one = commit(snapshotter, None)
    two = commit(snapshotter, one)
    with pytest.raises(StoreError, match="stands on it"):
        snapshotter.remove(one)
    for name in (two, one, one):
        snapshotter.remove(name)
    assert list(snapshotter) == []
    assert not snapshotter.exists(two)
    assert os.listdir(tmp_path / "tmp") == []


def test_removal_by_another_process_is_noticed(snapshotter: OverlaySnapshotter, tmp_path: Path) -> None:
    one = commit(snapshotter, None)
    two = commit(snapshotter, one)
    assert snapshotter.exists(two)
    other = OverlaySnapshotter(str(tmp_path / "snapshots"), Folders(tmp_path / "tmp"), userxattr=True)
    other.remove(two)
    other.remove(one)
    assert not snapshotter.exists(two)
    with pytest.raises(StoreError, match="no snapshot"):
        snapshotter.prepare(two)


def test_broken_folders_are_ignored(snapshotter: OverlaySnapshotter, tmp_path: Path) -> None:
    whole = commit(snapshotter, None)
    (tmp_path / "snapshots" / "broken" / "fs").mkdir(parents=True)
    (tmp_path / "snapshots" / "file").write_text("x")
    assert list(snapshotter) == [whole]
    assert not snapshotter.exists("broken")


def test_threads_that_commit_the_same_name_agree(snapshotter: OverlaySnapshotter, tmp_path: Path) -> None:
    names: list[str] = []
    threads = [
        threading.Thread(target=lambda number=number: names.append(commit(snapshotter, None, "one", a=str(number))))
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names == ["one"] * 8
    assert os.listdir(tmp_path / "tmp") == []


def test_changes_in_memory_become_a_snapshot(snapshotter: OverlaySnapshotter, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"from the host")
    uid, gid = os.getuid(), os.getgid()
    folder, file = stat.S_IFDIR | 0o750, stat.S_IFREG | 0o4755
    base = snapshotter.prepare(None)
    first: list[Change] = [
        Added(FileEntry(b"app", folder, uid, gid, mtime_ns=1)),
        Added(FileEntry(b"app/old", file, uid, gid, 1, data=b"1")),
        Added(FileEntry(b"app/gone", file, uid, gid, 1, data=b"1")),
        Added(FileEntry(b"cache", folder, uid, gid)),
        Added(FileEntry(b"cache/x", file, uid, gid, 1, data=b"1")),
    ]
    assert write_changes(first, base.upper, UnionTree(), DirectOwnership(), True) == ()
    name = snapshotter.commit(base)
    active = snapshotter.prepare(name)
    source = os.fsencode(tmp_path / "source")
    second: list[Change] = [
        Added(FileEntry(b"app/new", file, uid, gid, 13, mtime_ns=123_456_789, source=source)),
        Added(FileEntry(b"app/second", file, uid, gid, 13, hardlink=b"app/new")),
        Removed(b"app/gone"),
        Opaque(b"cache"),
    ]
    write_changes(second, active.upper, snapshotter.tree(name), DirectOwnership(), True)
    tree = snapshotter.tree(snapshotter.commit(active))
    assert [entry.path for entry in tree.walk()] == [b"", b"app", b"app/new", b"app/old", b"app/second", b"cache"]
    new, app = tree.lstat(b"app/new"), tree.lstat(b"app")
    assert new is not None and app is not None
    assert (new.mode, new.mtime_ns) == (file, 123_456_789)
    assert (app.mode, app.mtime_ns) == (folder, 1)
    with tree.open_(b"app/second") as content:
        assert content.read() == b"from the host"


@pytest.mark.parametrize("size", [12, 14])
def test_a_source_of_another_size_is_refused(snapshotter: OverlaySnapshotter, tmp_path: Path, size: int) -> None:
    (tmp_path / "source").write_bytes(b"from the host")
    entry = FileEntry(
        b"f", stat.S_IFREG | 0o644, os.getuid(), os.getgid(), size, source=os.fsencode(tmp_path / "source")
    )
    active = snapshotter.prepare(None)
    with pytest.raises(ContextError, match="changed while"):
        write_changes([Added(entry)], active.upper, UnionTree(), DirectOwnership(), True)
