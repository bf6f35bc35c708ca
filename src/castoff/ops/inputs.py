"""What on the host decided a build, written down so that the next run can tell whether anything changed."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from castoff.context.digests import RACY_NS, Fingerprint
from castoff.errors import ContextError

_MAX_FILE = 16 << 20

if TYPE_CHECKING:
    from collections.abc import Iterable

    from castoff.context.local import LocalContext


@dataclass(frozen=True, slots=True)
class TreeInput:
    """What a build looked at in a folder.

    Attributes:
        root: host path of the folder.
        seen: paths that were looked up, with their fingerprints; None where there was nothing.
        listed: directories that were listed: their own fingerprint, those of what was used, the names of the rest.
    """

    root: str
    seen: dict[bytes, Fingerprint | None]
    listed: dict[bytes, tuple[Fingerprint, dict[bytes, Fingerprint], frozenset[bytes]]]


@dataclass(frozen=True, slots=True)
class BuildInputs:
    """All on the host that decided a build.

    Attributes:
        files: host paths of single files, with their fingerprints; None where there was none.
        trees: folders that were looked into.
        digests: sha256 digests of files and links whose time stamps are too young to be trusted, by host path.
        blobs: host paths of the blobs that make up the image.
        generation: of the store, when the build began.
    """

    files: dict[str, Fingerprint | None]
    trees: tuple[TreeInput, ...]
    digests: dict[bytes, bytes]
    blobs: tuple[str, ...]
    generation: int


@dataclass(slots=True)
class InputRecorder:
    """Collects what a build consults. Not thread-safe.

    Attributes:
        begun_ns: when the build began, in nanoseconds since the epoch.
        complete: whether everything that was consulted can be checked again.
    """

    begun_ns: int
    complete: bool = True
    _files: dict[str, Fingerprint | None] = field(default_factory=dict)
    _digests: dict[bytes, bytes] = field(default_factory=dict)

    def read(self, path: str) -> bytes | None:
        """Return the content of a file, or None where there is none, and remember that it was asked for.

        Raises:
            OSError: it is there and can't be read.
            ContextError: it is not a regular file, or larger than 16 MiB.
        """
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            self._files[path] = None
            return None
        with open(descriptor, "rb") as file:
            fingerprint = Fingerprint.of(os.fstat(descriptor))
            if not stat.S_ISREG(fingerprint.mode):
                raise ContextError(f"{path} is not a regular file")
            data = file.read(_MAX_FILE + 1)
        if len(data) > _MAX_FILE:
            raise ContextError(f"{path} has more than {_MAX_FILE >> 20} MiB")
        self._files[path] = fingerprint
        if self._is_young(fingerprint):
            self._digests[os.fsencode(path)] = hashlib.sha256(data).digest()
        return data

    def _is_young(self, fingerprint: Fingerprint) -> bool:
        return max(fingerprint.ctime_ns, fingerprint.mtime_ns) >= self.begun_ns - RACY_NS

    def finish(self, contexts: Iterable[LocalContext], blobs: Iterable[str], generation: int) -> BuildInputs | None:
        """Return everything that was consulted; None where something changed meanwhile, or can't be checked again."""
        if not self.complete:
            return None
        trees = []
        for context in contexts:
            trees.append(TreeInput(context.root, dict(context.seen), dict(context.listed)))
            if not self._add_young(context):
                return None
        return BuildInputs(dict(self._files), tuple(trees), self._digests, tuple(blobs), generation)

    def _add_young(self, context: LocalContext) -> bool:
        root = os.fsencode(context.root)
        rows = [(path, mark) for path, mark in context.seen.items() if mark is not None]
        for folder, (_own, used, _rest) in context.listed.items():
            prefix = folder + b"/" if folder else b""
            rows += [(prefix + name, mark) for name, mark in used.items()]
        for path, mark in rows:
            if not self._is_young(mark) or stat.S_ISDIR(mark.mode):
                continue
            host = root + b"/" + path
            if stat.S_ISLNK(mark.mode):
                try:
                    self._digests[host] = hashlib.sha256(os.readlink(host)).digest()
                except OSError:
                    return False
            elif stat.S_ISREG(mark.mode):
                digest = context.known_digest(path)
                if digest is None:
                    return False
                self._digests[host] = digest
        return True
