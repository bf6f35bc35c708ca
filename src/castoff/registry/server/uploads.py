"""Uploads of blobs that have begun and not ended."""

from __future__ import annotations

import secrets
import threading
import time
from typing import TYPE_CHECKING

from castoff.registry.server.failures import RefusalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from castoff.store.blobs import BlobWriter

MAX_UPLOADS = 512
"""How many uploads may be open."""
IDLE = 3600.0
"""Seconds after which an upload that nobody goes on with is thrown away."""


class Upload:
    """One upload. Only one request at a time may work on it.

    Attributes:
        id: what its URL ends with.
        repository: where the blob goes.
        offset: how many bytes have come.
    """

    def __init__(self, repository: str, writer: BlobWriter) -> None:
        self.id = secrets.token_hex(16)
        self.repository = repository
        self.offset = 0
        self.used = time.monotonic()
        self.writer = writer
        self._busy = threading.Lock()

    def append(self, blocks: Iterator[bytes], limit: int) -> None:
        """Take bytes, as far as they come: what came before an error stays.

        Raises:
            RefusalError: they are more than the blob may have.
        """
        for block in blocks:
            if self.offset + len(block) > limit:
                raise RefusalError("SIZE_INVALID", f"a blob may have {limit} bytes at most", status=413)
            self.writer.write(block)
            self.offset += len(block)
            self.used = time.monotonic()

    def discard(self) -> None:
        """Throw away what came. Idempotent."""
        self.writer.__exit__(None, None, None)

    def working(self) -> AbstractContextManager[object]:
        """Return what is held while a request works on it.

        Raises:
            RefusalError: another request does.
        """
        if not self._busy.acquire(blocking=False):
            raise RefusalError("BLOB_UPLOAD_INVALID", "another request works on this upload", status=409)
        return _Released(self._busy)

    @property
    def is_busy(self) -> bool:
        """Whether a request works on it."""
        return self._busy.locked()


class _Released:
    """Releases a lock that is held."""

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_error: object) -> None:
        self._lock.release()


class Uploads:
    """All uploads of a registry. Safe for several threads. They end with the process, and clients begin anew."""

    def __init__(self, begin: Callable[[], BlobWriter], limit: int = MAX_UPLOADS, idle: float = IDLE) -> None:
        """Take what begins a blob, how many uploads may be open, and the seconds that one may rest."""
        self._begin = begin
        self._limit = limit
        self._idle = idle
        self._open: dict[str, Upload] = {}
        self._lock = threading.Lock()

    def begin(self, repository: str) -> Upload:
        """Begin an upload.

        Raises:
            RefusalError: too many are open.
            StoreError: the store can't be written.
        """
        with self._lock:
            self._sweep()
            if len(self._open) >= self._limit:
                raise RefusalError(
                    "TOOMANYREQUESTS", f"{self._limit} uploads are open", headers=(("Retry-After", "60"),)
                )
            upload = Upload(repository, self._begin())
            self._open[upload.id] = upload
            return upload

    def find(self, repository: str, name: str) -> Upload:
        """Return an upload.

        Raises:
            RefusalError: there is none of that name.
        """
        upload = self._open.get(name)
        if upload is None or upload.repository != repository:
            raise RefusalError("BLOB_UPLOAD_UNKNOWN", "there is no such upload")
        return upload

    def end(self, upload: Upload) -> None:
        """Forget an upload, and throw away what was not committed. Idempotent."""
        with self._lock:
            self._open.pop(upload.id, None)
        upload.discard()

    def close(self) -> None:
        """Throw all away."""
        for upload in list(self._open.values()):
            self.end(upload)

    def _sweep(self) -> None:
        past = time.monotonic() - self._idle
        for upload in [one for one in self._open.values() if one.used < past and not one.is_busy]:
            del self._open[upload.id]
            upload.discard()
