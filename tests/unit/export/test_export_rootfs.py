from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from castoff.errors import ExportError
from castoff.events import NullObserver
from castoff.export.rootfs import export_folder, export_tar
from castoff.fs.entry import FileEntry
from castoff.fs.treelayer import EntryLayer
from castoff.fs.union import UnionTree

MTIME = 1_000_000_000_000_000_000


def folder(path: bytes, mode: int = 0o755) -> FileEntry:
    return FileEntry(path, stat.S_IFDIR | mode, mtime_ns=MTIME)


def file(path: bytes, data: bytes = b"x", mode: int = 0o644, uid: int = 1000) -> FileEntry:
    return FileEntry(path, stat.S_IFREG | mode, uid=uid, size=len(data), data=data, mtime_ns=MTIME)


def link(path: bytes, target: bytes) -> FileEntry:
    return FileEntry(path, stat.S_IFLNK | 0o777, link=target, mtime_ns=MTIME)


def tree(*entries: FileEntry) -> UnionTree:
    return UnionTree([EntryLayer(entries)])


def write(entries: Iterable[FileEntry], dest: Path) -> tuple[str, ...]:
    return export_folder(tree(*entries), str(dest), NullObserver()).skipped


def test_a_folder_with_all_kinds_of_files(tmp_path: Path) -> None:
    entries = [
        folder(b"bin"),
        file(b"bin/tool", b"#!", 0o4755),
        link(b"bin/alias", b"tool"),
        folder(b"closed", 0o500),
        file(b"closed/inside", b"in"),
        FileEntry(b"fifo", stat.S_IFIFO | 0o600),
        file(b"\xff\n", b"odd"),
        file(b"empty", b""),
    ]
    assert write(entries, tmp_path / "out") == ()
    out = tmp_path / "out"
    assert (out / "bin/tool").read_bytes() == b"#!"
    assert stat.S_IMODE((out / "bin/tool").stat().st_mode) == 0o4755
    assert (out / "bin/tool").stat().st_mtime == 1_000_000_000
    assert (out / "bin/tool").stat().st_uid == os.getuid()
    assert os.readlink(out / "bin/alias") == "tool"
    assert stat.S_IMODE((out / "closed").stat().st_mode) == 0o500
    assert (out / "closed").stat().st_mtime == 1_000_000_000
    assert (out / "closed/inside").read_bytes() == b"in"
    assert stat.S_ISFIFO((out / "fifo").stat().st_mode)
    assert (out / "empty").read_bytes() == b""
    assert Path(os.fsdecode(os.fsencode(str(out)) + b"/\xff\n")).read_bytes() == b"odd"
    (out / "closed").chmod(0o700)


def test_hard_links_are_kept(tmp_path: Path) -> None:
    (tmp_path / "src").write_text("same")
    source = os.fsencode(str(tmp_path / "src"))
    both = [
        FileEntry(name, stat.S_IFREG | 0o644, size=4, source=source, inode=(1, 2), mtime_ns=MTIME)
        for name in (b"a", b"b")
    ]
    write(both, tmp_path / "out")
    assert (tmp_path / "out/a").stat().st_ino == (tmp_path / "out/b").stat().st_ino
    assert (tmp_path / "out/a").stat().st_ino != (tmp_path / "src").stat().st_ino
    assert (tmp_path / "out/b").read_text() == "same"


def test_an_existing_folder_is_merged_into(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "etc").mkdir(parents=True)
    (out / "etc/mine").write_text("mine")
    (out / "etc/both").write_text("old")
    (out / "etc/both").chmod(0o400)
    write([folder(b"etc", 0o750), file(b"etc/both", b"new"), file(b"etc/new")], out)
    assert {path.name: path.read_text() for path in (out / "etc").iterdir()} == {
        "mine": "mine",
        "both": "new",
        "new": "x",
    }
    assert stat.S_IMODE((out / "etc").stat().st_mode) == 0o750


def test_files_and_folders_replace_one_another(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "a/deep").mkdir(parents=True)
    (out / "b").write_text("file")
    write([file(b"a"), folder(b"b"), file(b"b/c")], out)
    assert (out / "a").read_text() == "x"
    assert (out / "b/c").read_text() == "x"


def test_links_that_are_in_the_way_are_never_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("untouched")
    out = tmp_path / "out"
    out.mkdir()
    (out / "etc").symlink_to(outside)
    (out / "file").symlink_to(outside / "file")
    (out / "node").symlink_to(outside / "file")
    write([folder(b"etc"), file(b"etc/file"), file(b"file"), link(b"node", b"/etc/passwd")], out)
    assert (outside / "file").read_text() == "untouched"
    assert os.listdir(outside) == ["file"]
    assert not (out / "etc").is_symlink()
    assert (out / "file").read_text() == "x"
    assert os.readlink(out / "node") == "/etc/passwd"


def test_links_of_the_image_lead_nowhere_while_it_is_written(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write([link(b"a", b"../outside"), link(b"b", b"/"), folder(b"c"), link(b"c/d", b"../../..")], out)
    assert os.listdir(tmp_path) == ["out"]
    assert sorted(os.listdir(out)) == ["a", "b", "c"]


def test_a_destination_that_is_a_link_to_a_folder(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    write([file(b"f")], tmp_path / "link")
    assert (tmp_path / "real/f").read_text() == "x"
    assert (tmp_path / "link").is_symlink()


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ExportError, match="it is a file"):
        write([file(b"f")], tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_missing_parents_of_the_destination_are_made(tmp_path: Path) -> None:
    write([file(b"f")], tmp_path / "a/b/out")
    assert (tmp_path / "a/b/out/f").read_text() == "x"


def test_a_failure_leaves_no_new_folder(tmp_path: Path) -> None:
    (tmp_path / "src").write_text("1234")
    cut = FileEntry(b"f", stat.S_IFREG | 0o644, size=9, source=os.fsencode(str(tmp_path / "src")))
    with pytest.raises(ExportError, match="became shorter"):
        write([folder(b"d"), file(b"a"), cut], tmp_path / "out")
    assert os.listdir(tmp_path) == ["src"]


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/f").write_text("old")
    (tmp_path / "src").write_text("1234")
    cut = FileEntry(b"f", stat.S_IFREG | 0o644, size=9, source=os.fsencode(str(tmp_path / "src")))
    with pytest.raises(ExportError):
        write([cut], tmp_path / "out")
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == {"f": "old"}


def test_a_tar_stream_of_the_merged_tree(tmp_path: Path) -> None:
    lower = EntryLayer([folder(b"etc"), file(b"etc/a", b"old"), file(b"gone")])
    upper = EntryLayer([file(b"etc/a", b"new", uid=7)], deletions=[b"gone"])
    export_tar(UnionTree([upper, lower]), str(tmp_path / "t"), NullObserver(), epoch=5)
    with tarfile.open(tmp_path / "t") as archive:
        assert archive.getnames() == ["etc", "etc/a"]
        member = archive.getmember("etc/a")
        content = archive.extractfile(member)
        assert content is not None
        assert content.read() == b"new"
        assert (member.uid, member.mtime) == (7, 5)
    assert os.listdir(tmp_path) == ["t"]
