"""Uploading a blob: not at all where it is there, mounted where another repository has it, else in one piece.

An upload that breaks off is taken up where the registry says that it ends. A registry, or a proxy before it, that
refuses large requests gets pieces.

References: OCI distribution specification, "Pushing blobs".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote, urljoin

from castoff.errors import RegistryError
from castoff.registry.backoff import Backoff
from castoff.registry.failure import NotFoundError
from castoff.registry.host import Call
from castoff.registry.transport import CanceledTransferError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from castoff.oci.descriptor import Descriptor
    from castoff.registry.host import RegistryHost
    from castoff.registry.transport import HttpResponse

SMALL = 4 << 20
"""Blobs up to this many bytes go with the request that ends the upload; a broken one begins anew."""
CHUNK = 16 << 20
"""The size of the pieces for registries that refuse large requests, in bytes."""
_MAX_CHUNK = 1 << 30
_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,19})")
_TOO_LARGE = 413


@dataclass(frozen=True, slots=True)
class BlobSource:
    """The bytes of a blob that is to be uploaded.

    Attributes:
        descriptor: digest and size.
        open_: opens them, at their beginning; may be called more than once.
    """

    descriptor: Descriptor
    open_: Callable[[], BinaryIO]


class BlobUpload:
    """Uploads blobs to one repository of one server. Safe for several threads."""

    def __init__(self, host: RegistryHost, scopes: tuple[str, ...], shown: str) -> None:
        """Take the server, the scopes of a push, and the repository's name as messages show it."""
        self._host = host
        self._scopes = scopes
        self._shown = shown
        self._base = f"/v2/{host.endpoint.repository}/blobs"

    def exists(self, descriptor: Descriptor) -> bool:
        """Tell whether the repository has a blob of that digest and size."""
        call = Call("HEAD", f"{self._base}/{descriptor.digest}", f"look for {descriptor.digest}", self._scopes)
        try:
            with self._host.send(call) as response:
                length = response.headers.get("Content-Length", "")
        except NotFoundError:
            return False
        return not length.isdigit() or int(length) == descriptor.size

    def mount(self, descriptor: Descriptor, source: str) -> str:
        """Ask the registry to take a blob from another of its repositories; return "" where it did.

        Returns the address of an upload that it began instead, where it did not.

        Raises:
            RegistryError: it refuses; the blob can still be uploaded.
        """
        query = f"mount={quote(str(descriptor.digest), safe='')}&from={quote(source, safe='')}"
        call = Call(
            "POST",
            f"{self._base}/uploads/?{query}",
            f"mount {descriptor.digest} from {source} in {self._shown}",
            (*self._scopes, f"repository:{source}:pull"),
            expected=(201, 202),
            body=b"",
        )
        with self._host.send(call) as response:
            return "" if response.status == 201 else self._location(call.target, response)

    def put(self, source: BlobSource, moved: Callable[[int], None], began: str = "") -> None:
        """Upload a blob. Idempotent.

        Args:
            source: the blob.
            moved: called with the number of bytes that were sent since the last call; a negative number takes back
                what has to be sent anew.
            began: the address of an upload that the registry began already; "" for none.

        Raises:
            RegistryError: the registry refuses, or can't be reached.
            StoreError: the bytes can't be read.
        """
        transfer = _Transfer(self, source, moved)
        with source.open_() as file:
            transfer.run(file, began)

    def begin(self, doing: str) -> tuple[str, int]:
        """Begin an upload, and return its address and the least size of pieces."""
        call = Call("POST", f"{self._base}/uploads/", doing, self._scopes, expected=(202,), body=b"")
        with self._host.send(call) as response:
            least = response.headers.get("OCI-Chunk-Min-Length", "")
            size = int(least) if least.isascii() and least.isdigit() and len(least) < 12 else 0
            return self._location(call.target, response), size

    def send(self, call: Call) -> HttpResponse:
        """Send a request of an upload."""
        return self._host.send(call)

    def call(self, method: str, target: str, doing: str, expected: tuple[int, ...]) -> Call:
        """Return a request of an upload, without a body."""
        return Call(method, target, doing, self._scopes, expected=expected)

    def follow(self, target: str, response: HttpResponse) -> str:
        """Return the address under which an upload goes on."""
        return self._location(target, response, fallback=target)

    def backoff(self) -> Backoff:
        """Return what waits between the tries of an upload."""
        return Backoff(self._host.policy)

    def check(self) -> None:
        """Raise where the caller gave up."""
        if self._host.policy.canceled.is_set():
            raise CanceledTransferError("the transfers were given up")

    def doing(self, descriptor: Descriptor) -> str:
        """Return what messages call the upload of a blob."""
        return f"push {descriptor.digest} to {self._shown}"

    def _location(self, target: str, response: HttpResponse, fallback: str = "") -> str:
        location = response.headers.get("Location", "")
        if not location:
            if fallback:
                return fallback
            raise RegistryError(f"can't push to {self._shown}: the registry does not say where to send the bytes")
        return urljoin(urljoin(f"{self._host.base()}/", target), location)


class _Transfer:
    """The upload of one blob."""

    def __init__(self, upload: BlobUpload, source: BlobSource, moved: Callable[[int], None]) -> None:
        self._upload = upload
        self._descriptor = source.descriptor
        self._doing = upload.doing(source.descriptor)
        self._told = moved
        self._sent = 0  # what was told of
        self._chunk = 0  # 0: everything at once

    def run(self, file: BinaryIO, began: str) -> None:
        size = self._descriptor.size
        backoff = self._upload.backoff()
        address, done, least = began, 0, 0
        best = 0
        while True:
            try:
                if not address:
                    address, least = self._upload.begin(self._doing)
                    done = 0
                if size <= SMALL and not self._chunk:
                    self._finish(address, file, 0, size)
                    return
                while done < size:
                    address, done = self._piece(address, file, done, least)
                    if done > best:
                        best = done
                        backoff.progressed()
                self._finish(address, file, size, 0)
            except RegistryError as error:
                self._upload.check()
                if error.status == _TOO_LARGE and self._chunk == 0 and size > 1:
                    self._chunk, address = min(CHUNK, (size + 1) // 2), ""
                    continue
                if not (error.temporary or _is_lost(error)) or not backoff.wait():
                    raise
                address, done = self._resumed(address)
            else:
                return

    def _piece(self, address: str, file: BinaryIO, done: int, least: int) -> tuple[str, int]:
        """Send the next piece, and return where the upload goes on and how much of it the registry has."""
        size = self._descriptor.size
        count = size - done
        if self._chunk:
            count = min(count, max(self._chunk, min(least, _MAX_CHUNK)))
        headers = {"Content-Type": "application/octet-stream"}
        if done or count < size:
            headers["Content-Range"] = f"{done}-{done + count - 1}"
        call = self._upload.call("PATCH", address, self._doing, (202, 204, 201))
        with self._send(call, headers, file, (done, count)) as response:
            following = self._upload.follow(address, response)
            said = _RANGE.fullmatch(response.headers.get("Range", "").strip())
        if said is not None and int(said[1]) + 1 < done + count and int(said[1]) > 0:
            return following, int(said[1]) + 1  # the registry took less than it was sent
        return following, done + count

    def _finish(self, address: str, file: BinaryIO, start: int, count: int) -> None:
        separator = "&" if "?" in address else "?"
        target = f"{address}{separator}digest={quote(str(self._descriptor.digest), safe='')}"
        call = self._upload.call("PUT", target, self._doing, (201, 204))
        headers = {"Content-Type": "application/octet-stream"}
        with self._send(call, headers, file, (start, count)) as response:
            said = response.headers.get("Docker-Content-Digest", "")
        digest = self._descriptor.digest
        if said and said != str(digest) and said.partition(":")[0] == digest.algorithm:
            raise RegistryError(f"can't {self._doing}: the registry took it for {said[:80]}")

    def _send(self, call: Call, headers: dict[str, str], file: BinaryIO, part: tuple[int, int]) -> HttpResponse:
        start, count = part
        self._tell(start)
        body: bytes | BinaryIO = b""
        if count:
            file.seek(start)
            body = _Section(file, start, count, self._tell)  # type: ignore[assignment]
        return self._upload.send(
            Call(call.method, call.target, call.doing, call.scopes, headers, body, count, call.expected)
        )

    def _tell(self, sent: int) -> None:
        """Tell that so many bytes of the blob are sent."""
        if sent != self._sent:
            self._told(sent - self._sent)
            self._sent = sent

    def _resumed(self, address: str) -> tuple[str, int]:
        """Return where an upload that broke off goes on, and how much of it the registry has; "" to begin anew."""
        if not address or self._descriptor.size <= SMALL:
            return "", 0
        try:
            call = self._upload.call("GET", address, self._doing, (204, 200, 202))
            with self._upload.send(call) as response:
                said = _RANGE.fullmatch(response.headers.get("Range", "").strip())
                following = self._upload.follow(address, response)
        except RegistryError:
            self._upload.check()
            return "", 0
        # "0-0" is said both for no byte and for one.
        done = int(said[1]) + 1 if said is not None and int(said[1]) > 0 else 0
        if said is None or done > self._descriptor.size or not done:
            return "", 0
        return following, done


def _is_lost(error: RegistryError) -> bool:
    """Tell whether the registry does not know the upload any more, or counts its bytes otherwise."""
    return error.status in (404, 416) or "BLOB_UPLOAD" in error.diagnostics or "DIGEST_INVALID" in error.diagnostics


class _Section:
    """A part of a file as the body of a request."""

    def __init__(self, file: BinaryIO, start: int, count: int, told: Callable[[int], None]) -> None:
        self._file = file
        self._position = start
        self._end = start + count
        self._told = told

    def read(self, size: int = -1) -> bytes:
        """Return some of the bytes that are left."""
        left = self._end - self._position
        data = self._file.read(left if size < 0 else min(size, left))
        self._position += len(data)
        self._told(self._position)
        return data

    def tell(self) -> int:
        """Return the place in the file."""
        return self._position

    def seek(self, position: int) -> int:
        """Go to a place in the file."""
        self._file.seek(position)
        self._position = position
        return position


def chosen_sources(candidates: Iterable[str], own: str) -> tuple[str, ...]:
    """Return the repositories to mount from: each once, not the own one, and not more than are worth asking."""
    return tuple(name for name in dict.fromkeys(candidates) if name != own)[:2]
