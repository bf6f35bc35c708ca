"""A cache in an OCI image layout: ``type=local``."""

from __future__ import annotations

import fcntl
import hashlib
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from castoff.buildcache.document import ARTIFACT_TYPE, EMPTY, MAX_CONFIG, CacheDocument, manifest_of
from castoff.buildcache.place import FoundCache, check_config
from castoff.errors import BlobNotFoundError, CastoffError, ExportError, StoreError
from castoff.image.layoutfolder import LayoutFolder
from castoff.oci import mediatypes
from castoff.oci.descriptor import REF_NAME, Descriptor
from castoff.oci.digest import Digest
from castoff.oci.jsontext import MAX_DOCUMENT, dump
from castoff.oci.manifest import Index, Manifest
from castoff.store.failure import explain
from castoff.store.removal import remove_tree
from castoff.store.replacement import replace_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from castoff.buildcache.place import Progress
    from castoff.store.blobs import BlobStore

_BLOCK = 1 << 20
_LAYOUT = dump({"imageLayoutVersion": "1.0.0"})


class LayoutPlace:
    """Keeps a cache in a folder, under a tag. Others may be in it too, and images.

    Where the folder has nothing but caches, blobs that none of them names go when a new one is kept: it does not grow
    without end.
    """

    def __init__(self, path: str, tag: str, digest: str = "") -> None:
        """Take the folder, the cache's name, and the digest of its manifest, which counts more where it is given."""
        self._path = os.path.abspath(path)
        self._tag = tag
        self._digest = digest
        self._folder = LayoutFolder(self._path)

    def load(self) -> FoundCache | None:
        """Return what is there; None where there is no folder, or nothing of that name in it."""
        if not os.path.exists(self._folder.index_path):
            return None
        found = self._find()
        if found is None:
            return None
        manifest = Manifest.parse(self._folder.read(found.digest))
        check_config(manifest, self._path)
        document = CacheDocument.parse(self._folder.read(manifest.config.digest, MAX_CONFIG))
        return FoundCache(document, manifest.layers)

    def _find(self) -> Descriptor | None:
        for entry in self._index().manifests:
            if str(entry.digest) == self._digest or (not self._digest and entry.annotation(REF_NAME) == self._tag):
                return entry
        if self._digest:
            raise BlobNotFoundError(f"the layout {self._path} has no build cache {self._digest}")
        return None

    def fetch(self, descriptor: Descriptor, blobs: BlobStore, moved: Callable[[int], None]) -> None:
        """Copy one of its blobs into a store, verified."""
        if blobs.size(descriptor.digest) == descriptor.size:
            return
        with self._folder.open_(descriptor.digest) as source, blobs.writer() as writer:
            left = descriptor.size
            while left and (data := source.read(min(left, _BLOCK))):
                writer.write(data)
                left -= len(data)
                moved(len(data))
            writer.commit(descriptor.digest)

    def save(self, document: CacheDocument, ensure: Callable[[Descriptor], BlobStore], told: Progress) -> None:
        """Keep a cache: its blobs first, the index last."""
        config = document.to_bytes()
        manifest = manifest_of(document, config)
        data = manifest.to_bytes()
        try:
            os.makedirs(f"{self._path}/blobs/sha256", exist_ok=True)
            with self._locked():
                self._check()
                for layer in document.descriptors():
                    self._put(layer, ensure, told)
                for small in (EMPTY, config, data):
                    if small is not EMPTY or not document.descriptors():
                        self._put_small(small)
                self._enter(
                    Descriptor(mediatypes.OCI_MANIFEST, Digest.of(data), len(data), artifact_type=ARTIFACT_TYPE)
                )
        except OSError as error:
            message, hint = explain(error, f"write the build cache {self._path}")
            raise ExportError(message, hint=hint) from error

    def _check(self) -> None:
        names = os.listdir(self._path)
        if "oci-layout" not in names and set(names) - {"blobs"}:
            raise ExportError(
                f"can't write the build cache {self._path}: the folder is neither empty nor an image layout",
                hint="name a new folder",
            )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of the folder itself, which leaves no file behind."""
        fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _blob(self, digest: Digest) -> str:
        return f"{self._path}/blobs/{digest.algorithm}/{digest.hex}"

    def _put(self, descriptor: Descriptor, ensure: Callable[[Descriptor], BlobStore], told: Progress) -> None:
        place = self._blob(descriptor.digest)
        name, size = f"copying {descriptor.digest}", descriptor.size
        if self._folder.size(descriptor.digest) == size:
            told(name, size, size)
            return
        os.makedirs(os.path.dirname(place), exist_ok=True)
        temporary = f"{os.path.dirname(place)}/.{descriptor.digest.hex}.{os.urandom(6).hex()}"
        hashed, done = hashlib.new(descriptor.digest.algorithm), 0
        try:
            with ensure(descriptor).open_(descriptor.digest) as source, open(temporary, "xb", buffering=0) as target:
                while block := source.read(_BLOCK):
                    hashed.update(block)
                    view = memoryview(block)
                    while view:
                        view = view[target.write(view) :]
                    done += len(block)
                    told(name, done, size)
            _check(descriptor.digest, hashed.hexdigest())
            os.rename(temporary, place)
        except BaseException:
            remove_tree(temporary)
            raise

    def _put_small(self, data: bytes) -> None:
        place = self._blob(Digest.of(data))
        if not os.path.exists(place):
            replace_file(place, data)

    def _enter(self, entry: Descriptor) -> None:
        """Give the cache its name, and let go of the blobs that nothing names any more."""
        entry = entry.with_annotations({REF_NAME: self._tag})
        kept = [old for old in self._index().manifests if old.annotation(REF_NAME) != self._tag]
        if not os.path.exists(f"{self._path}/oci-layout"):
            replace_file(f"{self._path}/oci-layout", _LAYOUT)
        replace_file(self._folder.index_path, Index((*kept, entry)).to_bytes(), durable=True)
        if all(one.artifact_type == ARTIFACT_TYPE for one in kept):
            self._sweep([*kept, entry])

    def _index(self) -> Index:
        try:
            with open(self._folder.index_path, "rb") as file:
                return Index.parse(file.read(MAX_DOCUMENT + 1))
        except FileNotFoundError:
            return Index(())

    def _sweep(self, entries: list[Descriptor]) -> None:
        needed: set[Digest] = set()
        for entry in entries:
            try:
                manifest = Manifest.parse(self._folder.read(entry.digest))
            except CastoffError:
                return  # What can't be read may need anything.
            needed |= {entry.digest, manifest.config.digest, *(layer.digest for layer in manifest.layers)}
        keep = {digest.hex for digest in needed if digest.algorithm == "sha256"}
        for name in os.listdir(f"{self._path}/blobs/sha256"):
            if name not in keep:
                remove_tree(f"{self._path}/blobs/sha256/{name}")


def _check(digest: Digest, actual: str) -> None:
    if actual != digest.hex:
        raise StoreError(
            f"the blob {digest} in the store is damaged", hint="castoff doctor --store --repair removes it"
        )
