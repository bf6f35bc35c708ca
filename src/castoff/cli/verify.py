"""Tells whether anything that decided a recorded build has changed. Part of the fast path: it must stay light.

A record is a dict that `marshal` can hold; `castoff.cli.noop` writes it. Everything that the recorded build looked at
is looked at again: a file counts as unchanged if device, inode, mode, size, modification and change time are the same,
and if it was changed shortly before it was read, when its time stamps can't be trusted, if its digest is the same too.
"""

from __future__ import annotations

import marshal
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

FORMAT = 3
"""The version of the record's format."""
FOLDER = "noop"
_BLOCK = 1 << 20


def sha256(data: bytes) -> Any:
    """Return a hash object, from the lightest module that has one."""
    try:
        from _sha2 import sha256 as new  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        try:
            from _sha256 import sha256 as new  # type: ignore[import-not-found,unused-ignore,no-redef]
        except ImportError:
            from hashlib import sha256 as new
    return new(data)


def record_path(store: str, arguments: list[str]) -> str:
    """Return where the record of a command line, given in the current folder, is kept in a store.

    Raises:
        OSError: the current folder is gone.
    """
    name = sha256(marshal.dumps((os.getcwd(), arguments), 2)).hexdigest()[:40]
    return f"{store}/cache/{FOLDER}/{name}"


def code_mark() -> tuple[str, int]:
    """Return what tells one installed castoff from another."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return package, os.stat(package + "/builder.py").st_mtime_ns


def load(store: str, arguments: list[str], environ: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the record of a command line if nothing has changed since; None where the build must be done."""
    try:
        path = record_path(store, arguments)
        with open(path, "rb") as file:
            record: dict[str, Any] = marshal.loads(file.read())  # noqa: S302  (the store's own file)
        if record["format"] != FORMAT or record["code"] != code_mark() or record["uid"] != os.getuid():
            return None
        if any(environ.get(name) != value for name, value in record["environ"]):
            return None
        if not _holds(store, record):
            return None
        if record["digests"]:
            _renew(path, record)
    except (OSError, ValueError, EOFError, KeyError, TypeError):
        return None
    return record


def _holds(store: str, record: dict[str, Any]) -> bool:
    if record["generation"] != _generation(store):
        return False
    for blob, size in record["blobs"]:
        if os.stat(blob).st_size != size:
            return False
    for path, mark in record["files"]:
        if _mark(path, os.stat) != mark:
            return False
    for root, seen, listed in record["trees"]:
        for path, mark in seen:
            if _mark(root + b"/" + (path or b".")) != mark:  # "/." follows a link to the folder itself
                return False
        for path, own, used, rest in listed:
            if not _same_directory(root + b"/" + (path or b"."), own, used, rest):
                return False
    return all(_digest(path) == digest for path, digest in record["digests"])


def _generation(store: str) -> int:
    try:
        with open(store + "/generation", "rb", buffering=0) as file:
            return int(file.read(32) or b"0")
    except FileNotFoundError:
        return 0


def _mark(path: str | bytes, look: Callable[[str | bytes], os.stat_result] = os.lstat) -> tuple[int, ...] | None:
    try:
        status = look(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return (
        status.st_dev,
        status.st_ino,
        status.st_mode,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def _same_directory(path: bytes, own: tuple[int, ...], used: dict[bytes, tuple[int, ...]], rest: set[bytes]) -> bool:
    if _mark(path) != own:
        return False
    left = len(used) + len(rest)
    with os.scandir(path) as entries:
        for entry in entries:
            left -= 1
            name = entry.name
            mark = used.get(name)
            if mark is None:
                if name not in rest:
                    return False
                continue
            status = entry.stat(follow_symlinks=False)
            if (
                status.st_ino != mark[1]
                or status.st_ctime_ns != mark[5]
                or status.st_mtime_ns != mark[4]
                or status.st_size != mark[3]
                or status.st_mode != mark[2]
                or status.st_dev != mark[0]
            ):
                return False
    return left == 0


def _digest(path: bytes) -> bytes:
    """Return the digest of a file's content, or of a link's target."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        value: bytes = sha256(os.readlink(path)).digest()
        return value
    try:
        digest = sha256(b"")
        while data := os.read(descriptor, _BLOCK):
            digest.update(data)
        value = digest.digest()
    finally:
        os.close(descriptor)
    return value


def _renew(path: str, record: dict[str, Any]) -> None:
    """Write the record again without the digests that were just found to hold, once their files are old enough.

    A file that is written to between this reading and a tick of the kernel's clock would go unseen, so that only
    digests of files which have not changed for a while are dropped.
    """
    import time

    limit = time.time_ns() - record["young"]
    young = []
    for host, digest in record["digests"]:
        status = os.lstat(host)
        if max(status.st_ctime_ns, status.st_mtime_ns) >= limit:
            young.append((host, digest))
    if len(young) == len(record["digests"]):
        return
    temporary = f"{path}.{os.getpid()}"
    try:
        with open(temporary, "wb") as file:
            file.write(marshal.dumps({**record, "digests": young}))
        os.rename(temporary, path)
    except OSError:
        return
