"""Round trips of trees: through tar streams, through layers, through snapshot directories."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from castoff.fs.changes import Added, Change, diff, iter_changes
from castoff.fs.entry import FileEntry
from castoff.fs.ownership import DirectOwnership
from castoff.fs.treelayer import join
from castoff.fs.union import DirectoryLayer, EntryLayer, UnionTree
from castoff.layer.apply import apply_layer
from castoff.layer.compression import Compression, open_decompressed
from castoff.layer.create import LayerOptions, write_layer
from castoff.layer.tarreader import TarReader
from castoff.layer.tarwriter import TarStream
from castoff.snapshot.materialise import write_changes

SECOND = 1_000_000_000
UID, GID = os.getuid(), os.getgid()
OWNERSHIP = DirectOwnership()

names = st.sampled_from([b"a", b"b", b"c", b"a.b", b"\xff\xfe", "größe".encode(), b"n" * 120, b"sp ace\n"])
times = st.integers(0, 2_000_000_000).map(lambda seconds: seconds * SECOND)
xattrs = st.sampled_from([(), (), (), ((b"user.one", b"1"),), ((b"user.bin", b"\x00=\n"), (b"user.one", b"x" * 200))])


@dataclass(frozen=True)
class Leaf:
    entry: FileEntry
    group: int = 0


@dataclass(frozen=True)
class Folder:
    entry: FileEntry
    children: dict[bytes, Leaf | Folder]


def leaves() -> st.SearchStrategy[Leaf]:
    files = st.builds(
        lambda data, mode, mtime, attributes, group: Leaf(
            FileEntry(b"", stat.S_IFREG | mode, UID, GID, len(data), mtime_ns=mtime, data=data, xattrs=attributes),
            group,
        ),
        st.binary(max_size=1500),
        st.sampled_from([0o644, 0o755, 0o4755, 0o600, 0o400]),
        times,
        xattrs,
        st.sampled_from([0, 0, 0, 1, 2]),
    )
    links = st.builds(
        lambda target, mtime: Leaf(FileEntry(b"", stat.S_IFLNK | 0o777, UID, GID, mtime_ns=mtime, link=target)),
        st.sampled_from([b"a", b"../b", b"/a/b", b"missing", b"t" * 150, b"\xffx"]),
        times,
    )
    fifos = st.builds(lambda mtime: Leaf(FileEntry(b"", stat.S_IFIFO | 0o644, UID, GID, mtime_ns=mtime)), times)
    return st.one_of(files, files, files, links, fifos)


def folders(children: st.SearchStrategy[Leaf | Folder]) -> st.SearchStrategy[Folder]:
    return st.builds(
        lambda mode, attributes, below: Folder(
            FileEntry(b"", stat.S_IFDIR | mode, UID, GID, mtime_ns=SECOND, xattrs=attributes), below
        ),
        st.sampled_from([0o755, 0o700, 0o1777, 0o2755]),
        xattrs,
        st.dictionaries(names, children, max_size=4),
    )


nodes: st.SearchStrategy[Leaf | Folder] = st.recursive(leaves(), folders, max_leaves=8)
trees = st.dictionaries(names, nodes, max_size=4)


def flatten(children: dict[bytes, Leaf | Folder], path: bytes = b"") -> Iterator[tuple[FileEntry, int]]:
    for name in sorted(children):
        node = children[name]
        below = join(path, name)
        yield node.entry.with_path(below), node.group if isinstance(node, Leaf) else 0
        if isinstance(node, Folder):
            yield from flatten(node.children, below)


def stream_entries(children: dict[bytes, Leaf | Folder]) -> list[FileEntry]:
    """Return the entries of a tree in stream order; files of one group are hard links of the first."""
    first: dict[int, bytes] = {}
    entries: list[FileEntry] = []
    for entry, group in flatten(children):
        known = first.setdefault(group, entry.path) if group and entry.is_file else entry.path
        if known == entry.path:
            entries.append(entry)
        else:
            entries.append(FileEntry(entry.path, entry.mode, UID, GID, hardlink=known))
    return entries


def tree_of(children: dict[bytes, Leaf | Folder]) -> UnionTree:
    return UnionTree([EntryLayer(stream_entries(children))])


def content(tree: UnionTree, entry: FileEntry) -> bytes:
    with tree.open_(entry) as file:
        return file.read()


Row = tuple[bytes, int, int, int, bytes, bytes, int, tuple[tuple[bytes, bytes], ...]]


def rows(tree: UnionTree) -> list[Row]:
    """Return all that a layer keeps of a tree; times of directories aside, as a change below one is none of it."""
    return [
        (
            entry.path,
            entry.mode,
            entry.uid,
            entry.gid,
            content(tree, entry) if entry.is_file else b"",
            entry.link,
            0 if entry.is_dir else entry.mtime_ns,
            entry.xattrs,
        )
        for entry in tree.walk()
        if entry.path
    ]


def links(tree: UnionTree) -> set[frozenset[bytes]]:
    """Return which paths are one file."""
    groups: dict[tuple[int, int], set[bytes]] = {}
    for entry in tree.walk():
        if entry.inode is not None:
            groups.setdefault(entry.inode, set()).add(entry.path)
    return {frozenset(group) for group in groups.values() if len(group) > 1}


def tar_of(changes: list[Change]) -> bytes:
    return b"".join(bytes(chunk) for chunk in TarStream().chunks(changes))


@given(trees)
@settings(max_examples=120)
def test_a_tar_stream_gives_back_the_entries_that_made_it(tree: dict[bytes, Leaf | Folder]) -> None:
    entries = stream_entries(tree)
    data = tar_of([Added(entry) for entry in entries])
    seen = [
        (entry.path, entry.mode, entry.mtime_ns, entry.link, entry.hardlink, entry.xattrs, b"".join(content))
        for entry, content in TarReader(io.BytesIO(data))
    ]
    assert seen == [
        (
            entry.path,
            entry.mode,
            entry.mtime_ns,
            entry.link,
            entry.hardlink,
            entry.xattrs,
            entry.data or b"",
        )
        for entry in entries
    ]


@given(trees)
@settings(max_examples=60)
def test_another_tar_reader_sees_the_same(tree: dict[bytes, Leaf | Folder]) -> None:
    entries = stream_entries(tree)
    with tarfile.open(fileobj=io.BytesIO(tar_of([Added(entry) for entry in entries])), mode="r:") as archive:
        seen = [
            (os.fsencode(member.name), member.mode, member.mtime, os.fsencode(member.linkname), member.isdir())
            for member in archive
        ]
    assert seen == [
        (entry.path, entry.permissions, entry.mtime_ns // SECOND, entry.hardlink or entry.link, entry.is_dir)
        for entry in entries
    ]


@given(trees, trees, st.sampled_from(["none", "gzip", "zstd"]))
@settings(max_examples=120)
def test_a_layer_of_the_difference_makes_one_tree_of_another(
    before: dict[bytes, Leaf | Folder], after: dict[bytes, Leaf | Folder], algorithm: str
) -> None:
    old, new = tree_of(before), tree_of(after)
    blob = io.BytesIO()
    info = write_layer(diff(old, new), blob, LayerOptions(compression=Compression.parse(algorithm)))
    assert info.compressed_size == len(blob.getvalue())
    with tempfile.TemporaryDirectory() as upper:
        os.chmod(upper, 0o755)
        blob.seek(0)
        applied = apply_layer(open_decompressed(blob), upper, old, OWNERSHIP, True)
        assert (applied.diff_id, applied.size) == (info.diff_id, info.size)
        assert applied.notes == ()
        result = old.with_top(DirectoryLayer(upper, OWNERSHIP, True))
        assert rows(result) == rows(new)


@given(trees, trees)
@settings(max_examples=120)
def test_a_snapshot_of_the_difference_says_the_difference(
    before: dict[bytes, Leaf | Folder], after: dict[bytes, Leaf | Folder]
) -> None:
    old, new = tree_of(before), tree_of(after)
    changes = list(diff(old, new))
    with tempfile.TemporaryDirectory() as upper:
        os.chmod(upper, 0o755)
        assert write_changes(changes, upper, old, OWNERSHIP, True) == ()
        result = old.with_top(DirectoryLayer(upper, OWNERSHIP, True))
        assert rows(result) == rows(new)
        found = list(iter_changes(upper, old, OWNERSHIP, True))
        assert list(diff(result, new)) == []
        with tempfile.TemporaryDirectory() as second:
            os.chmod(second, 0o755)
            write_changes(found, second, old, OWNERSHIP, True)
            assert rows(old.with_top(DirectoryLayer(second, OWNERSHIP, True))) == rows(new)


@given(trees)
@settings(max_examples=60)
def test_hard_links_stay_what_they_are(tree: dict[bytes, Leaf | Folder]) -> None:
    empty, full = UnionTree(), tree_of(tree)
    with tempfile.TemporaryDirectory() as upper:
        os.chmod(upper, 0o755)
        apply_layer(io.BytesIO(tar_of(list(diff(empty, full)))), upper, empty, OWNERSHIP, True)
        assert links(UnionTree([DirectoryLayer(upper, OWNERSHIP, True)])) == links(full)


@given(st.lists(trees, min_size=2, max_size=4))
@settings(max_examples=60)
def test_a_stack_of_differences_is_its_last_tree(states: list[dict[bytes, Leaf | Folder]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        tree = UnionTree()
        for number, state in enumerate(states):
            upper = os.path.join(folder, str(number))
            os.mkdir(upper)
            os.chmod(upper, 0o755)
            wanted = tree_of(state)
            write_changes(diff(tree, wanted), upper, tree, OWNERSHIP, True)
            tree = tree.with_top(DirectoryLayer(upper, OWNERSHIP, True))
            assert rows(tree) == rows(wanted)
            for entry in tree.walk():
                assert tree.lstat(entry.path) == entry
                if entry.is_dir:
                    assert tree.listdir(entry.path) == tree_of(state).listdir(entry.path)
