"""Unpacking layers: what each kind of entry does, and that no archive reaches outside its directory."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from castoff.errors import InvalidImageError
from castoff.fs.entry import FileEntry
from castoff.fs.ownership import DirectOwnership
from castoff.fs.rooted import remove_tree
from castoff.fs.union import DirectoryLayer, EntryLayer, UnionTree
from castoff.layer.apply import ApplyInfo, apply_layer
from castoff.layer.tarreader import TarLimits

UID, GID = os.getuid(), os.getgid()
OWNERSHIP = DirectOwnership()

Member = tuple[tarfile.TarInfo, bytes]


def member(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **fields: Any) -> Member:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = len(data)
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    info.uid, info.gid = UID, GID
    info.mtime = 1_000_000
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def folder(name: str, **fields: Any) -> Member:
    return member(name, tarfile.DIRTYPE, **fields)


def file(name: str, data: bytes = b"new", **fields: Any) -> Member:
    return member(name, data=data, **fields)


def symlink(name: str, target: str) -> Member:
    return member(name, tarfile.SYMTYPE, linkname=target)


def hardlink(name: str, target: str) -> Member:
    return member(name, tarfile.LNKTYPE, linkname=target)


def tar(members: Iterable[Member]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def below(**files: bytes | None) -> UnionTree:
    """Return a lower tree: keyword names with __ for a slash; None is a directory, bytes beginning with -> a link."""
    entries: list[FileEntry] = []
    for name, data in files.items():
        path = name.replace("__", "/").encode()
        if data is None:
            entries.append(FileEntry(path, stat.S_IFDIR | 0o750, UID, GID, mtime_ns=5))
        elif data.startswith(b"->"):
            entries.append(FileEntry(path, stat.S_IFLNK | 0o777, UID, GID, link=data[2:]))
        else:
            entries.append(FileEntry(path, stat.S_IFREG | 0o640, UID, GID, len(data), mtime_ns=7, data=data))
    return UnionTree([EntryLayer(entries)])


class Unpacked:
    def __init__(self, info: ApplyInfo, upper: str, lower: UnionTree) -> None:
        self.info = info
        self.upper = upper
        self.tree = lower.with_top(DirectoryLayer(upper, OWNERSHIP, True))

    def seen(self) -> dict[str, bytes | None]:
        """Return the merged tree: content of files, b"->target" of links, None for directories."""
        found: dict[str, bytes | None] = {}
        for entry in self.tree.walk():
            if entry.is_file:
                with self.tree.open_(entry) as content:
                    found[entry.path.decode()] = content.read()
            elif entry.path:
                found[entry.path.decode()] = b"->" + entry.link if entry.is_symlink else None
        return found


@pytest.fixture
def upper(tmp_path: Path) -> str:
    path = tmp_path / "outer" / "upper"
    path.mkdir(parents=True, mode=0o755)
    return str(path)


def unpack(upper: str, members: Iterable[Member], lower: UnionTree | None = None) -> Unpacked:
    lower = lower or UnionTree()
    return Unpacked(apply_layer(io.BytesIO(tar(members)), upper, lower, OWNERSHIP, True), upper, lower)


MERGES: dict[str, tuple[UnionTree, list[Member], dict[str, bytes | None]]] = {
    "a file in a folder of the lower tree": (
        below(d=None, d__old=b"1"), [file("d/x")], {"d": None, "d/old": b"1", "d/x": b"new"}),
    "missing parents": (UnionTree(), [file("a/b/c")], {"a": None, "a/b": None, "a/b/c": b"new"}),
    "./ and / in front of names": (
        UnionTree(), [folder("./"), file("./a"), file("/b"), file(".//c")], {"a": b"new", "b": b"new", "c": b"new"}),
    "whiteout": (below(d=None, d__x=b"1", d__y=b"2"), [file("d/.wh.x", b"")], {"d": None, "d/y": b"2"}),
    "whiteout of a folder": (below(d=None, d__x=b"1"), [file(".wh.d", b"")], {}),
    "whiteout of nothing": (below(a=b"1"), [file(".wh.zzz", b"")], {"a": b"1"}),
    "whiteout before the same layer's file": (below(x=b"old"), [file(".wh.x", b""), file("x")], {"x": b"new"}),
    "whiteout after the same layer's file": (below(x=b"old"), [file("x"), file(".wh.x", b"")], {"x": b"new"}),
    "whiteout after the same layer's folder": (
        below(d=None, d__old=b"1"), [folder("d"), file("d/x"), file(".wh.d", b"")], {"d": None, "d/x": b"new"}),
    "whiteout, then a folder": (
        below(d=None, d__old=b"1"), [file(".wh.d", b""), folder("d"), file("d/x")], {"d": None, "d/x": b"new"}),
    "whiteout, then a file in the folder": (
        below(d=None, d__old=b"1"), [file(".wh.d", b""), file("d/x")], {"d": None, "d/x": b"new"}),
    "opaque before": (
        below(d=None, d__old=b"1"), [folder("d"), file("d/.wh..wh..opq", b""), file("d/x")],
        {"d": None, "d/x": b"new"}),
    "opaque after": (
        below(d=None, d__old=b"1"), [folder("d"), file("d/x"), file("d/.wh..wh..opq", b"")],
        {"d": None, "d/x": b"new"}),
    "opaque after a deep entry": (
        below(d=None, d__e=None, d__e__old=b"1"), [file("d/e/x"), file("d/.wh..wh..opq", b"")],
        {"d": None, "d/e": None, "d/e/x": b"new"}),
    "opaque without an entry of the folder": (
        below(d=None, d__old=b"1"), [file("d/.wh..wh..opq", b"")], {"d": None}),
    "opaque root": (
        below(a=b"1", d=None, d__old=b"1"), [file("d/x"), file(".wh..wh..opq", b""), file("n")],
        {"d": None, "d/x": b"new", "n": b"new"}),
    "opaque root, then a folder of the same name": (
        below(d=None, d__old=b"1"), [file(".wh..wh..opq", b""), folder("d"), file("d/x")],
        {"d": None, "d/x": b"new"}),
    "aufs' own files": (below(a=b"1"), [file(".wh..wh.aufs", b""), folder(".wh..wh.plnk")], {"a": b"1"}),
    "a file over a folder": (below(d=None, d__x=b"1"), [file("d")], {"d": b"new"}),
    "a folder over a file": (below(x=b"1"), [folder("x"), file("x/y")], {"x": None, "x/y": b"new"}),
    "a folder over a link to a folder": (
        below(real=None, real__x=b"1", ln=b"->real"), [folder("ln"), file("ln/y")],
        {"ln": None, "ln/y": b"new", "real": None, "real/x": b"1"}),
    "a file below a link of the lower tree": (
        below(usr=None, usr__lib=None, lib=b"->usr/lib"), [file("lib/x")],
        {"lib": b"->usr/lib", "usr": None, "usr/lib": None, "usr/lib/x": b"new"}),
    "a file below an absolute link of the lower tree": (
        below(run=None, var=None, var__run=b"->/run"), [file("var/run/x")],
        {"run": None, "run/x": b"new", "var": None, "var/run": b"->/run"}),
    "a whiteout below a link": (
        below(real=None, real__x=b"1", ln=b"->real"), [file("ln/.wh.x", b"")], {"ln": b"->real", "real": None}),
    "duplicates: the last one counts": (UnionTree(), [file("a", b"1"), file("a", b"2")], {"a": b"2"}),
    "a file, then a link in its place": (UnionTree(), [file("a", b"1"), symlink("a", "b")], {"a": b"->b"}),
    "a link, then a folder in its place": (
        UnionTree(), [folder("real"), symlink("a", "real"), folder("a"), file("a/x")],
        {"a": None, "a/x": b"new", "real": None}),
    "a folder, then a link in its place": (
        UnionTree(), [folder("a"), file("a/x"), folder("b"), symlink("a", "b"), file("a/y")],
        {"a": b"->b", "b": None, "b/y": b"new"}),
    "hard links": (UnionTree(), [file("a", b"1"), hardlink("b", "a")], {"a": b"1", "b": b"1"}),
    "hard link with ./": (UnionTree(), [file("./a", b"1"), hardlink("./b", "./a")], {"a": b"1", "b": b"1"}),
    "hard link to a file of the lower tree": (
        below(d=None, d__x=b"1"), [hardlink("y", "d/x")], {"d": None, "d/x": b"1", "y": b"1"}),
    "hard link over what is there": (
        below(x=b"1"), [file("y", b"2"), hardlink("y", "x")], {"x": b"1", "y": b"1"}),
    "hard link to itself": (UnionTree(), [file("a", b"1"), hardlink("a", "a")], {"a": b"1"}),
    "hard link to a symbolic link": (
        UnionTree(), [symlink("a", "/etc/passwd"), hardlink("b", "a")], {"a": b"->/etc/passwd", "b": b"->/etc/passwd"}),
    "a character device 0:0 deletes": (
        below(x=b"1"), [member("x", tarfile.CHRTYPE, devmajor=0, devminor=0)], {}),
}  # fmt: skip


@pytest.mark.parametrize("case", MERGES)
def test_a_layer_merges(upper: str, case: str) -> None:
    lower, members, wanted = MERGES[case]
    assert unpack(upper, members, lower).seen() == wanted


def test_metadata_are_kept(upper: str) -> None:
    unpacked = unpack(
        upper,
        [
            folder("d", mode=0o2700, mtime=11),
            file("d/f", mode=0o4751, mtime=12, pax_headers={"SCHILY.xattr.user.key": "value"}),
            symlink("d/l", "gone"),
            member("d/p", tarfile.FIFOTYPE, mode=0o620),
        ],
    )
    tree = unpacked.tree
    rows = [(entry.path, entry.mode, entry.mtime_ns, entry.xattrs) for entry in tree.walk(b"d")]
    assert rows == [
        (b"d", stat.S_IFDIR | 0o2700, 11_000_000_000, ()),
        (b"d/f", stat.S_IFREG | 0o4751, 12_000_000_000, ((b"user.key", b"value"),)),
        (b"d/l", stat.S_IFLNK | 0o777, 1_000_000_000_000_000, ()),
        (b"d/p", stat.S_IFIFO | 0o620, 1_000_000_000_000_000, ()),
    ]
    assert unpacked.info.entries == 4


def test_parents_brought_up_have_the_lower_trees_metadata(upper: str) -> None:
    tree = unpack(upper, [file("d/x")], below(d=None)).tree
    found = tree.lstat(b"d")
    assert found is not None
    assert (found.permissions, found.mtime_ns) == (0o750, 5)


def test_a_hard_link_to_the_lower_tree_shares_the_inode(upper: str) -> None:
    unpack(upper, [hardlink("y", "d/x")], below(d=None, d__x=b"1"))
    assert os.stat(upper + "/y").st_ino == os.stat(upper + "/d/x").st_ino
    assert stat.S_IMODE(os.stat(upper + "/y").st_mode) == 0o640


def test_private_attributes_are_never_taken_from_an_archive(upper: str) -> None:
    headers = {f"SCHILY.xattr.{name}": "y" for name in ("user.overlay.opaque", "user.castoff.uid", "trusted.overlay.x")}
    unpacked = unpack(upper, [folder("d", pax_headers=headers)], below(d=None, d__x=b"1"))
    assert os.listxattr(upper + "/d") == []
    assert unpacked.seen() == {"d": None, "d/x": b"1"}


def test_the_digest_covers_everything_to_the_end_of_the_stream(upper: str) -> None:
    data = tar([file("a")]) + b"trailing"
    info = apply_layer(io.BytesIO(data), upper, UnionTree(), OWNERSHIP, True)
    assert (info.diff_id.hex, info.size) == (hashlib.sha256(data).hexdigest(), len(data))


HOSTILE: dict[str, tuple[list[Member], str]] = {
    "..": ([file("../evil")], "'..'"),
    ".. inside": ([file("a/../../evil")], "'..'"),
    "whiteout of ..": ([file(".wh...", b"")], "names nothing"),
    "whiteout of nothing": ([file("d/.wh.", b"")], "names nothing"),
    "hard link out": ([hardlink("a", "../../evil")], "'..'"),
    "hard link to nothing": ([hardlink("a", "b")], "does not exist"),
    "hard link to a host file": ([hardlink("a", "/etc/passwd")], "does not exist"),
    "hard link to a folder": ([folder("d"), hardlink("a", "d")], "directory"),
    "hard link through a link to the host": (
        [symlink("l", "/etc"), hardlink("a", "l/hostname")], "does not exist"),
    "a file below a file": ([file("a"), file("a/b")], "not a directory"),
    "a ring of links": ([symlink("a", "b"), symlink("b", "a"), file("a/x")], "symbolic links"),
    "the root as a file": ([file(".")], "root"),
    "the root as a link": ([symlink(".", "/etc")], "root"),
    "an empty link": ([symlink("a", "")], "target"),
    "a name that is too long": ([file("n" * 300)], "path"),
    "a time that no file can have": ([file("a", mtime=1 << 70)], "time"),
    "a time before all time": ([file("a", pax_headers={"mtime": "-99999999999999999999"})], "time"),
    "a path that is too long": ([file("/".join(["d" * 200] * 30))], "more than 4096 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_layer_is_refused(upper: str, case: str) -> None:
    members, words = HOSTILE[case]
    with pytest.raises(InvalidImageError, match=words):
        unpack(upper, members)
    assert sorted(os.listdir(os.path.dirname(upper))) == ["upper"]


CONFINED: dict[str, tuple[list[Member], dict[str, bytes | None]]] = {
    "a file through a link to the host": (
        [symlink("l", "/tmp"), file("l/evil-castoff")], {"l": b"->/tmp", "tmp": None, "tmp/evil-castoff": b"new"}),
    "a file through a link that climbs": (
        [symlink("l", "../../../.."), file("l/evil")], {"l": b"->../../../..", "evil": b"new"}),
    "a file in place of a link": ([symlink("l", "/tmp/evil-castoff"), file("l")], {"l": b"new"}),
    "a folder in place of a link": ([symlink("l", "/tmp"), folder("l", mode=0o700)], {"l": None}),
    "a chain of links": (
        [symlink("a", "b"), symlink("b", "/c"), file("a/x")], {"a": b"->b", "b": b"->/c", "c": None, "c/x": b"new"}),
    "a whiteout through a link": ([symlink("l", "/etc"), file("l/.wh.passwd", b"")], {"l": b"->/etc", "etc": None}),
    "an opaque mark through a link": (
        [symlink("l", "/etc"), file("l/.wh..wh..opq", b"")], {"l": b"->/etc", "etc": None}),
    "a hard link to a link, then a file through it": (
        [symlink("a", "/tmp"), hardlink("b", "a"), file("b/evil-castoff")],
        {"a": b"->/tmp", "b": b"->/tmp", "tmp": None, "tmp/evil-castoff": b"new"}),
}  # fmt: skip


@pytest.mark.parametrize("case", CONFINED)
def test_links_lead_nowhere_but_into_the_image(upper: str, case: str) -> None:
    members, wanted = CONFINED[case]
    before = os.lstat("/tmp").st_mode
    assert unpack(upper, members).seen() == wanted
    assert sorted(os.listdir(os.path.dirname(upper))) == ["upper"]
    assert not os.path.lexists("/tmp/evil-castoff")
    assert os.lstat("/tmp").st_mode == before


@pytest.mark.parametrize(
    ("limits", "words"), [(TarLimits(entries=1), "more than 1 entries"), (TarLimits(size=5), "more than 5 bytes")]
)
def test_limits(upper: str, limits: TarLimits, words: str) -> None:
    data = tar([file("a"), file("b")])
    with pytest.raises(InvalidImageError, match=words):
        apply_layer(io.BytesIO(data), upper, UnionTree(), OWNERSHIP, True, limits)


def test_an_error_of_the_stream_reaches_the_caller(upper: str) -> None:
    class Broken:
        def read(self, size: int, /) -> bytes:
            raise InvalidImageError("the stream broke")

    with pytest.raises(InvalidImageError, match="the stream broke"):
        apply_layer(Broken(), upper, UnionTree(), OWNERSHIP, True)


def test_a_truncated_layer_is_refused(upper: str) -> None:
    data = tar([file("a", b"x" * 2000)])[:1500]
    with pytest.raises(InvalidImageError, match="cut short"):
        apply_layer(io.BytesIO(data), upper, UnionTree(), OWNERSHIP, True)


def test_a_device_is_made_or_noted(upper: str) -> None:
    unpacked = unpack(upper, [member("null", tarfile.CHRTYPE, devmajor=1, devminor=3)])
    entry = unpacked.tree.lstat(b"null")
    if entry is None:
        assert "without privileges" in unpacked.info.notes[0]
    else:
        assert entry.rdev == os.makedev(1, 3)


def test_deep_trees_need_no_recursion(upper: str) -> None:
    deep = "d/" * 1500
    members = [file(deep + "f"), file("x"), hardlink(deep + "g", deep + "f"), hardlink("y", deep + "f")]
    try:
        unpacked = unpack(upper, members)
        assert unpacked.tree.lstat(deep.encode() + b"g") is not None
        assert os.stat(upper + "/y").st_nlink == 3
        assert len(unpack(upper, [file("d")]).tree.listdir(b"")) == 3
    finally:
        if os.path.isdir(upper + "/d"):
            remove_tree(os.fsencode(upper + "/d"))
