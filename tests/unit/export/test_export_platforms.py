"""Builds for several platforms: one index, or a folder for each."""

from __future__ import annotations

import stat

from castoff.export.platforms import folder_name, joined_tree, store_index
from castoff.fs.changes import Added, diff
from castoff.fs.entry import FileEntry
from castoff.fs.union import EntryLayer, UnionTree
from castoff.oci import mediatypes
from castoff.oci.descriptor import Descriptor
from castoff.oci.digest import Digest
from castoff.oci.manifest import Index
from castoff.oci.platform import Platform
from castoff.store.memory import MemoryBlobStore

ARM, AMD = Platform.parse("linux/arm/v7"), Platform.parse("linux/amd64")


def tree(*names: str, inode: tuple[int, int] | None = None) -> UnionTree:
    return UnionTree(
        [
            EntryLayer(
                FileEntry(name.encode(), stat.S_IFREG | 0o600, size=len(name), data=name.encode(), inode=inode)
                for name in names
            )
        ]
    )


def test_folders_are_named_after_their_platforms() -> None:
    assert [folder_name(platform) for platform in (ARM, AMD)] == ["linux_arm_v7", "linux_amd64"]


def test_each_tree_is_in_its_folder() -> None:
    joined = joined_tree([("b", tree("x", "sub/y")), ("a", tree("x"))])
    assert [entry.path for entry in joined.walk()] == [b"", b"a", b"a/x", b"b", b"b/sub", b"b/sub/y", b"b/x"]
    folder = joined.lstat(b"b")
    assert folder is not None
    assert folder.permissions == 0o755
    with joined.open_(b"b/sub/y") as file:
        assert file.read() == b"sub/y"


def test_links_stay_within_a_platform() -> None:
    joined = joined_tree([(name, tree("one", "two", inode=(1, 2))) for name in ("a", "b")])
    links = {
        change.path: change.entry.hardlink
        for change in diff(UnionTree(), joined)
        if isinstance(change, Added) and change.entry.is_file
    }
    assert links == {b"a/one": None, b"a/two": b"a/one", b"b/one": None, b"b/two": b"b/one"}


def test_the_index_lists_the_manifests_in_their_order() -> None:
    blobs = MemoryBlobStore()
    manifests = [
        Descriptor(mediatypes.OCI_MANIFEST, Digest.of(str(platform).encode()), 5, platform) for platform in (ARM, AMD)
    ]
    descriptor = store_index(blobs, manifests)
    assert descriptor.media_type == mediatypes.OCI_INDEX
    data = blobs.read(descriptor.digest)
    assert len(data) == descriptor.size
    assert Index.parse(data).manifests == tuple(manifests)
