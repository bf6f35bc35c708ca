"""The result of a build for several platforms: one index, or one tree with a folder for each platform."""

from __future__ import annotations

import stat
from dataclasses import replace
from typing import TYPE_CHECKING

from castoff.fs.entry import FileEntry
from castoff.fs.union import EntryLayer, UnionTree
from castoff.oci.descriptor import Descriptor
from castoff.oci.manifest import Index

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from castoff.oci.platform import Platform
    from castoff.store.blobs import BlobStore

_DEVICE = -4
"""Stands for the device in the `inode` of linked files: no link leads from one platform's folder to another's."""


def store_index(
    blobs: BlobStore, manifests: Iterable[Descriptor], annotations: tuple[tuple[str, str], ...] = ()
) -> Descriptor:
    """Store the index of an image for several platforms and return its descriptor.

    Args:
        blobs: takes the document.
        manifests: one for each platform, in the order of the index; each says its platform.
        annotations: those of the index.

    Raises:
        StoreError: the store can't be written.
    """
    index = Index(tuple(manifests), annotations=annotations)
    data = index.to_bytes()
    return Descriptor(index.media_type, blobs.add(data), len(data))


def folder_name(platform: Platform) -> str:
    """Return the name of a platform's folder, such as ``linux_arm_v7``."""
    return str(platform).replace("/", "_")


def joined_tree(trees: Iterable[tuple[str, UnionTree]]) -> UnionTree:
    """Return one tree that holds each of some trees in a folder of its own.

    Args:
        trees: the folder's name, and what goes into it.
    """
    return UnionTree([EntryLayer(_entries(trees))])


def _entries(trees: Iterable[tuple[str, UnionTree]]) -> Iterator[FileEntry]:
    inodes: dict[tuple[str, tuple[int, int]], tuple[int, int]] = {}
    for name, tree in trees:
        folder = name.encode()
        yield FileEntry(folder, stat.S_IFDIR | 0o755)
        for entry in tree.walk():
            if not entry.path:
                continue
            inode = entry.inode
            if inode is not None:
                inode = inodes.setdefault((name, inode), (_DEVICE, len(inodes)))
            yield replace(entry, path=folder + b"/" + entry.path, inode=inode)
