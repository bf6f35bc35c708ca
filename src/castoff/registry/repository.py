"""One repository of a registry: manifests, blobs and tags.

References: OCI distribution specification.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

from castoff.errors import InvalidReferenceError, RegistryError
from castoff.oci.digest import Digest
from castoff.registry.documents import ACCEPT, MAX_MANIFEST, Document, read_document
from castoff.registry.download import BlobDownload
from castoff.registry.failure import NotFoundError
from castoff.registry.host import Call
from castoff.registry.transport import CanceledTransferError, ConnectionFailedError
from castoff.registry.upload import BlobSource, BlobUpload, chosen_sources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from castoff.oci.descriptor import Descriptor
    from castoff.oci.reference import Reference
    from castoff.registry.host import RegistryHost
    from castoff.registry.transport import HttpResponse
    from castoff.store.blobs import BlobStore

T = TypeVar("T")
_MAX_TAGS = 4 << 20
_MAX_PAGES = 10_000
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class PutResult:
    """How a blob came into a repository.

    Attributes:
        how: ``exists``, ``mounted`` or ``uploaded``.
        source: the repository that it was mounted from; "" for none.
    """

    how: str
    source: str = ""


def _nothing(_count: int) -> None:
    """Take no notice of progress."""


class Repository:
    """A repository, asked for at its mirrors first. Safe for several threads.

    Everything that is asked for by digest is verified. All methods raise `RegistryError` (`UnauthorizedError`,
    `NotFoundError`) where the registry refuses or can't be reached, after all tries.
    """

    def __init__(self, reference: Reference, hosts: Sequence[RegistryHost]) -> None:
        """Take what names the repository, and the servers that may be asked, the registry's own last."""
        self._name = f"{reference.registry}/{reference.repository}"
        self._hosts = tuple(hosts)
        self._dead: set[RegistryHost] = set()

    @property
    def name(self) -> str:
        """Registry and repository, as in a reference."""
        return self._name

    def get_manifest(self, wanted: str | Digest) -> Document:
        """Return the manifest or index of a tag or digest, its bytes verified. Idempotent.

        Raises:
            NotFoundError: there is none.
            RegistryError: it is not what its digest promises, is larger than 4 MiB, or is no image of a known kind.
        """
        return self._ask(lambda host: self._get_manifest(host, wanted))

    def find_manifest(self, wanted: str | Digest) -> Digest | None:
        """Return the digest of a tag's or digest's manifest without fetching it; None where it does not exist.

        A registry that does not say is asked for the manifest itself. Idempotent.
        """
        doing = f"look for {self._shown(wanted)}"

        def ask(host: RegistryHost) -> Digest | None:
            call = self._manifest_call(host, "HEAD", wanted, doing)
            with host.send(call) as response:
                said = response.headers.get("Docker-Content-Digest", "")
            try:
                return Digest.parse(said)
            except InvalidReferenceError:
                return None

        try:
            found = self._ask(ask) if isinstance(wanted, str) else self._ask(ask) or wanted
        except NotFoundError:
            return None
        return found if found is not None else self.get_manifest(wanted).descriptor.digest

    def put_manifest(self, data: bytes, media_type: str, wanted: str | Digest) -> Digest:
        """Store a manifest or index under a tag or its digest. Atomic, idempotent; returns its sha256 digest.

        All that it refers to must be in the repository before.
        """
        digest = wanted if isinstance(wanted, Digest) else Digest.of(data)
        doing = f"push the manifest {self._shown(wanted)}"
        if len(data) > MAX_MANIFEST:
            raise RegistryError(f"can't {doing}: it has more than the {MAX_MANIFEST >> 20} MiB that registries take")
        host = self._hosts[-1]
        target = f"/v2/{host.endpoint.repository}/manifests/{wanted}"
        headers = {"Content-Type": media_type}
        call = Call("PUT", target, doing, self._scopes(host, push=True), headers, data, len(data), (201, 200, 202))
        with host.send(call) as response:
            said = response.headers.get("Docker-Content-Digest", "")
        if said and said.partition(":")[0] == digest.algorithm and said != str(digest):
            raise RegistryError(f"can't {doing}: the registry took it for {said[:80]}, and it is {digest}")
        return digest

    def has_blob(self, digest: Digest) -> int | None:
        """Return the size of a blob in bytes, 0 where the registry does not say; None where it is not there."""

        def ask(host: RegistryHost) -> int:
            target = f"/v2/{host.endpoint.repository}/blobs/{digest}"
            call = Call("HEAD", target, f"look for {digest} in {self._name}", self._scopes(host))
            with host.send(call) as response:
                length = response.headers.get("Content-Length", "")
                return int(length) if length.isascii() and length.isdigit() else 0

        try:
            return self._ask(ask)
        except NotFoundError:
            return None

    def open_blob(self, digest: Digest) -> HttpResponse:
        """Open a blob to be read once, as it comes; its bytes are not verified and not fetched again on a failure."""
        return self._ask(lambda host: host.send(self._blob_call(host, digest)))

    def fetch_blob(self, descriptor: Descriptor, blobs: BlobStore, moved: Callable[[int], None] = _nothing) -> None:
        """Fetch a blob into a store, unless it is there: verified, resumed where it breaks off. Atomic, idempotent.

        Where the descriptor has URLs (a foreign layer), these are asked after the registry, without credentials.

        Args:
            descriptor: digest and size.
            blobs: the store.
            moved: called with the number of bytes that came since the last call; negative ones come anew.

        Raises:
            NotFoundError: it is not there.
            RegistryError: it can't be had, or is not what its digest and size promise.
            StoreError: the store can't be written.
        """

        def fetch(host: RegistryHost) -> None:
            BlobDownload(host, self._blob_call(host, descriptor.digest), descriptor, moved).into(blobs)

        try:
            self._ask(fetch)
        except NotFoundError:
            if not descriptor.urls:
                raise
            self._fetch_foreign(descriptor, blobs, moved)

    def put_blob(
        self, source: BlobSource, moved: Callable[[int], None] = _nothing, mount_from: Iterable[str] = ()
    ) -> PutResult:
        """Bring a blob into the repository: not at all where it is there, mounted where that works, else uploaded.

        Idempotent.

        Args:
            source: the blob.
            moved: called with the number of bytes that were sent since the last call; negative ones are sent anew.
            mount_from: names of repositories of the same registry that may have it.

        Raises:
            RegistryError: the registry refuses, or can't be reached.
            StoreError: the bytes can't be read.
        """
        host = self._hosts[-1]
        upload = BlobUpload(host, self._scopes(host, push=True), self._name)
        descriptor = source.descriptor
        if upload.exists(descriptor):
            moved(descriptor.size)
            return PutResult("exists")
        began = ""
        for name in chosen_sources(mount_from, host.endpoint.repository):
            try:
                began = upload.mount(descriptor, name)
            except CanceledTransferError:
                raise
            except RegistryError:
                continue  # not allowed, or not there: it is uploaded
            if not began:
                moved(descriptor.size)
                return PutResult("mounted", name)
        upload.put(source, moved, began)
        return PutResult("uploaded")

    def mount_blob(self, descriptor: Descriptor, source: str) -> bool:
        """Ask the registry to take a blob from another of its repositories, and tell whether it did. Idempotent."""
        host = self._hosts[-1]
        return not BlobUpload(host, self._scopes(host, push=True), self._name).mount(descriptor, source)

    def list_tags(self) -> Iterator[str]:
        """Yield the names of all tags, in the registry's order, page by page."""
        yield from self._ask(lambda host: list(self._tags(host)))

    def _tags(self, host: RegistryHost) -> Iterator[str]:
        from castoff.errors import InvalidImageError
        from castoff.oci.jsontext import Fields, load_object

        doing = f"list the tags of {self._name}"
        target = f"/v2/{host.endpoint.repository}/tags/list?n={_PAGE}"
        for _ in range(_MAX_PAGES):
            data, headers = host.fetch(Call("GET", target, doing, self._scopes(host)), _MAX_TAGS)
            link = headers.get("Link", "")
            try:
                yield from Fields(load_object(data, "list of tags"), "list of tags").texts("tags") or ()
            except InvalidImageError as error:
                raise RegistryError(f"can't {doing}: {error.message}") from error
            following = _next_page(link)
            if not following:
                return
            from urllib.parse import urljoin

            target = urljoin(f"{host.base()}{target}" if target.startswith("/") else target, following)
        raise RegistryError(f"can't {doing}: there is no end to them")

    def _get_manifest(self, host: RegistryHost, wanted: str | Digest) -> Document:
        doing = f"get the manifest of {self._shown(wanted)}"
        data, headers = host.fetch(self._manifest_call(host, "GET", wanted, doing), MAX_MANIFEST)
        kind, said = headers.get("Content-Type", ""), headers.get("Docker-Content-Digest", "")
        asked = str(wanted) if isinstance(wanted, Digest) else ""
        return read_document(data, kind, (asked, said), doing)

    def _fetch_foreign(self, descriptor: Descriptor, blobs: BlobStore, moved: Callable[[int], None]) -> None:
        """Fetch a blob from the URLs of its descriptor."""
        host = self._hosts[-1]
        failure: RegistryError | None = None
        for url in descriptor.urls:
            if not url.lower().startswith(("https://", "http://")):
                continue
            call = Call("GET", url, f"get the layer {descriptor.digest} from its address")
            try:
                BlobDownload(host.anonymous(), call, descriptor, moved).into(blobs)
            except CanceledTransferError:
                raise
            except RegistryError as error:
                failure = error
                continue
            return
        raise failure or NotFoundError(f"can't get the layer {descriptor.digest}: its addresses are not of the web")

    def _ask(self, action: Callable[[RegistryHost], T]) -> T:
        """Return what the first server gives that can; the error is the registry's own."""
        for host in self._hosts[:-1]:
            if host in self._dead:
                continue
            try:
                return action(host)
            except CanceledTransferError:
                raise
            except ConnectionFailedError:
                self._dead.add(host)
            except RegistryError:
                continue
        return action(self._hosts[-1])

    def _manifest_call(self, host: RegistryHost, method: str, wanted: str | Digest, doing: str) -> Call:
        target = f"/v2/{host.endpoint.repository}/manifests/{quote(str(wanted), safe=':')}"
        return Call(method, target, doing, self._scopes(host), {"Accept": ACCEPT})

    def _blob_call(self, host: RegistryHost, digest: Digest) -> Call:
        target = f"/v2/{host.endpoint.repository}/blobs/{digest}"
        return Call("GET", target, f"get the blob {digest} of {self._name}", self._scopes(host))

    def _scopes(self, host: RegistryHost, *, push: bool = False) -> tuple[str, ...]:
        return (f"repository:{host.endpoint.repository}:{'pull,push' if push else 'pull'}",)

    def _shown(self, wanted: str | Digest) -> str:
        return f"{self._name}{'@' if isinstance(wanted, Digest) else ':'}{wanted}"


def _next_page(link: str) -> str:
    """Return the address in a Link header with ``rel="next"``; "" where there is none."""
    address, _, rest = link.partition(">")
    if not address.lstrip().startswith("<") or "next" not in rest:
        return ""
    return address.lstrip()[1:]
