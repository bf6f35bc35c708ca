"""Downloading a blob: verified on the way, and taken up where it broke off.

References: OCI distribution specification, "Pulling blobs"; RFC 9110, section 14 (range requests).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from castoff.errors import DigestMismatchError, RegistryError
from castoff.registry.backoff import Backoff
from castoff.registry.host import Call
from castoff.registry.transport import CanceledTransferError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from castoff.oci.descriptor import Descriptor
    from castoff.registry.host import RegistryHost
    from castoff.registry.transport import HttpResponse
    from castoff.store.blobs import BlobStore, BlobWriter

_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")
_COPIES = 2
"""How often a blob is fetched whole before its bytes are called wrong."""


class BlobDownload:
    """Fetches one blob from one server into a store."""

    def __init__(self, host: RegistryHost, call: Call, descriptor: Descriptor, moved: Callable[[int], None]) -> None:
        """Take the server, the request for the blob, what it must be, and what is told of the bytes that are there.

        `moved` is called with the number of bytes that came since the last call; a negative number takes back what
        has to be fetched anew.
        """
        self._host = host
        self._call = call
        self._descriptor = descriptor
        self._moved = moved

    def into(self, blobs: BlobStore) -> None:
        """Fetch the blob, unless the store has it. Atomic, idempotent.

        Raises:
            RegistryError: it can't be had, or is not what its digest and size promise.
            StoreError: the store can't be written.
        """
        wanted = self._descriptor
        if blobs.size(wanted.digest) == wanted.size:
            self._moved(wanted.size)
            return
        for copy in range(_COPIES):
            try:
                with blobs.writer() as writer:
                    self._fill(writer)
                    writer.commit(wanted.digest)
            except DigestMismatchError as error:
                self._moved(-wanted.size)
                if copy < _COPIES - 1:
                    continue  # damaged on the way, perhaps
                raise RegistryError(
                    f"can't {self._call.doing}: the bytes that came have the digest {error.actual}",
                    hint="they were damaged on the way, or the registry is not to be trusted",
                ) from error
            else:
                return

    def _fill(self, writer: BlobWriter) -> None:
        """Write the blob's bytes, all of them, however often the connection breaks off."""
        size, done = self._descriptor.size, 0
        backoff = Backoff(self._host.policy)
        while True:
            try:
                with self._open(done) as response:
                    for piece in self._pieces(response, done):
                        self._check(done + len(piece))
                        writer.write(piece)
                        done += len(piece)
                        self._moved(len(piece))
                        backoff.progressed()
                if done == size:
                    return
                failure = RegistryError(f"can't {self._call.doing}: it broke off after {done} of {size} bytes")
            except RegistryError as error:
                if not error.temporary:
                    raise
                failure = error
            if not backoff.wait():
                self._check(0)
                raise failure

    def _check(self, count: int) -> None:
        """Raise where the caller gave up, or where more bytes came than there may be."""
        size = self._descriptor.size
        if self._host.policy.canceled.is_set():
            raise CanceledTransferError("the transfers were given up")
        if count > size:
            raise RegistryError(f"can't {self._call.doing}: it has more than the {size} bytes it should")

    def _open(self, offset: int) -> HttpResponse:
        call = self._call
        if not offset:
            return self._host.send(call)
        headers = {**call.headers, "Range": f"bytes={offset}-"}
        ranged = Call(call.method, call.target, call.doing, call.scopes, headers, expected=(200, 206))
        return self._host.send(ranged)

    def _pieces(self, response: HttpResponse, offset: int) -> Iterator[bytes]:
        """Yield the bytes from an offset on, whether or not the server begins there."""
        skip = 0
        if response.status == 206:
            found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
            if found is None or int(found[1]) != offset or found[3] not in ("*", str(self._descriptor.size)):
                raise RegistryError(f"can't {self._call.doing}: the registry gave another part of it than asked for")
        else:
            skip = offset
        for piece in response:
            if skip >= len(piece):
                skip -= len(piece)
                continue
            yield piece[skip:] if skip else piece
            skip = 0
