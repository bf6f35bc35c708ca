"""What this machine offers for sandboxes, as facts; ``castoff doctor`` prints them."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass

from castoff.errors import CastoffError
from castoff.linux import seccomp, syscalls
from castoff.sandbox.filesystems import attempt_apart, existing, file_system, kernel_version, try_overlay
from castoff.sandbox.obstacles import is_filtered
from castoff.sandbox.userns import enter_user_namespace

_MIN_KERNEL = (5, 12)
_TMPFS_XATTR_KERNEL = (6, 6)
_WHAT = {
    "root": "root, who can mount",
    "subuid": "root of a user namespace with a range of ids",
    "single": "root of a user namespace with one id",
    "chroot": "root without namespaces",
}


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


@dataclass(frozen=True, slots=True)
class Standing:
    """Which tier a build would be in here, and why.

    Attributes:
        tier: its name.
        facts: what decided it, best tier first, and what was found of the store in it.
    """

    tier: str
    facts: tuple[Fact, ...]


def probe(store: str, mode: str = "") -> tuple[str, list[Fact]]:
    """Find out what this machine offers, and return the name of the tier in force with the facts.

    Nothing is left behind; what has to be tried is tried in a process of its own.

    Args:
        store: the store's folder, or the one that it would be made in; it need not exist.
        mode: the tier that was asked for (CASTOFF_USERNS); "" for the best.

    Raises:
        UsageError: there is no such mode.
    """
    standing = _stand(existing(store), mode)
    facts = [_kernel(), *standing.facts, _seccomp()]
    return standing.tier, [*facts, _tmpfs_attributes(), _pasta(), _cgroups()]


def _kernel() -> Fact:
    release = platform.release()
    ok = sys.platform == "linux" and kernel_version() >= _MIN_KERNEL
    remedy = "" if ok else "RUN needs Linux 5.12 or newer; parsing, checking and pushing work without it"
    return Fact("kernel", ok, f"{platform.system()} {release} {platform.machine()}", remedy)


def _stand(folder: str, mode: str) -> Standing:
    """Enter the tier in a child, try there what depends on it, and say what came of it."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(read_end)
            with open(write_end, "w", encoding="utf-8") as pipe:
                json.dump(_try(folder, mode), pipe)
        finally:
            os._exit(0)
    os.close(write_end)
    try:
        with open(read_end, encoding="utf-8") as pipe:
            said = pipe.read()
    finally:
        os.waitpid(child, 0)
    if not said:
        return Standing("none", (Fact("tier", False, "it could not be tried"),))
    tier, facts = json.loads(said)
    return Standing(tier, tuple(Fact(*fact) for fact in facts))


def _try(folder: str, mode: str) -> tuple[str, list[tuple[str, bool, str, str, bool]]]:
    facts: list[tuple[str, bool, str, str, bool]] = []
    try:
        tier = enter_user_namespace(mode)
    except CastoffError as error:
        return "none", [("tier", False, f"none: {error.message}", error.hint or "", True)]
    told: set[str] = set()
    for name, fact, remedy in tier.refusals:
        facts.append((f"tier {name}", False, fact, "" if remedy in told else remedy, False))
        told.add(remedy)
    asked = ", as CASTOFF_USERNS says" if mode else ""
    facts.append(("tier", True, f"{tier.name}: {_WHAT[tier.name]}{asked}", "", True))
    facts.append(_changes(folder, userxattr=tier.userxattr, mounts=tier.mounts))
    if tier.mounts:
        facts.append(_proc(tier.name))
    return tier.name, facts


def _changes(folder: str, *, userxattr: bool, mounts: bool) -> tuple[str, bool, str, str, bool]:
    """Return how the store's file system can keep what steps change."""
    where = f"{folder} is on {file_system(folder) or 'an unknown file system'}"
    if not os.access(folder, os.W_OK):
        return ("overlay", False, f"{folder} can't be written", "choose another store with --root", True)
    if not mounts:
        return ("overlay", False, f"{where}; nothing can be mounted: steps work on copies", "", False)
    try:
        failure = try_overlay(folder, userxattr=userxattr)
    except OSError as error:
        return (
            "overlay",
            False,
            f"{folder} can't be written: {error.strerror}",
            "choose another store with --root",
            True,
        )
    if not failure:
        return ("overlay", True, where, "", False)
    remedy = "put the store on ext4, xfs, btrfs or tmpfs with --root: in a container, on a volume"
    if "No such device" in failure:
        remedy = "modprobe overlay"
    return ("overlay", False, f"{where}; {failure}: steps work on copies", remedy, False)


def _proc(tier: str) -> tuple[str, bool, str, str, bool]:
    """Return whether steps get a /proc of their own."""

    def attempt() -> None:
        context = syscalls.fsopen("proc")
        syscalls.fsconfig(context, syscalls.FSCONFIG_CMD_CREATE)
        syscalls.fsmount(context)

    failure = attempt_apart(attempt)
    if not failure:
        return ("proc", True, "steps have one of their own", "", False)
    remedy = "in a pod: securityContext.procMount: Unmasked (docker run --security-opt systempaths=unconfined)"
    return (
        "proc",
        False,
        "parts of it are hidden here, so that steps see that of this container",
        remedy,
        tier == "root",
    )


def _seccomp() -> Fact:
    try:
        program = seccomp.default_policy(platform.machine())
    except ValueError as error:
        return Fact("seccomp", False, str(error))

    def attempt() -> None:
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        syscalls.seccomp_set_filter(program)

    failure = attempt_apart(attempt)
    if failure:
        return Fact("seccomp", False, failure, "the kernel needs CONFIG_SECCOMP_FILTER")
    outer = ", on top of the one that is in force here" if is_filtered() else ""
    return Fact("seccomp", True, f"a policy of {len(program) // 8} instructions{outer}")


def _tmpfs_attributes() -> Fact:
    ok = kernel_version() >= _TMPFS_XATTR_KERNEL
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
