"""What this machine offers for sandboxes, as facts; ``castoff doctor`` prints them."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from castoff.errors import UnsupportedError
from castoff.linux import namespaces, seccomp, syscalls
from castoff.sandbox.userns import read_setting, subordinate_ranges, user_namespace_remedy

if TYPE_CHECKING:
    from collections.abc import Callable

_MIN_KERNEL = (5, 12)
_TMPFS_XATTR_KERNEL = (6, 6)


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that a sandbox needs or can use.

    Attributes:
        feature: its name, as `UnsupportedError.feature` gives it.
        ok: whether it is there.
        fact: what was found.
        remedy: what to do where it is not; "" if there is nothing to do.
        needed: whether RUN fails without it; else it is of use only.
    """

    feature: str
    ok: bool
    fact: str
    remedy: str = ""
    needed: bool = True


def probe(store: str) -> list[Fact]:
    """Find out what this machine offers.

    Nothing is left behind; what has to be tried is tried in a process of its own.

    Args:
        store: the store's folder, or the one that it would be made in; it need not exist.
    """
    root = os.geteuid() == 0
    facts = [_kernel()]
    if not root:
        facts += [_mapping_tools(), _subordinate_ids("/etc/subuid"), _subordinate_ids("/etc/subgid")]
    facts += [_user_namespaces(needed=not root), _overlay(_existing(store)), _seccomp()]
    return [*facts, _tmpfs_attributes(), _pasta(), _cgroups()]


def _kernel() -> Fact:
    release = platform.release()
    ok = sys.platform == "linux" and _kernel_version() >= _MIN_KERNEL
    remedy = "" if ok else "RUN needs Linux 5.12 or newer; parsing, checking and pushing work without it"
    return Fact("kernel", ok, f"{platform.system()} {release} {platform.machine()}", remedy)


def _kernel_version() -> tuple[int, int]:
    major, _, rest = platform.release().partition(".")
    digits = rest.split(".")[0].split("-")[0]
    return (int(major), int(digits)) if major.isdecimal() and digits.isdecimal() else (0, 0)


def _mapping_tools() -> Fact:
    missing = [name for name in ("newuidmap", "newgidmap") if shutil.which(name) is None]
    if missing:
        return Fact("newuidmap", False, f"{' and '.join(missing)} not found", "apt-get install uidmap")
    return Fact("newuidmap", True, shutil.which("newuidmap") or "")


def _subordinate_ids(path: str) -> Fact:
    import pwd

    feature = "subuid range" if path.endswith("subuid") else "subgid range"
    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        user = str(os.geteuid())
    try:
        ranges = subordinate_ranges(path, user)
    except UnsupportedError as error:
        return Fact(feature, False, error.message, error.hint or "")
    total = sum(one.count for one in ranges)
    shown = ", ".join(f"{one.outside}+{one.count}" for one in ranges)
    if total < 65535:
        return Fact(
            feature, False, f"{path} gives {user} {total} ids only", "images use ids up to 65534: give it 65536"
        )
    return Fact(feature, True, f"{shown} for {user} in {path}")


def _user_namespaces(*, needed: bool) -> Fact:
    def attempt() -> None:
        syscalls.unshare(namespaces.CLONE_NEWUSER | namespaces.CLONE_NEWNS)
        syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)

    failure = _attempt(attempt)
    limit = read_setting("/proc/sys/user/max_user_namespaces")
    if failure:
        return Fact("user namespaces", False, failure, user_namespace_remedy(), needed)
    return Fact("user namespaces", True, f"allowed (at most {limit or 'any number of'})", needed=needed)


def _overlay(folder: str) -> Fact:
    """Try an overlay with its upper directory on the store's file system."""
    kind = _file_system(folder)
    where = f"{folder} is on {kind}"
    try:
        base = tempfile.mkdtemp(prefix=".castoff-probe-", dir=folder)
    except OSError as error:
        return Fact(
            "overlay", False, f"{folder} can't be written: {error.strerror}", "choose another store with --root"
        )
    try:
        for name in ("lower", "upper", "work", "merged"):
            os.mkdir(os.path.join(base, name))

        def attempt() -> None:
            initial = os.geteuid() == 0 and namespaces.in_initial_user_namespace()
            _enter_for_mounts()
            os.chdir(base)
            options = "lowerdir=lower,upperdir=upper,workdir=work" + ("" if initial else ",userxattr")
            syscalls.mount("overlay", "merged", "overlay", 0, options)

        failure = _attempt(attempt)
    finally:
        shutil.rmtree(base, ignore_errors=True)
        # What a user namespace made in `work` may be closed even to its owner, and empty.
        with contextlib.suppress(OSError):
            os.chmod(os.path.join(base, "work", "work"), 0o700)
        shutil.rmtree(base, ignore_errors=True)
    if not failure:
        return Fact("overlay", True, where)
    if kind == "overlay":
        remedy = "an overlay can't stand on an overlay: put the store on a volume, or on tmpfs, with --root"
    else:
        remedy = "load overlayfs (modprobe overlay), or put the store on ext4, xfs, btrfs or tmpfs with --root"
    return Fact("overlay", False, f"{where}; {failure}", remedy)


def _enter_for_mounts() -> None:
    """Get the right to mount: as root in a mount namespace, else in a user namespace with one id."""
    if os.geteuid() == 0:
        syscalls.unshare(namespaces.CLONE_NEWNS)
    else:
        uid, gid = os.geteuid(), os.getegid()
        syscalls.unshare(namespaces.CLONE_NEWUSER | namespaces.CLONE_NEWNS)
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/self/{name}", "wb", buffering=0) as file:
                file.write(text.encode())
    syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)


def _attempt(action: Callable[[], None]) -> str:
    """Do something in a child that ends afterwards; return "" or what went wrong."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
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


def _seccomp() -> Fact:
    try:
        program = seccomp.default_policy(platform.machine())
    except ValueError as error:
        return Fact("seccomp", False, str(error))

    def attempt() -> None:
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        syscalls.seccomp_set_filter(program)

    failure = _attempt(attempt)
    if failure:
        return Fact("seccomp", False, failure, "the kernel needs CONFIG_SECCOMP_FILTER")
    return Fact("seccomp", True, f"a policy of {len(program) // 8} instructions")


def _tmpfs_attributes() -> Fact:
    ok = _kernel_version() >= _TMPFS_XATTR_KERNEL
    fact = "user attributes" if ok else "no user attributes (they came with Linux 6.6)"
    return Fact("tmpfs attributes", ok, fact, "" if ok else "keep the store on a disk", needed=False)


def _pasta() -> Fact:
    path = shutil.which("pasta")
    if path is None:
        remedy = "apt-get install passt; without it containers of castoff run reach nothing outside"
        return Fact("pasta", False, "not installed", remedy, needed=False)
    result = subprocess.run([path, "--version"], capture_output=True, check=False, stdin=subprocess.DEVNULL)
    version = (result.stdout or result.stderr).decode(errors="replace").splitlines()
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK) or (os.stat("/dev/net/tun").st_mode & 0o006) != 0o006:
        remedy = "sudo chmod 0666 /dev/net/tun; without it containers of castoff run reach nothing outside"
        return Fact("pasta", False, "/dev/net/tun is closed to ordinary users", remedy, needed=False)
    return Fact("pasta", True, f"{path} ({version[0] if version else 'unknown version'})", needed=False)


def _cgroups() -> Fact:
    if os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        return Fact("cgroups", True, "version 2", needed=False)
    if os.path.isdir("/sys/fs/cgroup"):
        return Fact("cgroups", True, "version 1 (or hybrid)", needed=False)
    return Fact("cgroups", False, "none", needed=False)


def _existing(path: str) -> str:
    path = os.path.abspath(path)
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def _file_system(folder: str) -> str:
    """Return the type of the file system that a folder is on, as /proc/self/mountinfo has it."""
    status = os.stat(folder)
    device = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                fields = line.split(" - ")
                if fields[0].split()[2] == device:
                    return fields[1].split()[0]
    except OSError:
        return "an unknown file system"
    return "an unknown file system"
