"""The merged view of layers: merging, hiding, links, and never leaving the layers' folders."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from castoff.errors import ContextError
from castoff.fs.entry import FileEntry
from castoff.fs.ownership import DirectOwnership
from castoff.fs.rooted import remove_tree
from castoff.fs.union import DirectoryLayer, EntryLayer, UnionTree
from castoff.fs.xattrs import portable_value, select

DIR, REG, LNK = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o644, stat.S_IFLNK | 0o777


def entries(**files: bytes | None) -> list[FileEntry]:
    """Return entries by name, __ for a slash; None is a directory, bytes beginning with -> a symbolic link."""
    made = []
    for name, data in files.items():
        path = name.replace("__", "/").encode()
        if data is None:
            made.append(FileEntry(path, DIR))
        elif data.startswith(b"->"):
            made.append(FileEntry(path, LNK, link=data[2:]))
        else:
            made.append(FileEntry(path, REG, size=len(data), data=data))
    return made


def on_disk(path: Path) -> DirectoryLayer:
    return DirectoryLayer(str(path), DirectOwnership(), True)


def paths(tree: UnionTree, top: bytes = b"") -> list[bytes]:
    return [entry.path for entry in tree.walk(top)]


def content(tree: UnionTree, path: bytes) -> bytes:
    with tree.open_(path) as file:
        return file.read()


def test_an_empty_tree_has_a_root() -> None:
    tree = UnionTree()
    assert paths(tree) == [b""]
    assert tree.listdir(b"") == []
    assert tree.is_dir(b"/")
    assert tree.lstat(b"x") is None


def test_layers_merge_and_the_upper_one_wins() -> None:
    tree = UnionTree([EntryLayer(entries(d=None, d__x=b"new")), EntryLayer(entries(d=None, d__x=b"old", d__y=b"2"))])
    assert paths(tree) == [b"", b"d", b"d/x", b"d/y"]
    assert content(tree, b"d/x") == b"new"
    assert content(tree, b"/d/y") == b"2"


def test_walks_are_in_order_of_bytes_with_parents_first() -> None:
    tree = UnionTree([EntryLayer([*entries(a=None, a__z=b""), FileEntry(b"a.b", REG), FileEntry(b"\xff", REG)])])
    assert paths(tree) == [b"", b"a", b"a/z", b"a.b", b"\xff"]
    assert paths(tree, b"a") == [b"a", b"a/z"]
    assert paths(tree, b"a/z") == [b"a/z"]
    assert paths(tree, b"none") == []


@pytest.mark.parametrize(
    ("top", "wanted"),
    [
        (EntryLayer([], deletions=[b"d"]), [b""]),
        (EntryLayer([], deletions=[b"d/x"]), [b"", b"d", b"d/y"]),
        (EntryLayer([], opaques=[b"d"]), [b"", b"d"]),
        (EntryLayer(entries(d__n=b"")), [b"", b"d", b"d/n", b"d/x", b"d/y"]),
        (EntryLayer(entries(d=b"file")), [b"", b"d"]),
        (EntryLayer(entries(d=None, d__n=b""), deletions=[b"d"]), [b"", b"d", b"d/n"]),
    ],
)
def test_what_a_layer_hides(top: EntryLayer, wanted: list[bytes]) -> None:
    lower = EntryLayer(entries(d=None, d__x=b"1", d__y=b"2"))
    tree = UnionTree([top, lower])
    assert paths(tree) == wanted
    assert [path for path in (b"", b"d", b"d/n", b"d/x", b"d/y") if UnionTree([top, lower]).lstat(path)] == wanted


def test_directories_that_are_only_implied_have_the_lower_ones_metadata() -> None:
    lower = EntryLayer([FileEntry(b"d", stat.S_IFDIR | 0o700, 5, 6)])
    tree = UnionTree([EntryLayer(entries(d__e__f=b"1")), lower])
    assert tree.lstat(b"d") == FileEntry(b"d", stat.S_IFDIR | 0o700, 5, 6)
    assert tree.lstat(b"d/e") == FileEntry(b"d/e", DIR)
    assert [entry.mode for entry in tree.walk(b"d")] == [stat.S_IFDIR | 0o700, DIR, REG]


def test_hard_links_in_memory_share_content_and_identity() -> None:
    tree = UnionTree([EntryLayer([*entries(a=b"1"), FileEntry(b"b", REG, hardlink=b"a")])])
    one, two = tree.lstat(b"a"), tree.lstat(b"b")
    assert one is not None
    assert two is not None
    assert one.inode == two.inode is not None
    assert (content(tree, b"b"), two.hardlink, two.size) == (b"1", None, 1)


def test_bad_entries_are_refused() -> None:
    with pytest.raises(ContextError, match="hard link"):
        EntryLayer([FileEntry(b"b", REG, hardlink=b"a")])
    with pytest.raises(ContextError, match="not a directory"):
        EntryLayer(entries(a=b"1", a__b=b"2"))


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        (b"", b""),
        (b"/usr/lib/", b"usr/lib"),
        (b"lib/x", b"usr/lib/x"),
        (b"lib/none/deep", b"usr/lib/none/deep"),
        (b"abs/x", b"usr/lib/x"),
        (b"climb", b"etc"),
        (b"up/usr", b"usr"),
        (b"usr/../lib", b"usr/lib"),
        (b"../../usr", b"usr"),
        (b"./usr/./lib", b"usr/lib"),
        (b"dangling/x", b"gone/x"),
        (b"chain", b"usr/lib"),
        (b"usr/file/x", b"usr/file/x"),
    ],
)
def test_links_are_followed_inside_the_tree(path: bytes, wanted: bytes) -> None:
    tree = UnionTree(
        [
            EntryLayer(
                entries(
                    usr=None, usr__lib=None, usr__file=b"", lib=b"->usr/lib", abs=b"->/usr/lib", up=b"->..",
                    climb=b"->../../../etc", dangling=b"->gone", chain=b"->abs",
                )
            )
        ]
    )  # fmt: skip
    assert tree.resolve(path) == wanted


def test_the_last_link_can_stay() -> None:
    tree = UnionTree([EntryLayer(entries(lib=b"->usr/lib", l2=b"->lib"))])
    assert tree.resolve(b"l2", follow_last=False) == b"l2"
    assert tree.resolve(b"l2/x", follow_last=False) == b"usr/lib/x"


def test_a_ring_of_links_is_an_error() -> None:
    tree = UnionTree([EntryLayer(entries(a=b"->b", b=b"->a"))])
    with pytest.raises(ContextError, match="40"):
        tree.resolve(b"a/x")


def test_paths_with_dots_are_refused_where_no_link_is_followed() -> None:
    with pytest.raises(ContextError, match=r"'\.\.'"):
        UnionTree().lstat(b"a/../b")


def test_only_directories_have_names_and_only_files_have_content() -> None:
    tree = UnionTree([EntryLayer([*entries(f=b"1", d=None, ln=b"->f"), FileEntry(b"p", stat.S_IFIFO | 0o644)])])
    for path in (b"f", b"ln", b"none"):
        with pytest.raises(ContextError, match="not a directory"):
            tree.listdir(path)
    for path in (b"d", b"ln", b"p"):
        with pytest.raises(ContextError, match="not a regular file"):
            tree.open_(path)
    with pytest.raises(ContextError, match="does not exist"):
        tree.open_(b"none")


def test_a_directory_layer_reads_all_kinds_of_files(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"data")
    os.chmod(tmp_path / "f", 0o4755)
    os.utime(tmp_path / "f", ns=(1, 1_234_567_891))
    os.setxattr(tmp_path / "f", "user.key", b"value")
    os.setxattr(tmp_path / "f", "user.overlay.origin", b"y")
    os.setxattr(tmp_path / "f", "user.castoff.uid", b"0")
    os.link(tmp_path / "f", tmp_path / "g")
    os.symlink(b"t\xff", tmp_path / "s")
    os.mkfifo(tmp_path / "p")
    tree = UnionTree([on_disk(tmp_path)])
    f, g, p, s = (tree.lstat(name) for name in (b"f", b"g", b"p", b"s"))
    assert f is not None and g is not None and p is not None and s is not None
    assert (f.mode, f.size, f.mtime_ns) == (stat.S_IFREG | 0o4755, 4, 1_234_567_891)
    assert (f.uid, f.gid, f.source) == (os.getuid(), os.getgid(), os.fsencode(tmp_path / "f"))
    assert f.xattrs == ((b"user.key", b"value"),)
    assert f.inode == g.inode is not None
    assert (p.is_file, p.source, p.inode, s.link) == (False, None, None, b"t\xff")
    bare = tree.lstat(b"f", xattrs=False)
    assert bare is not None
    assert bare.xattrs == ()


def test_whiteouts_and_opaque_directories_on_disk(tmp_path: Path) -> None:
    upper, lower = tmp_path / "upper", tmp_path / "lower"
    for folder in (upper, lower):
        (folder / "d").mkdir(parents=True)
        (folder / "o").mkdir()
    for name in ("d/x", "d/y", "o/old"):
        (lower / name).write_bytes(b"1")
    os.mknod(upper / "d/x", stat.S_IFCHR, 0)
    os.setxattr(upper / "o", "user.overlay.opaque", b"y")
    tree = UnionTree([on_disk(upper), on_disk(lower)])
    assert paths(tree) == [b"", b"d", b"d/y", b"o"]
    assert tree.lstat(b"d/x") is None
    assert tree.lstat(b"o/old") is None
    assert tree.listdir(b"d") == [b"y"]
    trusted = UnionTree([DirectoryLayer(str(upper), DirectOwnership(), False), on_disk(lower)])
    assert trusted.listdir(b"o") == [b"old"]


def test_links_in_a_layers_folder_never_lead_out_of_it(tmp_path: Path) -> None:
    outside, layer = tmp_path / "outside", tmp_path / "layer"
    outside.mkdir()
    layer.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (layer / "folder").symlink_to(outside)
    (layer / "file").symlink_to(outside / "secret")
    tree = UnionTree([on_disk(layer)])
    assert paths(tree) == [b"", b"file", b"folder"]
    assert tree.lstat(b"folder/secret") is None
    assert not tree.is_dir(b"folder")
    assert tree.resolve(b"folder/secret") == os.fsencode(outside)[1:] + b"/secret"
    for path in (b"file", b"folder/secret"):
        with pytest.raises(ContextError):
            tree.open_(path)
    hostile = FileEntry(b"file", REG, source=os.fsencode(layer / "file"))
    with pytest.raises(ContextError, match="can't read"):
        tree.open_(hostile)


def test_file_capabilities_are_given_in_revision_2() -> None:
    three = bytes.fromhex("01000003" + "00040000" * 4) + b"\xe8\x03\0\0"
    two = bytes.fromhex("01000002" + "00040000" * 4)
    assert portable_value(b"security.capability", three) == two
    assert portable_value(b"security.capability", two) == two
    assert portable_value(b"user.x", three) == three
    pairs = [(b"user.b", b"1"), (b"security.selinux", b"x"), (b"trusted.t", b"x"), (b"security.capability", three)]
    assert select(pairs) == ((b"security.capability", two), (b"user.b", b"1"))


def test_deep_trees_need_no_recursion(tmp_path: Path) -> None:
    deep = b"/".join([b"d"] * 1500)
    for depth in range(1, 1501):
        os.mkdir(os.fsencode(tmp_path) + b"/" + b"/".join([b"d"] * depth))
    try:
        tree = UnionTree([on_disk(tmp_path), EntryLayer([FileEntry(deep + b"/f", REG)])])
        assert tree.lstat(deep + b"/f") == FileEntry(deep + b"/f", REG)
        assert len(paths(UnionTree(tree.layers))) == 1502
        assert tree.resolve(deep + b"/f") == deep + b"/f"
    finally:
        remove_tree(os.fsencode(tmp_path / "d"))  # pytest itself would remove it with recursion
