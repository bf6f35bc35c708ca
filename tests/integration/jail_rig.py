"""Containers as other runtimes start them, for castoff to run in: by runc, on an overlay of this machine's own root.

A jail has what Docker gives to a container by default, each part of which can be taken away: capabilities, a seccomp
profile, masked parts of ``/proc``, a device whitelist, namespaces of its own. The profile of Podman is the file of its
Debian package; that of Docker, from which it descends, differs in what takes a capability, and is made from it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from engine_rig import Engine

if TYPE_CHECKING:
    from conftest import Require

PROFILE = "/usr/share/containers/seccomp.json"
DOCKER_CAPABILITIES = (
    "CAP_AUDIT_WRITE CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_FSETID CAP_KILL CAP_MKNOD CAP_NET_BIND_SERVICE"
    " CAP_NET_RAW CAP_SETFCAP CAP_SETGID CAP_SETPCAP CAP_SETUID CAP_SYS_CHROOT"
).split()
MASKED = (
    "/proc/acpi /proc/asound /proc/kcore /proc/keys /proc/latency_stats /proc/timer_list /proc/timer_stats"
    " /proc/sched_debug /proc/scsi /sys/firmware"
).split()
READ_ONLY = "/proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger".split()
DOCKER_WANTS_SYS_ADMIN = (
    "clone3 fsconfig fsmount fsopen fspick mount mount_setattr move_mount open_tree pivot_root setdomainname"
    " sethostname setns syslog umount umount2 unshare"
).split()
"""What Docker's profile gives to containers with CAP_SYS_ADMIN only; clone too, where it makes namespaces."""
DOCKER_REFUSES = (
    "get_mempolicy keyctl kexec_file_load kexec_load mbind pidfd_getfd reboot set_mempolicy timerfd vhangup".split()
)
_CLONE_NAMESPACES = 0x7E020000
_LOCKED_DOWN = ["nosuid", "noexec", "nodev"]
_MACHINE = {"x86_64": ("amd64", "SCMP_ARCH_X86_64"), "aarch64": ("arm64", "SCMP_ARCH_AARCH64")}
_START = 'mount -t overlay overlay -o "$1" "$2" && shift 2 && exec "$@"'


@dataclass(frozen=True)
class Jail:
    """What a container is to be like; the defaults are Docker's.

    Attributes:
        user: its (uid, gid).
        capabilities: those of its process, and all that it can ever get.
        seccomp: whose default profile is on: ``docker``, ``podman`` or "" for none.
        no_new_privileges: whether set-user-ID programs are disarmed.
        masked: whether parts of /proc are masked and read-only.
        read_only: whether its root file system is.
        volumes: host folder by path inside.
        hidden: files that are hidden, such as newuidmap.
        tmpfs: path inside → mount options of an empty file system in memory.
        overlays: path inside → host folder that an overlay has its directories in.
    """

    user: tuple[int, int] = (0, 0)
    capabilities: Sequence[str] = tuple(DOCKER_CAPABILITIES)
    seccomp: str = "docker"
    no_new_privileges: bool = False
    masked: bool = True
    read_only: bool = False
    volumes: Mapping[str, str] = field(default_factory=dict)
    hidden: Sequence[str] = ()
    tmpfs: Mapping[str, str] = field(default_factory=dict)
    overlays: Mapping[str, str] = field(default_factory=dict)

    def run(
        self, argv: Sequence[str], env: Mapping[str, str] | None = None, cwd: str = "/"
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a new container of this kind, and return it with its output."""
        bundle = tempfile.mkdtemp(prefix="castoff-jail-")
        try:
            for name in ("rootfs", "upper", "work", "state"):
                os.mkdir(os.path.join(bundle, name))
            os.chmod(os.path.join(bundle, "upper"), 0o755)
            with open(os.path.join(bundle, "config.json"), "w", encoding="utf-8") as file:
                json.dump(self._config(argv, env or {}, cwd), file)
            options = f"lowerdir=/,upperdir={bundle}/upper,workdir={bundle}/work"
            name = f"castoff-jail-{uuid.uuid4().hex[:12]}"
            runc = ["runc", "--root", f"{bundle}/state", "run", "--no-new-keyring", "--bundle", bundle, name]
            return subprocess.run(
                ["unshare", "--mount", "sh", "-c", _START, "sh", options, f"{bundle}/rootfs", *runc],
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                stdin=subprocess.DEVNULL,
            )
        finally:
            shutil.rmtree(bundle)

    def _config(self, argv: Sequence[str], env: Mapping[str, str], cwd: str) -> dict[str, Any]:
        capabilities = list(self.capabilities)
        own = capabilities if self.user[0] == 0 else []
        variables = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", **env}
        return {
            "ociVersion": "1.0.2",
            "process": {
                "terminal": False,
                "user": {"uid": self.user[0], "gid": self.user[1]},
                "args": list(argv),
                "env": [f"{key}={value}" for key, value in variables.items()],
                "cwd": cwd,
                "capabilities": {
                    "bounding": capabilities,
                    "permitted": own,
                    "effective": own,
                    "inheritable": [],
                    "ambient": [],
                },
                "noNewPrivileges": self.no_new_privileges,
            },
            "root": {"path": "rootfs", "readonly": self.read_only},
            "hostname": "jail",
            "mounts": self._mounts(),
            "linux": {
                "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")],
                "maskedPaths": MASKED if self.masked else [],
                "readonlyPaths": READ_ONLY if self.masked else [],
                "resources": {"devices": _devices()},
                **({"seccomp": seccomp_profile(capabilities, self.seccomp)} if self.seccomp else {}),
            },
        }

    def _mounts(self) -> list[dict[str, Any]]:
        mounts: list[dict[str, Any]] = [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": _LOCKED_DOWN},
            {
                "destination": "/dev",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
            },
            {
                "destination": "/dev/pts",
                "type": "devpts",
                "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            },
            {
                "destination": "/dev/shm",
                "type": "tmpfs",
                "source": "shm",
                "options": [*_LOCKED_DOWN, "mode=1777", "size=65536k"],
            },
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": _LOCKED_DOWN},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*_LOCKED_DOWN, "ro"]},
        ]
        mounts += [
            {"destination": path, "type": "tmpfs", "source": "tmpfs", "options": options.split(",")}
            for path, options in self.tmpfs.items()
        ]
        for path, folder in self.overlays.items():
            for name in ("lower", "upper", "work"):
                os.makedirs(os.path.join(folder, name), exist_ok=True)
            layers = [f"{name}dir={folder}/{name}" for name in ("lower", "upper", "work")]
            mounts.append({"destination": path, "type": "overlay", "source": "overlay", "options": layers})
        mounts += [
            {"destination": path, "type": "bind", "source": source, "options": ["rbind", "rw"]}
            for path, source in self.volumes.items()
        ]
        mounts += [
            {"destination": path, "type": "bind", "source": "/dev/null", "options": ["bind"]}
            for path in self.hidden
            if os.path.exists(path)
        ]
        return mounts


class JailedEngine:
    """Makes engines whose castoff runs in jails, each call in a new one, with folders that last."""

    def __init__(self, folder: str, command: Sequence[str], settings: Mapping[str, str], visible: str) -> None:
        """Take a folder for all that is made, castoff's command line and environment, and where castoff is."""
        self._folder = folder
        self._command = list(command)
        self._settings = dict(settings)
        self._visible = visible

    def make(self, jail: Jail, store: str = "", **places: Mapping[str, str]) -> Engine:
        """Return an engine in a folder of its own; `store` is the store's path inside, "" for one in that folder."""
        folder = tempfile.mkdtemp(prefix="jailed-", dir=self._folder)
        os.chmod(folder, 0o755)
        os.chown(folder, *jail.user)
        volumes = {self._visible: self._visible, folder: folder, **jail.volumes}
        jail = replace(jail, volumes=volumes, **places)

        def run(
            arguments: Sequence[str], *, cwd: str | None = None, env: Mapping[str, str] | None = None
        ) -> subprocess.CompletedProcess[bytes]:
            done = jail.run([*self._command, *arguments], {**self._settings, **(env or {})}, cwd or folder)
            out, err = done.stdout.encode("utf-8", "replace"), done.stderr.encode("utf-8", "replace")
            return subprocess.CompletedProcess(done.args, done.returncode, out, err)

        return Engine(folder, run, jail.user, store)


def require_jail(require: Require) -> None:
    """Skip where jails can't be made, naming what is missing."""
    require.root()
    require.command("runc")
    require.command("unshare", "util-linux")
    require.file(PROFILE, "golang-github-containers-common")


def seccomp_profile(capabilities: Sequence[str], runtime: str) -> dict[str, Any]:
    """Return a runtime's default profile as the OCI runtime specification has it, for these capabilities."""
    with open(PROFILE, encoding="utf-8") as file:
        profile = json.load(file)
    machine, architecture = _MACHINE[os.uname().machine]
    refused: set[str] = set()
    calls: list[dict[str, Any]] = []
    if runtime == "docker":
        refused = set(DOCKER_REFUSES)
        if "CAP_SYS_ADMIN" not in capabilities:
            refused |= {"clone", *DOCKER_WANTS_SYS_ADMIN}
            flags = {"index": 0, "value": _CLONE_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
            calls.append({"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [flags]})
            calls.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38})
    for rule in profile["syscalls"]:
        wanted, unwanted = rule.get("includes") or {}, rule.get("excludes") or {}
        if not set(wanted.get("caps", ())) <= set(capabilities) or machine not in wanted.get("arches", [machine]):
            continue
        if set(unwanted.get("caps", ())) & set(capabilities) or machine in unwanted.get("arches", ()):
            continue
        names = [name for name in rule["names"] if name not in refused]
        if names:
            kept = {key: rule[key] for key in ("action", "args", "errnoRet") if rule.get(key) is not None}
            calls.append({"names": names, **kept})
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1 if runtime == "docker" else profile["defaultErrnoRet"],
        "architectures": [architecture],
        "syscalls": calls,
    }


def _devices() -> list[dict[str, Any]]:
    """Return Docker's whitelist of devices: any may be made, few may be used."""
    allowed = [
        ("c", 1, 3),
        ("c", 1, 5),
        ("c", 1, 7),
        ("c", 1, 8),
        ("c", 1, 9),
        ("c", 5, 0),
        ("c", 5, 2),
        ("c", 136, -1),
    ]
    return [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "access": "m"},
        {"allow": True, "type": "b", "access": "m"},
        *(
            {"allow": True, "type": kind, "major": major, "access": "rwm"} | ({} if minor < 0 else {"minor": minor})
            for kind, major, minor in allowed
        ),
    ]
