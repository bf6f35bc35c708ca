"""Walking a host folder: order, exclusion, and files that are no files."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from castoff.errors import ContextError
from castoff.fs.walk import Verdict, WalkedFile, walk_folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "context"
    for name in ("a", "a/deep", "skip", "skip/keep"):
        (path / name).mkdir(parents=True, exist_ok=True)
    for name in ("a/deep/f", "a.b", "skip/no", "skip/keep/yes", "Z"):
        (path / name).write_bytes(name.encode())
    return path


def paths(files: list[WalkedFile]) -> list[bytes]:
    return [file.entry.path for file in files]


def test_order_names_and_status(root: Path) -> None:
    files = list(walk_folder(str(root)))
    assert paths(files) == [
        b"", b"Z", b"a", b"a/deep", b"a/deep/f", b"a.b", b"skip", b"skip/keep", b"skip/keep/yes", b"skip/no",
    ]  # fmt: skip
    assert files[0].names == (b"Z", b"a", b"a.b", b"skip")
    last = files[-1]
    assert last.names is None
    assert (last.entry.size, last.entry.source) == (7, os.fsencode(root / "skip/no"))
    assert last.status.st_ino == os.lstat(root / "skip/no").st_ino
    assert last.entry.mtime_ns == last.status.st_mtime_ns


def test_exclusion_hands_the_parents_state_down(root: Path) -> None:
    asked: list[tuple[bytes, bool, Any]] = []

    def exclude(path: bytes, is_dir: bool, state: Any) -> Verdict:
        asked.append((path, is_dir, state))
        excluded = (path.startswith(b"skip") or path == b"a") and not path.startswith(b"skip/keep")
        return Verdict(excluded, state=path, may_descend=path == b"skip")

    files = list(walk_folder(str(root), exclude=exclude))
    assert paths(files) == [b"", b"Z", b"a.b", b"skip", b"skip/keep", b"skip/keep/yes"]
    assert [file.excluded for file in files] == [False, False, False, True, False, False]
    assert (b"skip/keep/yes", False, b"skip/keep") in asked
    assert (b"a", True, None) in asked
    assert not any(path.startswith(b"a/") for path, _, _ in asked)


def test_links_are_not_followed_and_special_files_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    os.symlink("/etc", "link")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
    entries = {file.entry.path: file.entry for file in walk_folder(".")}
    assert sorted(entries) == [b"", b"fifo", b"link"]
    assert stat.S_ISFIFO(entries[b"fifo"].mode)
    assert entries[b"link"].link == b"/etc"


def test_hard_links_and_attributes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    os.link(tmp_path / "a", tmp_path / "b")
    os.setxattr(tmp_path / "a", "user.k", b"v")
    _, a, b = walk_folder(str(tmp_path), xattrs=True)
    assert a.entry.inode == b.entry.inode is not None
    assert a.entry.xattrs == ((b"user.k", b"v"),)


def test_files_that_vanish_are_left_out(root: Path) -> None:
    seen = []
    for file in walk_folder(str(root)):
        seen.append(file.entry.path)
        if file.entry.path == b"skip":
            (root / "skip/no").unlink()
    assert b"skip/no" not in seen


def test_what_can_not_be_read_is_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ContextError, match="none"):
        list(walk_folder(str(tmp_path / "none")))
    with pytest.raises(ContextError, match="not a folder"):
        list(walk_folder(str(root / "Z")))
    if os.geteuid() == 0:
        pytest.skip("needs a user other than root (root may read everything)")
    os.chmod(root / "a", 0)
    with pytest.raises(ContextError, match="can't read the folder a"):
        list(walk_folder(str(root)))
