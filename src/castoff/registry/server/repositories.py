"""What a registry holds: blobs, and for each repository its blobs, manifests, tags and referrers.

Bytes are kept once, whichever repositories have them; a repository has what was pushed or mounted to it.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from castoff.errors import CastoffError, StoreError
from castoff.oci.descriptor import Descriptor
from castoff.oci.digest import Digest
from castoff.oci.jsontext import dump
from castoff.registry.server.links import MAX_LINK, DirectoryLinks, MemoryLinks
from castoff.store.blobfolder import DirectoryBlobStore
from castoff.store.durability import UnsyncedList
from castoff.store.failure import translated
from castoff.store.locking import try_lock
from castoff.store.memory import MemoryBlobStore
from castoff.store.replacement import replace_file
from castoff.store.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from castoff.registry.server.links import Links
    from castoff.store.blobs import BlobStore, BlobWriter

FORMAT = 1
"""The version of the folder's format."""

_MARK = "castoff-registry.json"
_FOLDERS = ("blobs/sha256", "repositories", "uploads")


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """A manifest or an index of a repository: its media type, its digest, its bytes."""

    media_type: str
    digest: Digest
    data: bytes


class Repositories:
    """All repositories of a registry. Safe for several threads; one process at a time.

    Names, tags and digests must be well formed: paths are made of them.
    """

    def __init__(self, blobs: BlobStore, links: Links, sync: Callable[[], None] = lambda: None) -> None:
        """Take where the bytes are, where the links are, and what waits for the disk."""
        self.blobs = blobs
        self._links = links
        self._sync = sync
        # Held where a blob gets its first link or loses its last: its bytes must not go in between.
        self._lock = threading.RLock()

    def repositories(self) -> list[str]:
        """Return the names of the repositories that have a manifest, sorted."""
        found: list[str] = []
        pending = [""]
        while pending:
            name = pending.pop()
            for word in self._links.names(name):
                if word == "_manifests" and name:
                    found.append(name)
                elif not word.startswith("_"):
                    pending.append(f"{name}/{word}" if name else word)
        return sorted(found)

    def exists(self, name: str) -> bool:
        """Tell whether anything was pushed to a repository."""
        return any(self._links.names(f"{name}/{kind}") for kind in ("_manifests", "_blobs"))

    def blob_size(self, name: str, digest: Digest) -> int | None:
        """Return the size in bytes of a blob of a repository; None where it has no such blob."""
        return self.blobs.size(digest) if self._links.get(f"{name}/_blobs/{digest}") is not None else None

    def add_blob(self, name: str, writer: BlobWriter, digest: Digest) -> int:
        """Make what was written a blob of a repository, and return its size. Atomic.

        Raises:
            DigestMismatchError: the bytes are not those of the digest; nothing was stored.
            StoreError: it can't be written.
        """
        with self._lock:
            size = writer.commit(digest)[1]
            self._links.put(f"{name}/_blobs/{digest}", b"")
        return size

    def mount(self, name: str, digest: Digest, source: str | None) -> bool:
        """Give a repository a blob of another one, of any where none is named, and tell whether it is there now."""
        with self._lock:
            if source is None:
                there = self.blobs.size(digest) is not None and any(
                    self.blob_size(other, digest) is not None for other in self.repositories()
                )
            else:
                there = self.blob_size(source, digest) is not None
            if there:
                self._links.put(f"{name}/_blobs/{digest}", b"")
            return there

    def remove_blob(self, name: str, digest: Digest) -> bool:
        """Take a blob from a repository, and tell whether it was there. The bytes go with the last repository."""
        with self._lock:
            there = self._links.remove(f"{name}/_blobs/{digest}")
            self._forget(digest)
            return there

    def manifest(self, name: str, digest: Digest) -> StoredManifest | None:
        """Return a manifest of a repository.

        Raises:
            StoreError: its bytes are damaged.
        """
        link = self._links.get(f"{name}/_manifests/{digest}")
        if link is None or self.blobs.size(digest) is None:
            return None
        return StoredManifest(link.decode("ascii", "replace"), digest, self.blobs.read(digest))

    def has_manifest(self, name: str, digest: Digest) -> bool:
        """Tell whether a repository has a manifest."""
        return self._links.get(f"{name}/_manifests/{digest}") is not None and self.blobs.size(digest) is not None

    def put_manifest(
        self, name: str, manifest: StoredManifest, subject: Digest | None = None, referrer: Descriptor | None = None
    ) -> None:
        """Keep a manifest. Once this returns, it and all blobs pushed before are on the disk.

        Args:
            name: the repository.
            manifest: it.
            subject: the manifest that it refers to.
            referrer: what the list of that manifest's referrers says of it.

        Raises:
            DigestMismatchError: its bytes are not those of its digest.
            StoreError: it can't be written.
        """
        with self._lock, self.blobs.writer() as writer:
            writer.write(manifest.data)
            writer.commit(manifest.digest)
            self._sync()
            self._links.put(f"{name}/_manifests/{manifest.digest}", manifest.media_type.encode("ascii"))
            if subject is not None and referrer is not None:
                value = dump(referrer.to_json())
                if len(value) > MAX_LINK:
                    raise StoreError(f"the annotations of a manifest that refers to another exceed {MAX_LINK} bytes")
                self._links.put(f"{name}/_referrers/{subject}/{manifest.digest}", value)

    def remove_manifest(self, name: str, digest: Digest, subject: Digest | None) -> bool:
        """Remove a manifest with its tags, and tell whether it was there."""
        with self._lock:
            there = self._links.remove(f"{name}/_manifests/{digest}")
            for tag in self.tags(name):
                if self.tagged(name, tag) == digest:
                    self._links.remove(f"{name}/_tags/{tag}")
            if subject is not None:
                self._links.remove(f"{name}/_referrers/{subject}/{digest}")
            self._forget(digest)
            return there

    def referrers(self, name: str, subject: Digest) -> list[Descriptor]:
        """Return the descriptors of the manifests that refer to another."""
        folder = f"{name}/_referrers/{subject}"
        found = []
        for word in self._links.names(folder):
            value = self._links.get(f"{folder}/{word}")
            if value is not None:
                try:
                    found.append(Descriptor.from_json(json.loads(value)))
                except (CastoffError, ValueError):
                    continue
        return found

    def tags(self, name: str) -> list[str]:
        """Return the tags of a repository, sorted."""
        return self._links.names(f"{name}/_tags")

    def tagged(self, name: str, tag: str) -> Digest | None:
        """Return the digest that a tag names."""
        value = self._links.get(f"{name}/_tags/{tag}")
        return None if value is None else Digest.parse(value.decode("ascii", "replace"))

    def tag(self, name: str, tag: str, digest: Digest) -> None:
        """Let a tag name a manifest. Atomic, idempotent."""
        self._links.put(f"{name}/_tags/{tag}", str(digest).encode())

    def untag(self, name: str, tag: str) -> bool:
        """Remove a tag, and tell whether there was one."""
        return self._links.remove(f"{name}/_tags/{tag}")

    def _forget(self, digest: Digest) -> None:
        """Remove the bytes of a blob or manifest that no repository has any more."""
        if self.blobs.size(digest) is not None and not any(self._has(name, digest) for name in self._all_names()):
            self.blobs.delete(digest)

    def _has(self, name: str, digest: Digest) -> bool:
        return any(self._links.get(f"{name}/{kind}/{digest}") is not None for kind in ("_blobs", "_manifests"))

    def _all_names(self) -> Iterator[str]:
        pending = [""]
        while pending:
            name = pending.pop()
            words = self._links.names(name)
            if name and any(word.startswith("_") for word in words):
                yield name
            pending += [f"{name}/{word}" if name else word for word in words if not word.startswith("_")]


def in_memory() -> Repositories:
    """Return repositories that end with the process."""
    return Repositories(MemoryBlobStore(), MemoryLinks())


@contextmanager
def in_folder(folder: str) -> Iterator[Repositories]:
    """Open the repositories in a folder, which is made; nobody else may serve them meanwhile.

    Raises:
        StoreError: the folder is something else, can't be written, or is served by another process.
    """
    root = os.path.abspath(folder)
    _prepare(root)
    lock = os.open(f"{root}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not try_lock(lock, fcntl.LOCK_EX):
            raise StoreError(f"another process serves the registry in {root}", hint="stop it, or name another folder")
        with Session.begin(f"{root}/uploads") as session:
            unsynced = UnsyncedList(f"{root}/uploads", f"{root}/blobs")
            with translated("look for damage that a stop of the machine did to the registry"):
                unsynced.recover()
            blobs = DirectoryBlobStore(f"{root}/blobs", lambda: session, unsynced, lambda: None)
            yield Repositories(blobs, DirectoryLinks(f"{root}/repositories"), blobs.sync)
            blobs.sync()
    finally:
        os.close(lock)


def _prepare(root: str) -> None:
    with translated(f"make a registry in {root}"):
        os.makedirs(root, 0o755, exist_ok=True)
        names = os.listdir(root)
        if _MARK in names:
            _check_version(f"{root}/{_MARK}")
        elif any(not name.startswith(f".{_MARK}") for name in names):
            raise StoreError(
                f"{root} is not empty and is no registry of castoff's", hint="name an empty or a new folder with --dir"
            )
        else:
            replace_file(f"{root}/{_MARK}", dump({"version": FORMAT}) + b"\n", durable=True)
        for name in _FOLDERS:
            os.makedirs(f"{root}/{name}", 0o755, exist_ok=True)


def _check_version(path: str) -> None:
    with open(path, "rb") as file:
        try:
            version = json.loads(file.read(MAX_LINK))["version"]
        except (ValueError, KeyError, TypeError):
            version = None
    if not isinstance(version, int) or not 1 <= version <= FORMAT:
        raise StoreError(
            f"the registry in {os.path.dirname(path)} has format {version}, and this castoff reads formats up to "
            f"{FORMAT}",
            hint="upgrade castoff, or name another folder with --dir",
        )
