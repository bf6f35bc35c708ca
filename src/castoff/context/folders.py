"""Directories below a host folder, opened so that no path ever leads out of it, whatever is changed meanwhile."""

from __future__ import annotations

import os
from collections import OrderedDict

_FLAGS = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PATH = getattr(os, "O_PATH", os.O_RDONLY)
_KEPT = 16


class ConfinedFolders:
    """The directories of one host folder, by relative path. A few stay open. Not thread-safe.

    Each is opened from its parent's descriptor and never through a symbolic link: a directory that is swapped for a
    link while it is being read is an error, and what the link leads to is not looked at.
    """

    def __init__(self, root: bytes) -> None:
        """Take the host path of the folder, which may itself lead through links."""
        self._root = root
        self._open: OrderedDict[bytes, int] = OrderedDict()

    def descriptor(self, path: bytes) -> int:
        """Return a descriptor of a directory for looking names up; it stays the property of this object.

        Raises:
            OSError: there is no directory at that path, or a link is on the way.
        """
        known = self._open.get(path)
        if known is not None:
            self._open.move_to_end(path)
            return known
        missing: list[bytes] = []
        here = path
        while here and here not in self._open:
            here, _, name = here.rpartition(b"/")
            missing.append(name)
        descriptor = self._open.get(here)
        if descriptor is None:
            descriptor = self._add(b"", os.open(self._root, _PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        for name in reversed(missing):
            here = here + b"/" + name if here else name
            descriptor = self._add(here, os.open(name, _PATH | _FLAGS, dir_fd=descriptor))
        return descriptor

    def _add(self, path: bytes, descriptor: int) -> int:
        self._open[path] = descriptor
        while len(self._open) > _KEPT:
            # The new one is last: it is never the one that is closed.
            os.close(self._open.popitem(last=False)[1])
        return descriptor

    def listing(self, path: bytes) -> int:
        """Return a descriptor of a directory for reading its names, which the caller closes.

        Raises:
            OSError: it can't be opened or read.
        """
        return os.open(b".", os.O_RDONLY | _FLAGS, dir_fd=self.descriptor(path))

    def close(self) -> None:
        """Close all that is open. Idempotent; the object can be used again."""
        while self._open:
            os.close(self._open.popitem()[1])
