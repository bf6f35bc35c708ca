"""The fork server's own files: short links to layers, generated files of /etc, and stubs of mount points.

Imports little: see `castoff.sandbox.zygote`.
"""

from __future__ import annotations

import os
import stat

from castoff.linux import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_BASE_FOLDERS = (b"/proc", b"/sys", b"/dev")
_BASE_FILES = (b"/etc/resolv.conf", b"/etc/hosts", b"/etc/hostname")
_RESOLV_CONF = "/etc/resolv.conf"
_RESOLVED_UPSTREAM = "/run/systemd/resolve/resolv.conf"
_MAX_RESOLV_CONF = 64 << 10


class Staging:
    """Lives in one folder on the store's file system (on another one, overlayfs would number files differently).

    In it: ``mnt``, on which the server mounts a tmpfs of its own with ``links``, ``files``, ``root`` and ``merged``
    (where each sandbox mounts its unions, in its own mount namespace); ``stubs-N``; ``scratch-N``; ``empty``.
    """

    def __init__(self, folder: str) -> None:
        """Make and mount everything, and enter ``links``.

        Raises:
            OSError: the folder can't be written, or a tmpfs can't be mounted.
        """
        self._folder = folder
        self._mount = os.path.join(folder, "mnt")
        os.makedirs(self._mount, 0o755, exist_ok=True)
        syscalls.mount("tmpfs", self._mount, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=755")
        for name in ("links", "files", "root", "merged"):
            os.mkdir(os.path.join(self._mount, name))
        os.chdir(os.path.join(self._mount, "links"))
        self._links: dict[bytes, str] = {}
        self._files: dict[bytes, str] = {}
        self._stubs: dict[tuple[tuple[bytes, bool], ...], bytes] = {}
        self._scratch: dict[int, str] = {}
        self._private: dict[int, list[str]] = {}

    def prepare(self, number: int, request: dict[str, Any]) -> None:
        """Complete a request with ``lower_links``, ``upper_links`` and ``files``; may give it an upper directory.

        Raises:
            OSError: the folder can't be written.
        """
        request["mounts"] = [self._complete(number, *item) for item in enumerate(request["mounts"])]
        stubs = self._stub_folder(_wanted_stubs(request["mounts"]))
        request["lower_links"] = [self._link(path) for path in (*request["lowers"], stubs)]
        if request["upper"] is None:
            scratch = os.path.join(self._folder, f"scratch-{number}")
            self._scratch[number] = scratch
            for path in (scratch, scratch + "/upper", scratch + "/work"):
                os.mkdir(path, 0o755)
            request["upper"] = os.fsencode(scratch + "/upper")
            request["work"] = os.fsencode(scratch + "/work")
            request["readonly"] = True
        links = (f"u{number}", f"w{number}")
        os.symlink(request["upper"], links[0])
        os.symlink(request["work"], links[1])
        request["upper_links"] = links
        request["files"] = {
            "/etc/resolv.conf": self._file(_resolv_conf(private=request["network"] == "private")),
            "/etc/hosts": self._file(request["hosts"]),
            "/etc/hostname": self._file(os.fsencode(request["hostname"]) + b"\n"),
        }

    def release(self, number: int) -> None:
        """Remove what `prepare` made for one process. Idempotent."""
        for name in (f"u{number}", f"w{number}"):
            _unlink(name)
        for name in self._private.pop(number, ()):
            _unlink(name)
        scratch = self._scratch.pop(number, None)
        if scratch is not None:
            remove_tree(scratch)

    def _complete(self, number: int, index: int, mount: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return a mount as the child takes it: a file as a bind of what is written here, an overlay with links."""
        kind, target, source, read_only, size, mode, more = mount
        if kind == "file":
            content, uid, gid = more
            name = f"../files/p{number}-{index}"
            self._private.setdefault(number, []).append(name)
            descriptor = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            try:
                _write_all(descriptor, content)
                os.fchown(descriptor, uid, gid)
                os.fchmod(descriptor, 0o444 if mode is None else mode)
            finally:
                os.close(descriptor)
            return ("bind", target, os.fsencode(self._mount) + name[2:].encode(), read_only, None, None, None)
        if kind == "overlay":
            lowers, upper, work, userxattr = more
            if not lowers or (upper is None and len(lowers) == 1):
                lowers = [*lowers, self._empty_folder()]
            links = [self._link(path) for path in lowers]
            pair = None
            if upper is not None:
                pair = (f"mu{number}-{index}", f"mw{number}-{index}")
                for link, path in zip(pair, (upper, work), strict=True):
                    os.symlink(path, link)
                    self._private.setdefault(number, []).append(link)
            return (kind, target, source, read_only, size, mode, (links, pair, userxattr))
        return mount

    def _empty_folder(self) -> bytes:
        path = os.path.join(self._folder, "empty")
        os.makedirs(path, 0o755, exist_ok=True)
        return os.fsencode(path)

    def close(self) -> None:
        """Remove everything but the folder itself."""
        os.chdir("/")
        syscalls.umount(self._mount, syscalls.MNT_DETACH)
        for scratch in self._scratch.values():
            remove_tree(scratch)
        for stubs in self._stubs.values():
            remove_tree(os.fsdecode(stubs))
        remove_tree(os.path.join(self._folder, "empty"))
        remove_tree(self._mount)

    def _link(self, path: bytes) -> str:
        name = self._links.get(path)
        if name is None:
            name = self._links[path] = str(len(self._links))
            os.symlink(path, name)
        return name

    def _file(self, content: bytes) -> str:
        name = self._files.get(content)
        if name is None:
            name = str(len(self._files))
            descriptor = os.open("../files/" + name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644)
            try:
                _write_all(descriptor, content)
            finally:
                os.close(descriptor)
            self._files[content] = name
        return name

    def _stub_folder(self, wanted: tuple[tuple[bytes, bool], ...]) -> bytes:
        """Return the folder that has a stub for each path: (absolute path, whether it is a folder)."""
        folder = self._stubs.get(wanted)
        if folder is not None:
            return folder
        folder = os.fsencode(os.path.join(self._folder, f"stubs-{len(self._stubs)}"))
        os.mkdir(folder, 0o755)
        self._stubs[wanted] = folder
        for path, is_folder in wanted:
            stub = folder + path
            os.makedirs(stub if is_folder else os.path.dirname(stub), 0o755, exist_ok=True)
            if not is_folder and not os.path.lexists(stub):
                os.close(os.open(stub, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
        return folder


def _wanted_stubs(mounts: list[Any]) -> tuple[tuple[bytes, bool], ...]:
    wanted: dict[bytes, bool] = dict.fromkeys(_BASE_FOLDERS, True) | dict.fromkeys(_BASE_FILES, False)
    for kind, target, source, _, _, _, _ in mounts:
        if target.startswith((b"/dev/", b"/sys/")) or target in wanted:
            continue
        is_folder = True
        if kind == "overlay" and source.strip(b"/"):
            continue  # a file or a folder: the child finds out, and makes what is missing
        if kind == "bind":
            try:
                is_folder = stat.S_ISDIR(os.stat(source).st_mode)
            except OSError:
                continue  # the child says so, with the mount's name
        wanted[target] = is_folder
    files = [path for path, is_folder in wanted.items() if not is_folder]
    # A mount inside of a file is an error; the child finds it.
    return tuple(
        sorted(
            (path, is_folder)
            for path, is_folder in wanted.items()
            if not any(path.startswith(file + b"/") for file in files)
        )
    )


def _resolv_conf(*, private: bool) -> bytes:
    """Return the host's resolver configuration.

    In a network namespace of its own a process can't reach a resolver on the host's loopback: then the upstream
    servers of systemd-resolved are given, where it runs.
    """
    content = _read(_RESOLV_CONF)
    if not private:
        return content
    lines = content.splitlines(keepends=True)
    kept = [line for line in lines if not _names_loopback(line)]
    if len(kept) < len(lines):
        upstream = _read(_RESOLVED_UPSTREAM)
        if upstream:
            return upstream
    return b"".join(kept)


def _names_loopback(line: bytes) -> bool:
    words = line.split()
    return len(words) > 1 and words[0] == b"nameserver" and (words[1].startswith(b"127.") or words[1] == b"::1")


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_MAX_RESOLV_CONF)
    except OSError:
        return b""


def _write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        return


def remove_tree(path: str) -> None:
    """Remove a folder of the server's own; what can't be removed stays."""
    try:
        entries = list(os.scandir(path))
    except OSError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            remove_tree(entry.path)
        else:
            _unlink(entry.path)
    try:
        os.rmdir(path)
    except OSError:
        return
