"""Remembers the digests of files by what the kernel says of them, so that an unchanged file is read once."""

from __future__ import annotations

import contextlib
import hashlib
import marshal
import os
import time
from typing import NamedTuple

from castoff.errors import ContextError
from castoff.fs.entry import display

_FORMAT = 1
_BLOCK = 1 << 20

RACY_NS = 50_000_000
"""How long before a reading a change may have the same time stamp as one after it: some ticks of a kernel clock."""


class Fingerprint(NamedTuple):
    """What must be the same for a file to count as unchanged; times in nanoseconds."""

    dev: int
    ino: int
    mode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Fingerprint:
        """Return the fingerprint of a file."""
        return cls(status.st_dev, status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class DigestCache:
    """Digests of the files below one folder. A file of marshal data: lost, torn or of another version, it is empty.

    Not thread-safe.
    """

    def __init__(self, path: str | None) -> None:
        """Load the cache kept at the host path `path`; None keeps nothing."""
        self._path = path
        self._known: dict[bytes, tuple[Fingerprint, bytes]] = {}
        self._fresh: dict[bytes, tuple[Fingerprint, bytes]] = {}
        self._begun = time.time_ns()
        self.bytes_read = 0
        if path is not None:
            with contextlib.suppress(OSError, ValueError, EOFError, TypeError):
                with open(path, "rb") as file:
                    version, rows = marshal.loads(file.read())  # noqa: S302  (the store's own file)
                if version == _FORMAT:
                    self._known = {name: (Fingerprint(*stat), digest) for name, stat, digest in rows}

    def digest(self, path: bytes, source: bytes, fingerprint: Fingerprint) -> bytes:
        """Return the sha256 digest of the regular file at host path `source`, known here as `path`.

        Raises:
            ContextError: it can't be read, or is not the file that `fingerprint` describes, before or after reading.
        """
        known = self._fresh.get(path) or self._known.get(path)
        if known is not None and known[0] == fingerprint:
            self._fresh[path] = known
            return known[1]
        digest = hash_file(source, fingerprint)
        self.bytes_read += fingerprint.size
        self._fresh[path] = (fingerprint, digest)
        return digest

    def known(self, path: bytes) -> bytes | None:
        """Return the digest that was asked for since the cache was loaded; None for other paths."""
        row = self._fresh.get(path)
        return row[1] if row is not None else None

    def save(self) -> None:
        """Keep what was learnt; files that changed just now are left out, for they may change again unseen. Atomic."""
        if self._path is None or not self._fresh:
            return
        limit = self._begun - RACY_NS
        rows = [
            (path, tuple(fingerprint), digest)
            for path, (fingerprint, digest) in self._fresh.items()
            if max(fingerprint.ctime_ns, fingerprint.mtime_ns) < limit
        ]
        if len(rows) == len(self._known) and all(self._known.get(row[0]) == (row[1], row[2]) for row in rows):
            return
        temporary = f"{self._path}.{os.getpid()}"
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
            with open(temporary, "wb") as file:
                file.write(marshal.dumps((_FORMAT, rows)))
            os.rename(temporary, self._path)


def hash_file(source: bytes, fingerprint: Fingerprint) -> bytes:
    """Return the sha256 digest of a regular file.

    Raises:
        ContextError: it can't be read, or is not the file that `fingerprint` describes, before or after reading.
    """
    digest = hashlib.sha256()
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            changed = Fingerprint.of(os.fstat(descriptor)) != fingerprint
            # A small file is asked for as much as it has: the kernel's answer would not fill a large buffer anyway.
            block = min(fingerprint.size + 1, _BLOCK)
            while not changed and (data := os.read(descriptor, block)):
                digest.update(data)
            changed = changed or Fingerprint.of(os.fstat(descriptor)) != fingerprint
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ContextError(f"{display(source)} can't be read: {error.strerror}") from error
    if changed:
        raise ContextError(
            f"{display(source)} changed while it was being read", hint="build again once nothing writes to it"
        )
    return digest.digest()
