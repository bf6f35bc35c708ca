"""An ordinary user for tests that root runs: found or created, with a castoff that this user can read."""

from __future__ import annotations

import importlib.metadata
import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

NAME = "castoff-test"
SUBORDINATE_IDS = 65536
RUNTIME_MODULES = ("isal", "zlib-ng", "zstandard", "python-debian")
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


@dataclass(frozen=True, slots=True)
class OrdinaryUser:
    """A user without privileges; ``home`` is a folder of the test session, not that of the user database."""

    name: str
    uid: int
    gid: int
    home: str

    def environment(self) -> dict[str, str]:
        """Return the environment that a new login of this user would have, and nothing of the caller's."""
        return {"HOME": self.home, "USER": self.name, "LOGNAME": self.name, "PATH": SYSTEM_PATH, "LANG": "C.UTF-8"}

    def run(
        self,
        argv: Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        timeout: float = 300,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command as this user, with ``env`` added to a login's environment, and return it with its output."""
        started_by_root = os.geteuid() == 0 and self.uid != 0
        return subprocess.run(
            argv,
            cwd=cwd or self.home,
            env={**self.environment(), **(env or {})},
            input=stdin,
            capture_output=True,
            timeout=timeout,
            check=False,
            user=self.uid if started_by_root else None,
            group=self.gid if started_by_root else None,
            extra_groups=[] if started_by_root else None,
        )


def find(name: str, home: str) -> OrdinaryUser | None:
    """Return the user of that name, or None where there is none."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return OrdinaryUser(name, entry.pw_uid, entry.pw_gid, home)


def create(name: str) -> None:
    """Create the user and its ranges of subordinate ids; done already, it changes nothing."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        command = ["useradd", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin"]
        subprocess.run([*command, "--comment", "tests of castoff", name], check=True, capture_output=True)
    for file, option in (("/etc/subuid", "--add-subuids"), ("/etc/subgid", "--add-subgids")):
        ranges = subordinate_ranges(file)
        if name not in {owner for owner, _, _ in ranges}:
            first = max([100_000, *(start + count for _, start, count in ranges)])
            subprocess.run(["usermod", option, f"{first}-{first + SUBORDINATE_IDS - 1}", name], check=True)


def subordinate_ranges(file: str) -> list[tuple[str, int, int]]:
    """Return the (owner, first id, count) lines of ``/etc/subuid`` or ``/etc/subgid``."""
    try:
        with open(file, encoding="utf-8") as lines:
            fields = [line.strip().split(":") for line in lines]
    except FileNotFoundError:
        return []
    return [(line[0], int(line[1]), int(line[2])) for line in fields if len(line) == 3]


def has_subordinate_ids(user: OrdinaryUser) -> bool:
    """Tell whether the user can map a range of ids: newuidmap is there and both files name the user."""
    if shutil.which("newuidmap", path=SYSTEM_PATH) is None or shutil.which("newgidmap", path=SYSTEM_PATH) is None:
        return False
    owners = {user.name, str(user.uid)}
    return all(
        any(owner in owners for owner, _, _ in subordinate_ranges(file)) for file in ("/etc/subuid", "/etc/subgid")
    )


def python_for(user: OrdinaryUser) -> str | None:
    """Return an interpreter of the running version that the user may run, or None.

    One below root's home directory is out of the user's reach; the system's own then serves.
    """
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    own = os.path.realpath(sys.executable)
    for candidate in (own, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        try:
            if user.run([candidate, "-I", "-c", "import ctypes, ssl, zlib"], timeout=60).returncode == 0:
                return candidate
        except OSError:
            continue
    return None


def copy_castoff(target: str, extra: Iterable[str] = ()) -> None:
    """Copy castoff as this process imports it, and the distributions it and ``extra`` need, into a folder."""
    import castoff

    package = os.path.dirname(os.path.abspath(castoff.__file__))
    shutil.copytree(package, os.path.join(target, "castoff"), ignore=shutil.ignore_patterns("__pycache__"))
    for name in _with_requirements([*RUNTIME_MODULES, *extra]):
        for file in importlib.metadata.files(name) or []:
            source = os.fspath(file.locate())
            if ".." in file.parts or "__pycache__" in file.parts or not os.path.isfile(source):
                continue
            copy = os.path.join(target, *file.parts)
            os.makedirs(os.path.dirname(copy), exist_ok=True)
            shutil.copyfile(source, copy)


def _with_requirements(names: Iterable[str]) -> set[str]:
    found: set[str] = set()
    left = list(names)
    while left:
        name = left.pop().lower()
        if name in found:
            continue
        try:
            requires = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # a requirement of another Python version or platform
        found.add(name)
        left.extend(re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0] for line in requires if "extra ==" not in line)
    return found
