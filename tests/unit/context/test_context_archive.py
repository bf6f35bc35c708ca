"""Archives as build contexts, hostile ones among them."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from castoff.context.archive import Peeked, read_inside, unpack_context
from castoff.errors import ContextError, InvalidImageError, PathEscapeError
from castoff.layer.tarreader import TarLimits

Member = tuple[str, bytes, bytes, str]


def packed(*members: Member, mode: str = "w", permissions: int = 0o644) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:  # type: ignore[call-overload]
        for name, kind, content, link in members:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname, info.mode = kind, len(content), link, permissions
            info.mtime, info.uid = 1_000_000_000, 4242
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def file(name: str, content: bytes = b"x") -> Member:
    return name, tarfile.REGTYPE, content, ""


def link(name: str, target: str) -> Member:
    return name, tarfile.SYMTYPE, b"", target


def unpack(data: bytes, folder: Path, limits: TarLimits | None = None) -> None:
    folder.mkdir()
    unpack_context(io.BytesIO(data), str(folder), "the archive", limits or TarLimits())


def test_files_folders_and_links(tmp_path: Path) -> None:
    data = packed(
        ("d", tarfile.DIRTYPE, b"", ""),
        file("d/f", b"content"),
        file("no/parents/f"),
        link("l", "/etc/passwd"),
        ("h", tarfile.LNKTYPE, b"", "d/f"),
        ("fifo", tarfile.FIFOTYPE, b"", ""),
        ("null", tarfile.CHRTYPE, b"", ""),
    )
    root = tmp_path / "root"
    unpack(data, root)
    assert (root / "d/f").read_bytes() == b"content"
    assert (root / "d/f").stat().st_mtime == 1_000_000_000
    assert (root / "d/f").stat().st_uid == os.getuid()
    assert (root / "d/f").samefile(root / "h")
    assert os.readlink(root / "l") == "/etc/passwd"
    assert sorted(path.name for path in root.iterdir()) == ["d", "h", "l", "no"]


@pytest.mark.parametrize("mode", ["w:gz", "w:xz", "w:bz2"])
def test_compressed_archives_are_told_by_their_content(tmp_path: Path, mode: str) -> None:
    data = packed(file("f"), mode=mode)
    assert Peeked(io.BytesIO(data)).is_archive
    unpack(data, tmp_path / "root")
    assert (tmp_path / "root/f").exists()


def test_a_dockerfile_is_no_archive_and_nothing_of_it_is_lost() -> None:
    import gzip

    text = b"FROM scratch\n" * 10_000
    stream = Peeked(io.BytesIO(text))
    assert not stream.is_archive
    assert stream.read(5) == b"FROM "
    assert stream.read() == text[5:]
    assert not Peeked(io.BytesIO(gzip.compress(text))).is_archive
    assert not Peeked(io.BytesIO(b"")).is_archive


def test_the_later_entry_for_a_path_counts(tmp_path: Path) -> None:
    data = packed(
        file("a", b"1"), file("a", b"2"), link("b", "a"), file("b", b"3"), file("c/d"), file("c", b"4"), file("e"),
        ("e", tarfile.DIRTYPE, b"", ""),
    )  # fmt: skip
    root = tmp_path / "root"
    unpack(data, root)
    assert [(root / name).read_bytes() for name in "abc"] == [b"2", b"3", b"4"]
    assert (root / "e").is_dir()


@pytest.mark.parametrize(
    "members",
    [
        [file("../out")],
        [file("a/../../out")],
        [link("d", ".."), file("d/out")],
        [link("d", "/tmp"), file("d/out")],
        [file("a"), link("l", "a"), file("l/out")],
        [("h", tarfile.LNKTYPE, b"", "/etc/passwd")],
        [("h", tarfile.LNKTYPE, b"", "../secret")],
        [link("d", ".."), ("h", tarfile.LNKTYPE, b"", "d/secret")],
        [link("l", "../secret"), ("h", tarfile.LNKTYPE, b"", "l")],
    ],
)
def test_nothing_leads_out(tmp_path: Path, members: list[Member]) -> None:
    (tmp_path / "secret").write_bytes(b"private")
    with pytest.raises(InvalidImageError):
        unpack(packed(*members), tmp_path / "root")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["root", "secret"]
    assert all(path.stat().st_nlink == 1 for path in (tmp_path / "root").rglob("*") if path.is_file())


def test_an_archive_without_end_is_stopped(tmp_path: Path) -> None:
    many = packed(*(file(f"f{number}") for number in range(20)))
    with pytest.raises(InvalidImageError, match="more than 10 entries"):
        unpack(many, tmp_path / "many", TarLimits(entries=10))
    large = packed(file("f", bytes(1 << 20)), mode="w:gz")
    with pytest.raises(InvalidImageError):
        unpack(large, tmp_path / "large", TarLimits(size=1 << 16))
    with pytest.raises(InvalidImageError):
        unpack(packed(file("f", b"y" * 2000))[:1200], tmp_path / "cut")


def test_a_folder_that_the_archive_closes_can_still_be_read(tmp_path: Path) -> None:
    data = packed(("d", tarfile.DIRTYPE, b"", ""), file("d/f"), permissions=0)
    unpack(data, tmp_path / "root")
    assert (tmp_path / "root/d").stat().st_mode & 0o777 == 0o500


def test_reading_follows_links_within_the_folder_only(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "d").mkdir(parents=True)
    (root / "d/f").write_bytes(b"inside")
    (tmp_path / "secret").write_bytes(b"private")
    (root / "rel").symlink_to("d/f")
    (root / "abs").symlink_to("/d/f")
    (root / "up").symlink_to("../secret")
    (root / "out").symlink_to(tmp_path / "secret")
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "fifo")
    for name in ("d/f", "rel", "abs", "./d//f"):
        assert read_inside(str(root), name, 100) == b"inside"
    for name in ("up", "out", "nothing", "d/f/x", "no/where"):
        assert read_inside(str(root), name, 100) is None
    with pytest.raises(PathEscapeError):
        read_inside(str(root), "../secret", 100)
    for name in ("loop", "fifo", "d"):
        with pytest.raises(ContextError):
            read_inside(str(root), name, 100)
    with pytest.raises(ContextError, match="more than"):
        read_inside(str(root), "d/f", 3)
