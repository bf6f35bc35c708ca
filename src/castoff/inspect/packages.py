"""Which package each file of a tree came with, by the lists that dpkg and apk keep."""

from __future__ import annotations

from typing import TYPE_CHECKING

from castoff.errors import ContextError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from castoff.fs.union import UnionTree

_DPKG = b"var/lib/dpkg/info"
_APK = b"lib/apk/db/installed"
_LIMIT = 64 << 20


def package_owners(tree: UnionTree) -> dict[bytes, str]:
    """Return the package of every path that a package manager's lists name; {} where there are none.

    Paths are those of the tree: where ``/lib`` is a link to ``/usr/lib``, what a list has under the one is found under
    the other.
    """
    owners: dict[bytes, str] = {}
    merged = {
        name: tree.resolve(name)
        for name in (b"bin", b"sbin", b"lib", b"lib32", b"lib64", b"libx32")
        if (entry := tree.lstat(name, xattrs=False)) is not None and entry.is_symlink
    }
    for package, path in (*_dpkg(tree), *_apk(tree)):
        first, slash, rest = path.partition(b"/")
        owners[merged[first] + slash + rest if first in merged else path] = package
    return owners


def _dpkg(tree: UnionTree) -> Iterator[tuple[str, bytes]]:
    if not tree.is_dir(_DPKG):
        return
    for name in tree.listdir(_DPKG):
        if not name.endswith(b".list"):
            continue
        package = name[: -len(b".list")].partition(b":")[0].decode("ascii", "replace")
        for line in _read(tree, _DPKG + b"/" + name).split(b"\n"):
            path = line.strip(b"/")
            if path and path != b".":
                yield package, path


def _apk(tree: UnionTree) -> Iterator[tuple[str, bytes]]:
    package, folder = "", b""
    for line in _read(tree, _APK).split(b"\n"):
        key, _, value = line.partition(b":")
        if key == b"P":
            package = value.decode("ascii", "replace")
        elif key == b"F":
            folder = value
        elif key == b"R" and package:
            yield package, folder + b"/" + value if folder else value


def _read(tree: UnionTree, path: bytes) -> bytes:
    """Return the content of a list; nothing where there is none, or it is no plain file."""
    entry = tree.lstat(path, xattrs=False) if tree.is_dir(path.rpartition(b"/")[0]) else None
    if entry is None or not entry.is_file or entry.size > _LIMIT:
        return b""
    try:
        with tree.open_(entry) as file:
            return file.read(_LIMIT)
    except ContextError:
        return b""
