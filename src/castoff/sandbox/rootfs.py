"""Builds the root file system of a sandbox, in the child that the fork server cloned.

Runs with new namespaces and ends with the new root as the only one that can be reached. Everything of the host that
is to be visible inside is opened as a detached mount first; only after pivot_root is it attached, so that a symlink in
the image, wherever it points, is resolved within the image.

Imports little, and nothing once the root is the image's: see `castoff.sandbox.zygote`.
"""

from __future__ import annotations

import errno
import os
import stat

from castoff.linux import syscalls
from castoff.linux.syscalls import MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, MS_REC, MS_REMOUNT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from castoff.sandbox.targets import TargetMaker

_LOCKED_DOWN = MS_NOSUID | MS_NODEV | MS_NOEXEC
_OVERLAY_OPTIONS = "redirect_dir=nofollow,metacopy=off,index=off"
"""What the layer writer understands, whatever the kernel's defaults; always so with userxattr, where it is refused."""

_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_LINKS = (
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
)
_MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/kpagecgroup",
    "/proc/kpagecount",
    "/proc/kpageflags",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
_SHM = "/dev/shm"  # noqa: S108 - a mount point
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


class RootBuilder:
    """Mounts one sandbox's root.

    Attributes:
        step: what is being done, for a message should it fail.
    """

    def __init__(self, request: dict[str, Any], rootless: bool, maker: TargetMaker) -> None:
        """Take a request of `castoff.sandbox.wire` and the maker of missing mount points."""
        self.step = "mount"
        self._request = request
        self._rootless = rootless
        self._maker = maker

    def build(self) -> None:
        """Make the root and enter it. The working directory must be the fork server's folder of links.

        Raises:
            OSError: a mount failed; `step` says which.
        """
        request = self._request
        self.step = "mount propagation"
        syscalls.mount(None, "/", None, MS_REC | syscalls.MS_PRIVATE)
        self._mount_overlay()
        sources = self._open_sources()
        self.step = "pivot_root"
        os.chdir("../root")
        syscalls.pivot_root(".", ".")
        syscalls.umount(".", syscalls.MNT_DETACH)
        os.chdir("/")
        proc = sources.pop("/proc")
        self._mount_dev(sources)
        self.step = "mount /sys"
        self._attach(sources.pop("/sys"), "/sys", is_folder=True)
        for path in ("/etc/resolv.conf", "/etc/hosts", "/etc/hostname"):
            self.step = f"mount {path}"
            self._attach(sources.pop(path), path, is_folder=False)
        self._mount_further(sources)
        # Last: by its magic links a symbolic link of the image would lead a mount out of the root.
        self._attach_proc(proc)
        if not request["privileged"]:
            self._mask()
        if request["readonly"]:
            self.step = "read-only root"
            syscalls.mount(None, "/", None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NODEV)

    def _mount_overlay(self) -> None:
        """Mount the union, by short links, since the options must fit into one page of memory."""
        request = self._request
        self.step = "mount overlay"
        options = "lowerdir=" + ":".join(request["lower_links"])
        options += ",upperdir={},workdir={}".format(*request["upper_links"])
        options += ",userxattr" if request["userxattr"] else "," + _OVERLAY_OPTIONS
        flags = 0 if self._rootless or request["privileged"] else MS_NODEV
        try:
            syscalls.mount("overlay", "../root", "overlay", flags, options + ",volatile")
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # Kernels before 5.10 and some file systems don't know `volatile`.
            syscalls.mount("overlay", "../root", "overlay", flags, options)

    def _open_sources(self) -> dict[str, int]:
        """Open what comes from the host as detached mounts: path inside (or position in `mounts`) → descriptor."""
        request = self._request
        trees: dict[str, int] = {}
        for path, name in request["files"].items():
            self.step = f"open {path}"
            trees[path] = self._open_tree("../files/" + name, read_only=True)
        read_only = not request["privileged"]
        self.step = "mount /proc"
        trees["/proc"] = self._new_file_system("proc", read_only=False)
        self.step = "mount /sys"
        if self._rootless and request["network"] == "host":
            # sysfs shows a network namespace and may be mounted by its owner only.
            trees["/sys"] = self._open_tree("/sys", read_only=read_only, no_exec=True)
        else:
            trees["/sys"] = self._new_file_system("sysfs", read_only=read_only)
        for name in _DEVICES:
            self.step = f"open /dev/{name}"
            # Devices can be written to all the same, but their owners and modes, which are the host's, stay.
            trees["/dev/" + name] = self._open_tree("/dev/" + name, read_only=True, device=True)
        if request["terminal"]:
            self.step = "open the terminal"
            trees["/dev/console"] = self._open_tree(os.ttyname(0), read_only=True, device=True)
        for index, (kind, target, source, read_only, _, _, more) in enumerate(request["mounts"]):
            if kind == "overlay":
                self.step = f"open {os.fsdecode(source) or '/'} (to be mounted on {os.fsdecode(target)})"
                trees[str(index)] = self._open_union(source, read_only, *more)
            if kind == "bind":
                self.step = f"open {os.fsdecode(source)} (to be mounted on {os.fsdecode(target)})"
                device = stat.S_IFMT(os.stat(source).st_mode) in (stat.S_IFCHR, stat.S_IFBLK)
                trees[str(index)] = self._open_tree(source, read_only=read_only, device=device)
        return trees

    def _open_union(
        self, source: bytes, read_only: bool, lowers: list[str], pair: tuple[str, str] | None, userxattr: bool
    ) -> int:
        """Return a detached mount of a path within a union, links in the path followed within that union only."""
        options = "lowerdir=" + ":".join(lowers)
        if pair is not None:
            options += ",upperdir={},workdir={}".format(*pair)
        options += ",userxattr" if userxattr else "," + _OVERLAY_OPTIONS
        flags = 0 if self._rootless or self._request["privileged"] else MS_NODEV
        syscalls.mount("overlay", "../merged", "overlay", flags, options)
        try:
            root = os.open("../merged", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                path = source.strip(b"/") or b"."
                inner = syscalls.openat2(root, path, os.O_PATH | os.O_CLOEXEC, 0, syscalls.RESOLVE_IN_ROOT)
            finally:
                os.close(root)
            try:
                return self._open_tree(f"/proc/self/fd/{inner}", read_only=read_only)
            finally:
                os.close(inner)
        finally:
            syscalls.umount("../merged", syscalls.MNT_DETACH)

    @staticmethod
    def _open_tree(path: str | bytes, *, read_only: bool = False, device: bool = False, no_exec: bool = False) -> int:
        tree = syscalls.open_tree(
            syscalls.AT_FDCWD,
            path,
            syscalls.OPEN_TREE_CLONE | syscalls.OPEN_TREE_CLOEXEC | syscalls.AT_RECURSIVE,
        )
        attributes = 0 if device else syscalls.MOUNT_ATTR_NODEV
        attributes |= syscalls.MOUNT_ATTR_RDONLY if read_only else 0
        attributes |= syscalls.MOUNT_ATTR_NOEXEC | syscalls.MOUNT_ATTR_NOSUID if no_exec else 0
        if attributes:
            syscalls.mount_setattr(tree, b"", syscalls.AT_EMPTY_PATH | syscalls.AT_RECURSIVE, (attributes, 0))
        return tree

    @staticmethod
    def _new_file_system(fstype: str, *, read_only: bool) -> int:
        """Mount, detached, a file system that a user namespace may mount only while it sees the host's."""
        context = syscalls.fsopen(fstype)
        try:
            syscalls.fsconfig(context, syscalls.FSCONFIG_SET_STRING, "source", fstype)
            syscalls.fsconfig(context, syscalls.FSCONFIG_CMD_CREATE)
            attributes = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV | syscalls.MOUNT_ATTR_NOEXEC
            return syscalls.fsmount(context, attributes | (syscalls.MOUNT_ATTR_RDONLY if read_only else 0))
        finally:
            os.close(context)

    def _attach(self, tree: int, target: str | bytes, *, is_folder: bool) -> None:
        self._maker.ensure(target, is_folder)
        syscalls.move_mount(tree, target)
        os.close(tree)

    def _attach_proc(self, tree: int) -> None:
        self.step = "mount /proc"
        self._attach(tree, "/proc", is_folder=True)
        if self._request["network"] == "private" and not self._request["netns"]:
            with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", "wb", buffering=0) as file:
                file.write(b"0")

    def _mount_dev(self, sources: dict[str, int]) -> None:
        self.step = "mount /dev"
        self._maker.ensure("/dev", True)
        # A step of real root may make device nodes, and use none of its making, here as anywhere else: those below are
        # mounts of the host's.
        flags = MS_NOSUID if self._request["privileged"] else MS_NOSUID | MS_NODEV
        syscalls.mount("tmpfs", "/dev", "tmpfs", flags, "mode=755,size=65536k")
        for name in _DEVICES:
            self.step = f"make /dev/{name}"
            path = "/dev/" + name
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o666))
            tree = sources.pop(path)
            syscalls.move_mount(tree, path)
            os.close(tree)
        for name, target in _LINKS:
            os.symlink(target, "/dev/" + name)
        self.step = "mount /dev/pts"
        os.mkdir("/dev/pts", 0o755)
        options = "newinstance,ptmxmode=0666,mode=0620"
        try:
            syscalls.mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, options + ",gid=5")
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # The group of terminals is not mapped in this user namespace.
            syscalls.mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, options)
        self.step = "mount /dev/shm"
        os.mkdir(_SHM, 0o755)
        syscalls.mount("shm", _SHM, "tmpfs", _LOCKED_DOWN, f"mode=1777,size={self._request['shm_size']}")
        self.step = "mount /dev/mqueue"
        os.mkdir("/dev/mqueue", 0o755)
        syscalls.mount("mqueue", "/dev/mqueue", "mqueue", _LOCKED_DOWN)
        console = sources.pop("/dev/console", None)
        if console is not None:
            # The terminal is of the host's devpts; under this name programs find out what it is called.
            self.step = "mount /dev/console"
            os.close(os.open("/dev/console", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            syscalls.move_mount(console, "/dev/console")
            os.close(console)

    def _mount_further(self, sources: dict[str, int]) -> None:
        for index, (kind, target, _, read_only, size, mode, _) in enumerate(self._request["mounts"]):
            self.step = f"mount {os.fsdecode(target)}"
            if kind != "tmpfs":
                tree = sources.pop(str(index))
                self._attach(tree, target, is_folder=stat.S_ISDIR(os.fstat(tree).st_mode))
                continue
            self._maker.ensure(target, True)
            options = f"mode={0o1777 if mode is None else mode:o}"
            if size is not None:
                options += f",size={size}"
            flags = MS_NOSUID | MS_NODEV | (MS_RDONLY if read_only else 0)
            syscalls.mount("tmpfs", target, "tmpfs", flags, options)

    def _mask(self) -> None:
        """Hide what would tell of, or change, the host; the same paths as Docker, and the states of memory."""
        for path in _READ_ONLY:
            self.step = f"protect {path}"
            try:
                syscalls.mount(path, path, None, MS_BIND | MS_REC)
            except OSError as error:
                if error.errno == errno.ENOENT:
                    continue
                raise
            syscalls.mount(None, path, None, MS_REMOUNT | MS_BIND | MS_RDONLY | _LOCKED_DOWN)
        for path in _MASKED:
            self.step = f"mask {path}"
            try:
                syscalls.mount("/dev/null", path, None, MS_BIND)
            except OSError as error:
                if error.errno == errno.ENOENT:
                    continue
                if error.errno != errno.ENOTDIR:
                    raise
                syscalls.mount("tmpfs", path, "tmpfs", MS_RDONLY | _LOCKED_DOWN, "size=0k,nr_inodes=2")
