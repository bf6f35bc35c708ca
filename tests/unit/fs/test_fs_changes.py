"""What an upper directory says against the tree below it."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from castoff.errors import StoreError
from castoff.fs.changes import Added, Change, Opaque, Removed, diff, iter_changes
from castoff.fs.entry import FileEntry
from castoff.fs.ownership import DirectOwnership
from castoff.fs.union import EntryLayer, UnionTree

UID, GID = os.getuid(), os.getgid()


def lower_tree() -> UnionTree:
    folder = stat.S_IFDIR | 0o755
    return UnionTree(
        [
            EntryLayer(
                [
                    FileEntry(b"", folder, UID, GID),
                    FileEntry(b"d", folder, UID, GID),
                    FileEntry(b"d/e", folder, UID, GID),
                    FileEntry(b"d/e/old", stat.S_IFREG | 0o644, UID, GID),
                    FileEntry(b"empty", folder, UID, GID),
                    FileEntry(b"x", stat.S_IFREG | 0o644, UID, GID),
                ]
            )
        ]
    )


def says(upper: Path, lower: UnionTree | None = None) -> list[tuple[str, bytes]]:
    return [(type(change).__name__, change.path) for change in found(upper, lower)]


def found(upper: Path, lower: UnionTree | None = None) -> list[Change]:
    return list(iter_changes(str(upper), lower or lower_tree(), DirectOwnership(), True))


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    path = tmp_path / "upper"
    path.mkdir()
    os.chmod(path, 0o755)
    return path


def make(path: Path, mode: int = 0o755) -> Path:
    path.mkdir()
    os.chmod(path, mode)
    return path


def test_nothing_says_nothing(upper: Path) -> None:
    assert says(upper) == []


def test_directories_are_kept_only_for_what_changed_in_or_on_them(upper: Path) -> None:
    make(make(upper / "d") / "e")
    make(upper / "empty")
    assert says(upper) == []
    (upper / "d/e/new").write_bytes(b"")
    assert says(upper) == [("Added", b"d"), ("Added", b"d/e"), ("Added", b"d/e/new")]
    os.chmod(upper / "empty", 0o700)
    assert says(upper)[-1] == ("Added", b"empty")


def test_a_waiting_directory_that_ends_unchanged_is_left_out_though_a_sibling_changed(upper: Path) -> None:
    make(make(upper / "d") / "e")
    (upper / "d/f").write_bytes(b"")
    assert says(upper) == [("Added", b"d"), ("Added", b"d/f")]


def test_the_roots_own_change_is_a_change(upper: Path) -> None:
    os.chmod(upper, 0o700)
    assert says(upper) == [("Added", b"")]


def test_order_is_that_of_bytes_with_parents_first(upper: Path) -> None:
    make(upper / "n")
    for name in ("n/z", "n.a", "b", "B"):
        (upper / name).write_bytes(b"")
    os.mknod(upper / "x", stat.S_IFCHR, 0)
    assert [path for _, path in says(upper)] == [b"B", b"b", b"n", b"n/z", b"n.a", b"x"]


def test_whiteouts_remove_what_is_there_and_nothing_else(upper: Path) -> None:
    for name in ("x", "d", "never"):
        os.mknod(upper / name, stat.S_IFCHR, 0)
    assert says(upper) == [("Removed", b"d"), ("Removed", b"x")]


def test_opaque_directories_are_opaque_only_over_content(upper: Path) -> None:
    for name in ("d", "empty", "new"):
        os.setxattr(make(upper / name), "user.overlay.opaque", b"y")
    os.mknod(upper / "d/e", stat.S_IFCHR, 0)
    make(upper / "d/e2")
    assert says(upper) == [("Added", b"d"), ("Opaque", b"d"), ("Added", b"d/e2"), ("Added", b"new")]


def test_a_directory_in_place_of_a_file_needs_no_mark(upper: Path) -> None:
    os.setxattr(make(upper / "x"), "user.overlay.opaque", b"y")
    assert says(upper) == [("Added", b"x")]


def test_the_first_hard_link_in_order_is_the_file(upper: Path) -> None:
    (upper / "m").write_bytes(b"1")
    os.link(upper / "m", upper / "z")
    os.link(upper / "m", upper / "a")
    entries = [change.entry for change in found(upper) if isinstance(change, Added)]
    assert [(entry.path, entry.hardlink) for entry in entries] == [(b"a", None), (b"m", b"a"), (b"z", b"a")]


def test_sockets_and_private_attributes_are_left_out(upper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(upper)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")
    (upper / "f").write_bytes(b"")
    for name in ("user.overlay.origin", "user.castoff.mode", "user.kept"):
        os.setxattr(upper / "f", name, b"1")
    (change,) = found(upper)
    assert isinstance(change, Added)
    assert change.entry.xattrs == ((b"user.kept", b"1"),)


@pytest.mark.needs_root
def test_content_that_overlayfs_keeps_elsewhere_is_an_error(upper: Path) -> None:
    try:
        os.setxattr(make(upper / "d"), "trusted.overlay.redirect", b"other")
    except PermissionError:
        pytest.skip("needs real root (trusted attributes)")
    with pytest.raises(StoreError, match="redirect"):
        list(iter_changes(str(upper), lower_tree(), DirectOwnership(), False))


def test_a_missing_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="can't read"):
        says(tmp_path / "none")


def test_differences_of_trees() -> None:
    def tree(*entries: FileEntry) -> UnionTree:
        return UnionTree([EntryLayer(entries)])

    def file(path: bytes, data: bytes, mtime: int = 0) -> FileEntry:
        return FileEntry(path, stat.S_IFREG | 0o644, size=len(data), data=data, mtime_ns=mtime)

    before = tree(file(b"d/a", b"1"), file(b"d/b", b"1"), file(b"d/c", b"1"), file(b"gone/x", b""))
    after = tree(file(b"d/a", b"1"), file(b"d/b", b"2"), file(b"d/c", b"1", 5), file(b"n", b""))
    changes = list(diff(before, after))
    assert [type(change) for change in changes] == [Added, Added, Added, Removed, Added]
    assert [change.path for change in changes] == [b"d", b"d/b", b"d/c", b"gone", b"n"]
    assert list(diff(after, after)) == []
    assert not any(isinstance(change, Opaque) for change in changes)
