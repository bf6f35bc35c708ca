"""A registry in memory on a free port of the loopback interface."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from castoff.oci import mediatypes
from castoff.oci.manifest import Index, Manifest
from castoff.registry.server import Access, RegistryServer, in_memory
from castoff.registry.server.repositories import StoredManifest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from castoff.oci.descriptor import Descriptor
    from castoff.registry.server import Repositories
    from castoff.store.blobs import BlobStore


@dataclass(slots=True)
class MemoryRegistry:
    """A registry that runs.

    Attributes:
        server: the server, whose `netloc` begins a reference.
        repositories: what it holds.
        requests: a line for each request that was answered: ``METHOD 'PATH' STATUS``.
    """

    server: RegistryServer
    repositories: Repositories
    requests: list[str] = field(default_factory=list)

    @property
    def netloc(self) -> str:
        """Host and port, as they stand in a reference."""
        return self.server.netloc

    def put_image(self, blobs: BlobStore, descriptor: Descriptor, reference: str) -> str:
        """Copy an image or an index from a store, and return its whole reference, the registry included.

        Args:
            blobs: where it is.
            descriptor: its manifest or index.
            reference: repository and tag.
        """
        name, _, tag = reference.partition(":")
        self._put(blobs, descriptor, name)
        self.repositories.tag(name, tag, descriptor.digest)
        return f"{self.netloc}/{reference}"

    def _put(self, blobs: BlobStore, descriptor: Descriptor, name: str) -> None:
        data = blobs.read(descriptor.digest)
        if descriptor.media_type in mediatypes.INDEXES:
            for entry in Index.parse(data).manifests:
                self._put(blobs, entry, name)
        else:
            manifest = Manifest.parse(data)
            for item in (manifest.config, *manifest.layers):
                with blobs.open_(item.digest) as source, self.repositories.blobs.writer() as writer:
                    writer.write(source.read())
                    self.repositories.add_blob(name, writer, item.digest)
        self.repositories.put_manifest(name, StoredManifest(descriptor.media_type, descriptor.digest, data))

    def take_requests(self) -> list[str]:
        """Return the requests since the last call."""
        taken = list(self.requests)
        del self.requests[: len(taken)]
        return taken


@contextmanager
def memory_registry(*, passwords: str = "", certificate: str = "", key: str = "") -> Iterator[MemoryRegistry]:
    """Serve a registry from memory while the block runs.

    Args:
        passwords: path of a password file; "" lets everybody in.
        certificate: path of a certificate for TLS; "" for none.
        key: path of its key.

    Raises:
        ContextError: one of the files can't be read.
    """
    requests: list[str] = []
    repositories = in_memory()
    access = Access(passwords, certificate, key, log=requests.append)
    with RegistryServer(repositories, access=access) as server:
        yield MemoryRegistry(server, repositories, requests)
