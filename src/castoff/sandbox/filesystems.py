"""What a file system is, and whether overlayfs can have its upper directory on it."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import tempfile
from typing import TYPE_CHECKING

from castoff.linux import namespaces, syscalls

if TYPE_CHECKING:
    from collections.abc import Callable

_GOOD = ("ext4", "xfs", "btrfs", "f2fs")
"""On these it always works; others are tried."""
_OVERLAY_IN_USER_NAMESPACES = (5, 11)


def file_system(path: str) -> str:
    """Return the type of the file system that a path is on, as /proc/self/mountinfo has it; "" if it does not say."""
    path = os.path.realpath(path)
    best, kind = "", ""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                head, _, tail = line.partition(" - ")
                where = head.split(" ")[4].encode("latin-1", "replace").decode("unicode_escape")
                inside = path == where or path.startswith(where.rstrip("/") + "/")
                if inside and len(where) >= len(best):
                    best, kind = where, tail.split(" ")[0]
    except OSError:
        return ""
    return kind


def existing(path: str) -> str:
    """Return the nearest folder above a path, or itself, that exists."""
    path = os.path.abspath(path)
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def overlay_refusal(folder: str, *, userxattr: bool) -> str:
    """Return why overlayfs can't have its upper directory in a folder, which must exist; "" where it can.

    The process must have the right to mount. Nothing is left behind; what has to be tried is tried by a child.
    """
    if file_system(folder) in _GOOD and (not userxattr or kernel_version() >= _OVERLAY_IN_USER_NAMESPACES):
        return ""
    return try_overlay(folder, userxattr=userxattr)


def try_overlay(folder: str, *, userxattr: bool) -> str:
    """Mount an overlay with its upper directory in a folder, and return what went wrong; "" for nothing."""
    base = tempfile.mkdtemp(prefix=".castoff-probe-", dir=folder)
    try:
        for name in ("lower", "upper", "work", "merged"):
            os.mkdir(os.path.join(base, name))

        def attempt() -> None:
            syscalls.unshare(namespaces.CLONE_NEWNS)
            syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
            os.chdir(base)
            options = "lowerdir=lower,upperdir=upper,workdir=work" + (",userxattr" if userxattr else "")
            syscalls.mount("overlay", "merged", "overlay", 0, options)
            # Some file systems only refuse what comes next: a deletion is a device, a new directory has an attribute.
            os.mkdir("merged/new")
            with open("lower/file", "wb"):
                pass
            os.unlink("merged/file")

        return attempt_apart(attempt)
    finally:
        shutil.rmtree(base, ignore_errors=True)
        # What a user namespace made in `work` may be closed even to its owner, and empty.
        with contextlib.suppress(OSError):
            os.chmod(os.path.join(base, "work", "work"), 0o700)
        shutil.rmtree(base, ignore_errors=True)


def attempt_apart(action: Callable[[], None]) -> str:
    """Do something in a child that ends afterwards; return "" or what went wrong."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(read_end)
            action()
        except BaseException as error:  # noqa: BLE001 - a child of a fork must end here
            os.write(write_end, str(error).encode(errors="replace") or b"failed")
        finally:
            os._exit(0)
    os.close(write_end)
    try:
        said = b""
        while chunk := os.read(read_end, 4096):
            said += chunk
    finally:
        os.close(read_end)
        os.waitpid(child, 0)
    return said.decode(errors="replace")


def kernel_version() -> tuple[int, int]:
    """Return the kernel's version, (0, 0) where it can't be read."""
    major, _, rest = platform.release().partition(".")
    digits = rest.split(".")[0].split("-")[0]
    return (int(major), int(digits)) if major.isdecimal() and digits.isdecimal() else (0, 0)
