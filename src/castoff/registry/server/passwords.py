"""Basic authentication against a file as Apache's ``htpasswd -B`` writes it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets
import threading
from typing import TYPE_CHECKING

from castoff.errors import ContextError, UnsupportedError

if TYPE_CHECKING:
    from types import ModuleType

_BCRYPT = re.compile(rb"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}")
_MAX_COST = 16
_MAX_FILE = 1 << 20
_MAX_HEADER = 8 << 10
_REMEMBERED = 1024
_BCRYPT_BYTES = 72
"""Bytes of a password that bcrypt looks at; htpasswd cuts longer ones too."""


class PasswordFile:
    """The users of a registry. The file is read again when it has changed. Safe for several threads.

    A password that was right is remembered as a keyed hash, in memory, so that bcrypt is asked once and not at each
    request. Whether a user exists can't be told from the time that a refusal takes.
    """

    def __init__(self, path: str) -> None:
        """Read a file.

        Raises:
            ContextError: it can't be read, has no user, or has a line that is not ``NAME:$2y$…``.
            UnsupportedError: bcrypt is not installed.
        """
        self._path = path
        self._bcrypt = _load_bcrypt()
        self._key = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._known: set[bytes] = set()
        self._stamp = self._look()
        self._users = self._read()

    def allows(self, header: str) -> bool:
        """Tell whether an Authorization header has the name and the password of a user."""
        scheme, _, value = header.partition(" ")
        if scheme.lower() != "basic" or len(value) > _MAX_HEADER:
            return False
        try:
            name, colon, password = base64.b64decode(value.strip(), validate=True).partition(b":")
        except ValueError:
            return False
        if not colon:
            return False
        with self._lock:  # one at a time: guessing can't take all processors
            self._refresh()
            known = self._users.get(name)
            mark = hmac.digest(self._key, b"\0".join((name, known or b"", password)), hashlib.sha256)
            if known is not None and mark in self._known:
                return True
            if not self._matches(password, known or next(iter(self._users.values()))) or known is None:
                return False
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known.add(mark)
            return True

    def _matches(self, password: bytes, known: bytes) -> bool:
        try:
            return bool(self._bcrypt.checkpw(password[:_BCRYPT_BYTES], known))
        except ValueError:
            return False

    def _look(self) -> tuple[int, ...]:
        try:
            status = os.stat(self._path)
        except OSError:
            return ()
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns

    def _refresh(self) -> None:
        """Read the file again where it has changed; one that can't be read leaves the users as they were."""
        stamp = self._look()
        if stamp and stamp != self._stamp:
            try:
                self._users = self._read()
            except ContextError:
                return
            self._stamp = stamp
            self._known.clear()

    def _read(self) -> dict[bytes, bytes]:
        try:
            with open(self._path, "rb") as file:
                data = file.read(_MAX_FILE + 1)
        except OSError as error:
            raise ContextError(f"the password file {self._path} can't be read: {error.strerror}") from error
        if len(data) > _MAX_FILE:
            raise ContextError(f"the password file {self._path} has more than {_MAX_FILE} bytes")
        users: dict[bytes, bytes] = {}
        for number, line in enumerate(map(bytes.strip, data.splitlines()), 1):
            if not line or line.startswith(b"#"):
                continue
            name, colon, value = line.partition(b":")
            match = _BCRYPT.fullmatch(value)
            if not name or not colon or match is None or int(match[1]) > _MAX_COST:
                raise ContextError(
                    f"line {number} of the password file {self._path} is no name with a bcrypt hash",
                    hint="write it with htpasswd -B",
                )
            users[name] = value
        if not users:
            raise ContextError(f"the password file {self._path} has no user", hint="write one with htpasswd -B")
        return users


def _load_bcrypt() -> ModuleType:
    try:
        import bcrypt
    except ImportError as error:
        raise UnsupportedError(
            "passwords can't be checked without the Python package bcrypt",
            feature="checking passwords",
            hint="pip install bcrypt",
        ) from error
    return bcrypt
