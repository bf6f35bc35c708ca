"""Confined writing below a folder, and owners."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from castoff.errors import SyscallError
from castoff.fs.ownership import DirectOwnership, Owner
from castoff.fs.rooted import RootedDirectory, copy_bytes, remove_tree


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_everything_is_made_below_the_root(tmp_path: Path) -> None:
    before = descriptors()
    with RootedDirectory(str(tmp_path), kept=2) as rooted:
        for path in (b"a", b"a/b", b"a/b/c", b"a/b/c/d"):
            rooted.mkdir(path)
        os.close(rooted.create(b"a/b/c/d/f", 0o640))
        rooted.link(b"g", b"a/b/c/d/f")
        rooted.symlink(b"a/l", b"/etc")
        rooted.mknod(b"a/p", stat.S_IFIFO | 0o600)
        rooted.set_times(b"a/l", 5_000_000_000)
        assert rooted.readlink(b"a/l") == b"/etc"
        assert rooted.lstat(b"a/none") is None
        found = rooted.lstat(b"a/l")
        assert found is not None
        assert found.st_mtime == 5
        assert descriptors() <= before + 3
    assert descriptors() == before
    assert os.stat(tmp_path / "g").st_nlink == 2


@pytest.mark.parametrize("path", [b"link/f", b"dir/link/f"])
def test_links_among_the_parents_are_refused(tmp_path: Path, path: bytes) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    (inside / "dir").mkdir(parents=True)
    for where in (inside, inside / "dir"):
        (where / "link").symlink_to(outside)
    (outside / "f").write_bytes(b"")
    with RootedDirectory(str(inside)) as rooted:
        for action in (
            lambda: rooted.create(path, 0o600),
            lambda: rooted.mkdir(path),
            lambda: rooted.symlink(path, b"x"),
            lambda: rooted.lstat(path),
            lambda: rooted.remove(path),
            lambda: rooted.link(b"new", path),
            lambda: rooted.set_times(path, 0),
        ):
            with pytest.raises(NotADirectoryError):
                action()
    assert os.listdir(outside) == ["f"]


def test_removing_does_not_follow_links(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"")
    (inside / "d" / "e").mkdir(parents=True)
    (inside / "d" / "e" / "link").symlink_to(outside)
    (inside / "l").symlink_to(outside)
    with RootedDirectory(str(inside)) as rooted:
        rooted.open_directory(b"d/e")
        for path in (b"d", b"l", b"none"):
            rooted.remove(path)
        rooted.mkdir(b"d")
        rooted.mkdir(b"d/e")
    assert (os.listdir(outside), os.listdir(inside)) == (["kept"], ["d"])


def test_deep_trees_need_no_recursion(tmp_path: Path) -> None:
    deep = [b"/".join([b"d"] * depth) for depth in range(1, 1500)]
    with RootedDirectory(str(tmp_path)) as rooted:
        for path in deep:
            rooted.mkdir(path)
        os.close(rooted.create(b"f", 0o600))
        for number in range(40):  # more than are kept open
            rooted.mkdir(b"n%d" % number)
            rooted.open_directory(b"n%d" % number)
        rooted.link(deep[-1] + b"/f", b"f")
        rooted.link(deep[-2] + b"/g", deep[-1] + b"/f")
        assert os.stat(tmp_path / "f").st_nlink == 3
        rooted.remove(b"d")
        assert os.stat(tmp_path / "f").st_nlink == 1


def test_trees_deeper_than_a_path_may_be_long_are_removed(tmp_path: Path) -> None:
    before = os.open(".", os.O_RDONLY)
    try:
        os.chdir(tmp_path)
        os.mkdir("top")
        os.chdir("top")
        for _ in range(60):
            os.mkdir("n" * 200)
            os.chdir("n" * 200)
            Path("file").write_bytes(b"")
    finally:
        os.chdir(before)
        os.close(before)
    os.mkdir(tmp_path / "top" / "closed", 0)
    remove_tree(os.fsencode(tmp_path / "top"))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("size", [0, 1, 5000, 3 << 20])
def test_bytes_are_copied_up_to_a_number(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "source").write_bytes(data + b"more")
    source = os.open(tmp_path / "source", os.O_RDONLY)
    target = os.open(tmp_path / "target", os.O_WRONLY | os.O_CREAT)
    assert copy_bytes(source, target, size) == size
    assert copy_bytes(source, target, 100) == 4
    os.close(source)
    os.close(target)
    assert (tmp_path / "target").read_bytes() == data + b"more"


def test_bytes_are_copied_from_files_that_the_kernel_does_not_copy(tmp_path: Path) -> None:
    source = os.open("/proc/self/status", os.O_RDONLY)
    target = os.open(tmp_path / "target", os.O_WRONLY | os.O_CREAT)
    assert copy_bytes(source, target, 6) == 6
    os.close(source)
    os.close(target)
    assert (tmp_path / "target").read_bytes() == b"Name:\t"


def test_owners_and_modes_are_set_where_they_differ(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"")
    link = tmp_path / "l"
    link.symlink_to("gone")
    ownership = DirectOwnership()
    uid, gid = 1234, 4321
    try:
        os.chown(path, uid, gid)
        os.chown(path, 0, 0)
    except OSError:  # not root, or only of a namespace with one id
        uid, gid = os.getuid(), os.getgid()
    ownership.set_(b"f", os.fsencode(path), Owner(stat.S_IFREG | 0o6755, uid, gid, 0))
    ownership.set_(b"l", os.fsencode(link), Owner(stat.S_IFLNK | 0o777, uid, gid, 0))
    status = os.stat(path)
    assert ownership.of(b"f", status) == Owner(stat.S_IFREG | 0o6755, uid, gid, 0)
    assert os.lstat(link).st_uid == uid
    with open(path, "rb") as file:
        ownership.set_(b"f", file.fileno(), Owner(stat.S_IFREG | 0o600, uid, gid, 0))
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    with pytest.raises(SyscallError, match="can't give none"):
        ownership.set_(b"none", os.fsencode(tmp_path / "none"), Owner(0o600, 0, 0, 0))
