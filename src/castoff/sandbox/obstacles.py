"""Why the kernel refuses namespaces here, and what to do about it: one decisive fact and one remedy."""

from __future__ import annotations

import errno
import os
from typing import NamedTuple

CAP_CHOWN = 0
CAP_DAC_OVERRIDE = 1
CAP_FOWNER = 3
CAP_SETGID = 6
CAP_SETUID = 7
CAP_SYS_CHROOT = 18
CAP_SYS_ADMIN = 21

_NAMES = {
    CAP_CHOWN: "CAP_CHOWN",
    CAP_DAC_OVERRIDE: "CAP_DAC_OVERRIDE",
    CAP_FOWNER: "CAP_FOWNER",
    CAP_SETGID: "CAP_SETGID",
    CAP_SETUID: "CAP_SETUID",
    CAP_SYS_CHROOT: "CAP_SYS_CHROOT",
    CAP_SYS_ADMIN: "CAP_SYS_ADMIN",
}
_FILTERED = "2"  # "Seccomp:" in /proc/self/status

SECCOMP_REMEDY = (
    "in a pod: securityContext.seccompProfile.type: Unconfined (docker run --security-opt seccomp=unconfined), or a"
    " profile that also allows clone, unshare, setns, mount, umount2, pivot_root and the fsopen family"
)
APPARMOR_REMEDY = (
    "in a pod: securityContext.appArmorProfile.type: Unconfined (docker run --security-opt apparmor=unconfined)"
)


class Obstacle(NamedTuple):
    """What stands in the way, and what to do about it."""

    fact: str
    remedy: str


def read_setting(path: str) -> str:
    """Return a setting below /proc/sys, or another short file; "" where the kernel has none of that name."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().strip(" \n\0")
    except OSError:
        return ""


def status_field(name: str) -> str:
    """Return a field of /proc/self/status, such as ``Seccomp``; "" where there is none."""
    for line in read_setting("/proc/self/status").splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return value.strip()
    return ""


def has_capabilities(*numbers: int) -> bool:
    """Tell whether this process has all of these capabilities in its effective set."""
    return not missing_capabilities(*numbers)


def missing_capabilities(*numbers: int) -> list[str]:
    """Return the names of those of these capabilities that this process lacks."""
    effective = int(status_field("CapEff") or "0", 16)
    return [_NAMES[number] for number in numbers if not effective >> number & 1]


def is_filtered() -> bool:
    """Tell whether a system call filter was put on this process, as container runtimes do."""
    return status_field("Seccomp") == _FILTERED


def has_no_new_privileges() -> bool:
    """Tell whether set-user-ID programs give this process nothing (no_new_privs)."""
    return status_field("NoNewPrivs") == "1"


def apparmor_profile() -> str:
    """Return the name of the AppArmor profile in force; "" for none."""
    label = read_setting("/proc/self/attr/apparmor/current") or read_setting("/proc/self/attr/current")
    name = label.partition(" ")[0]
    return "" if name in ("unconfined", "kernel") or ":" in name else name


def namespace_obstacle(code: int) -> Obstacle:
    """Return what refuses a user namespace, by the errno that the kernel gave and what its settings say."""
    refusal = os.strerror(code)
    if read_setting("/proc/sys/kernel/unprivileged_userns_clone") == "0" and os.geteuid() != 0:
        return Obstacle("kernel.unprivileged_userns_clone is 0", "sudo sysctl kernel.unprivileged_userns_clone=1")
    if read_setting("/proc/sys/user/max_user_namespaces") == "0":
        return Obstacle("user.max_user_namespaces is 0", "sudo sysctl user.max_user_namespaces=15000")
    if code == errno.ENOSPC:
        return Obstacle(
            "there are too many user namespaces, or they are nested too deep",
            "sudo sysctl user.max_user_namespaces=15000, or start castoff in fewer containers within one another",
        )
    if code in (errno.EPERM, errno.ENOSYS) and is_filtered():
        return Obstacle(f"a seccomp filter refuses namespaces ({refusal})", SECCOMP_REMEDY)
    profile = apparmor_profile()
    restricted = read_setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1"
    if restricted and (not profile or profile == "unprivileged_userns"):
        return Obstacle(
            "kernel.apparmor_restrict_unprivileged_userns is 1",
            "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0, "
            "or give this Python an AppArmor profile with the rule `userns,`",
        )
    if profile:
        return Obstacle(f"the AppArmor profile {profile} is in force ({refusal})", APPARMOR_REMEDY)
    return Obstacle(
        f"user namespaces can't be made ({refusal})",
        "a container or a security module forbids them: start castoff outside of it, or as root",
    )


def mount_obstacle(code: int) -> Obstacle:
    """Return what keeps root from making mount namespaces and mounting in them."""
    if not has_capabilities(CAP_SYS_ADMIN):
        return Obstacle("root without CAP_SYS_ADMIN", "")
    profile = apparmor_profile()
    if profile:
        return Obstacle(f"the AppArmor profile {profile} refuses mounts ({os.strerror(code)})", APPARMOR_REMEDY)
    if is_filtered():
        return Obstacle(f"a seccomp filter refuses mounts ({os.strerror(code)})", SECCOMP_REMEDY)
    return Obstacle(f"root can't mount here ({os.strerror(code)})", "a security module forbids it")
