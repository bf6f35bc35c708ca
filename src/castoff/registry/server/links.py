"""Small named values, which say what a repository holds: in a folder, or in memory."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Protocol

from castoff.store.failure import translated
from castoff.store.replacement import replace_file

MAX_LINK = 1 << 16
"""The largest value, in bytes."""

_ATTEMPTS = 16


class Links(Protocol):
    """Values by path: words with slashes between them, none of them ``.`` or ``..``. Safe for several threads.

    What stands in a path is checked by the caller, who knows its grammar.
    """

    def get(self, path: str) -> bytes | None:
        """Return a value; None where there is none.

        Raises:
            StoreError: it can't be read.
        """

    def put(self, path: str, value: bytes) -> None:
        """Set a value in place of an earlier one. Atomic, idempotent.

        Raises:
            StoreError: it can't be written.
        """

    def remove(self, path: str) -> bool:
        """Remove a value and tell whether there was one. Atomic, idempotent.

        Raises:
            StoreError: it can't be removed.
        """

    def names(self, path: str) -> list[str]:
        """Return the words that come next below a path, sorted by their bytes; none where there is nothing."""


class DirectoryLinks:
    """Links as files of a folder."""

    def __init__(self, root: str) -> None:
        """Take the absolute path of an existing folder."""
        self._root = root

    def get(self, path: str) -> bytes | None:
        """Return a value; None where there is none."""
        try:
            with open(f"{self._root}/{path}", "rb", buffering=0) as file:
                return file.read(MAX_LINK)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None

    def put(self, path: str, value: bytes) -> None:
        """Set a value in place of an earlier one. Atomic, idempotent."""
        place = f"{self._root}/{path}"
        with translated("write to the registry's folder"):
            for attempt in range(_ATTEMPTS):
                try:
                    replace_file(place, value, durable=True)
                except FileNotFoundError:
                    # The folder is not there yet, or was removed because it was empty.
                    if attempt == _ATTEMPTS - 1:
                        raise
                    os.makedirs(os.path.dirname(place), 0o755, exist_ok=True)
                else:
                    break

    def remove(self, path: str) -> bool:
        """Remove a value and tell whether there was one. Atomic, idempotent."""
        with translated("remove from the registry's folder"):
            try:
                os.unlink(f"{self._root}/{path}")
            except (FileNotFoundError, NotADirectoryError):
                return False
        with contextlib.suppress(OSError):
            os.removedirs(f"{self._root}/{os.path.dirname(path)}")  # those that are empty now; the root is not
        return True

    def names(self, path: str) -> list[str]:
        """Return the words that come next below a path."""
        try:
            found = os.listdir(f"{self._root}/{path}" if path else self._root)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name for name in found if not name.startswith("."))


class MemoryLinks:
    """Links that end with the process."""

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def get(self, path: str) -> bytes | None:
        """Return a value; None where there is none."""
        return self._values.get(path)

    def put(self, path: str, value: bytes) -> None:
        """Set a value in place of an earlier one."""
        with self._lock:
            self._values[path] = value

    def remove(self, path: str) -> bool:
        """Remove a value and tell whether there was one."""
        with self._lock:
            return self._values.pop(path, None) is not None

    def names(self, path: str) -> list[str]:
        """Return the words that come next below a path."""
        inside = f"{path}/" if path else ""
        with self._lock:
            return sorted({key[len(inside) :].partition("/")[0] for key in self._values if key.startswith(inside)})
