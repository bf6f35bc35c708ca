"""Packages and wheels: unpacked faithfully, and kept inside where they are hostile."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest
from debian_archive import Package, ar, directory, member, tar

from castoff.base.deb import Deb
from castoff.base.distroless import unpack_package
from castoff.base.recipe import Wheel
from castoff.base.roottree import RootTree, compile_pattern, merge_usr
from castoff.base.wheels import platforms, unpack_wheel
from castoff.errors import InvalidImageError, UsageError


@pytest.fixture
def tree(tmp_path: Path) -> RootTree:
    spool = tmp_path / "spool"
    spool.mkdir()
    return RootTree(str(spool))


def unpack(tree: RootTree, folder: Path, *entries: tuple[tarfile.TarInfo, bytes], compression: str = ".xz") -> None:
    path = folder / "x.deb"
    path.write_bytes(Package("x", entries=entries, compression=compression).deb())
    unpack_package(tree, str(path))


@pytest.mark.parametrize("compression", ["", ".xz", ".gz", ".zst"])
def test_content(tree: RootTree, tmp_path: Path, compression: str) -> None:
    big = bytes(range(256)) * 1024
    unpack(
        tree,
        tmp_path,
        directory("./usr/", 0o755),
        member("./usr/big", big, mode=0o4755, uid=7),
        member("./usr/link", kind=tarfile.SYMTYPE, link="big"),
        member("./usr/hard", kind=tarfile.LNKTYPE, link="./usr/big"),
        member("./usr/n\udcff", b"x"),
        compression=compression,
    )
    entries = {entry.path: entry for entry in tree.entries()}
    assert list(entries) == [b"usr", b"usr/big", b"usr/hard", b"usr/link", b"usr/n\xff"]
    assert (entries[b"usr/big"].permissions, entries[b"usr/big"].uid) == (0o4755, 7)
    assert entries[b"usr/hard"].hardlink == b"usr/big"
    assert entries[b"usr/link"].link == b"big"
    assert tree.read(b"usr/big") == tree.read(b"usr/hard") == big


@pytest.mark.parametrize(
    "entry",
    [
        member("../out", b"x"),
        member("./a/../../out", b"x"),
        member("/../out", b"x"),
        member("./hard", kind=tarfile.LNKTYPE, link="../../etc/passwd"),
        member("./device", kind=tarfile.CHRTYPE),
        member("./pipe", kind=tarfile.FIFOTYPE),
        member("./hard", kind=tarfile.LNKTYPE, link="missing"),
    ],
)
def test_hostile_entries(tree: RootTree, tmp_path: Path, entry: tuple[tarfile.TarInfo, bytes]) -> None:
    with pytest.raises(InvalidImageError):
        unpack(tree, tmp_path, entry)
    assert not (tmp_path / "out").exists()


def test_link_out_of_the_root_is_followed_inside(tree: RootTree, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    unpack(
        tree,
        tmp_path,
        member("./a", kind=tarfile.SYMTYPE, link=str(outside)),
        member("./b", kind=tarfile.SYMTYPE, link="../../../up"),
        member("./a/file", b"1"),
        member("./b/file", b"2"),
    )
    assert list(outside.iterdir()) == []
    assert tree.read(b"up/file") == b"2"
    assert tree.read(bytes(outside)[1:] + b"/file") == b"1"


def test_ring_of_links(tree: RootTree, tmp_path: Path) -> None:
    with pytest.raises(InvalidImageError, match="too many symbolic links"):
        unpack(tree, tmp_path, member("./a", kind=tarfile.SYMTYPE, link="a"), member("./a/x", b""))


def test_file_as_parent(tree: RootTree, tmp_path: Path) -> None:
    with pytest.raises(InvalidImageError, match="not a directory"):
        unpack(tree, tmp_path, member("./a", b"x"), member("./a/b", b"y"))


def test_merged_usr(tree: RootTree, tmp_path: Path) -> None:
    merge_usr(tree, "amd64")
    unpack(tree, tmp_path, directory("./bin/"), member("./bin/sh", b"#!"), member("./lib64/ld.so", b"x"))
    paths = tree.paths()
    assert b"usr/bin/sh" in paths
    assert b"usr/lib64/ld.so" in paths
    assert b"bin/sh" not in paths


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"!<arch>\n",
        b"!<arch>\n" + b"x" * 60,
        ar([("debian-binary", b"2.0\n")]),
        ar([("debian-binary", b"2.0\n"), ("control.tar.xz", b"no"), ("data.tar.xz", b"no")]),
        ar([("debian-binary", b"2.0\n"), ("control.tar", tar([])), ("data.tar", tar([]))]),
        ar([("debian-binary", b"2.0\n"), ("control.tar.lz", b""), ("data.tar.lz", b"")]),
        Package("x", entries=(member("./f", b"y" * 5000),)).deb()[:-200],
    ],
)
def test_damaged_packages(tree: RootTree, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "bad.deb"
    path.write_bytes(data)
    with pytest.raises(InvalidImageError, match=r"bad\.deb"):
        unpack_package(tree, str(path))


def test_control(tmp_path: Path) -> None:
    path = tmp_path / "x.deb"
    sums = b"d41d8cd98f00b204e9800998ecf8427e  usr/x\nshort  y\n"
    path.write_bytes(Package("x", "1:2", fields=(("Essential", "yes"),), md5sums=sums).deb())
    with Deb(str(path)) as deb:
        control = deb.control()
    assert (control.field("package"), control.field("Version"), control.field("None")) == ("x", "1:2", "")
    assert control.md5sums == ((b"usr/x", b"d41d8cd98f00b204e9800998ecf8427e"),)


def test_removed_first_link_hands_on_its_content(tree: RootTree) -> None:
    tree.write(b"a", b"content")
    entry = tree.get(b"a")
    assert entry is not None
    for name in (b"b", b"c"):
        tree.add(type(entry)(name, stat.S_IFREG | 0o644, hardlink=b"a"))
    tree.remove(b"a")
    tree.write(b"b2", b"")
    entries = {item.path: item for item in tree.entries()}
    assert entries[b"b"].data == b"content"
    assert entries[b"c"].hardlink == b"b"
    tree.write(b"b", b"new")
    assert tree.read(b"c") == b"content"


def test_link_before_its_target_in_order(tree: RootTree) -> None:
    tree.write(b"z", b"content")
    tree.add(type(next(tree.entries()))(b"a", stat.S_IFREG | 0o644, hardlink=b"z"))
    first, second = tree.entries()
    assert (first.path, first.data, first.hardlink) == (b"a", b"content", None)
    assert (second.path, second.hardlink) == (b"z", b"a")


@pytest.mark.parametrize(
    ("pattern", "matches", "others"),
    [
        (b"a/*", [b"a/b", b"a/.b"], [b"a", b"a/b/c"]),
        (b"a/**", [b"a/b", b"a/b/c"], [b"a"]),
        (b"**/x", [b"x", b"a/x", b"a/b/x"], [b"ax", b"a/bx"]),
        (b"a?c.", [b"abc."], [b"a/c.", b"abcd"]),
    ],
)
def test_patterns(pattern: bytes, matches: list[bytes], others: list[bytes]) -> None:
    compiled = compile_pattern(pattern)
    assert all(compiled.fullmatch(path) for path in matches)
    assert not any(compiled.fullmatch(path) for path in others)


def make_wheel(folder: Path, members: list[tuple[str, bytes, int]]) -> str:
    path = folder / "x-1-py3-none-any.whl"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data, mode in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, data)
    path.write_bytes(out.getvalue())
    return str(path)


WHEEL = Wheel("x", "1", b"opt/x", b"pkg", "")


def test_wheel(tree: RootTree, tmp_path: Path) -> None:
    path = make_wheel(
        tmp_path,
        [
            ("pkg/bin/tool", b"\x7fELF" + b"x" * 100_000, 0),
            ("pkg/bin/data", b"text", 0),
            ("pkg/run", b"#!/bin/sh", 0o100755),
            ("pkg/plain", b"#!/bin/sh", 0o100644),
            ("other/file", b"", 0),
        ],
    )
    unpack_wheel(tree, WHEEL, path)
    modes = {entry.path: entry.permissions for entry in tree.entries() if entry.is_file}
    assert modes == {
        b"opt/x/bin/data": 0o644,
        b"opt/x/bin/tool": 0o755,
        b"opt/x/plain": 0o644,
        b"opt/x/run": 0o755,
    }


@pytest.mark.parametrize(
    ("name", "mode"),
    [("../out", 0), ("/pkg/x", 0), ("pkg/../../x", 0), ("pkg\\..\\x", 0), ("pkg/link", stat.S_IFLNK | 0o777)],
)
def test_hostile_wheels(tree: RootTree, tmp_path: Path, name: str, mode: int) -> None:
    with pytest.raises(InvalidImageError):
        unpack_wheel(tree, WHEEL, make_wheel(tmp_path, [("pkg/ok", b"", 0), (name, b"/etc", mode)]))


def test_wheel_without_the_folder(tree: RootTree, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder 'pkg'"):
        unpack_wheel(tree, WHEEL, make_wheel(tmp_path, [("other", b"", 0)]))


def test_damaged_wheel(tree: RootTree, tmp_path: Path) -> None:
    path = make_wheel(tmp_path, [("pkg/file", b"abc" * 1000, 0)])
    data = bytearray(Path(path).read_bytes())
    data[40] ^= 0xFF
    Path(path).write_bytes(data)
    with pytest.raises(InvalidImageError, match="is damaged"):
        unpack_wheel(tree, WHEEL, path)


def test_platforms() -> None:
    assert "manylinux_2_17_x86_64" in platforms("amd64")
    assert "manylinux2014_aarch64" in platforms("arm64")
