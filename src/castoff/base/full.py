"""The variant ``full``: a working Debian, configured by dpkg itself in the sandbox.

The steps are those of debootstrap: enough packages are unpacked by castoff for dpkg to run, then dpkg installs them
all, in its own way and with their maintainer scripts. What would differ from one time to the next is removed after.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from castoff.base.deb import Control, Deb
from castoff.base.distroless import (
    drop,
    drop_documentation,
    group_lines,
    make_homes,
    unpack_package,
    user_lines,
)
from castoff.base.mirrors import DEBIAN
from castoff.base.resolve import parse_relations
from castoff.base.rootfolder import RootFolder, bind
from castoff.base.roottree import RootTree, compile_pattern, merge_usr
from castoff.errors import UsageError

if TYPE_CHECKING:
    from castoff.base.lockfile import Lock
    from castoff.base.recipe import Recipe

_DEBS = "/run/castoff/packages"
_BATCH = 64
_DAY = 86400
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_FORCE = ("--force-depends", "--force-unsafe-io", "--force-confnew", "--force-bad-path")
_POLICY = b"#!/bin/sh\n# Services are not to start while packages are installed.\nexit 101\n"
_APT_CLEAN = b"""\
// An image keeps no downloaded packages. Remove this file to keep them, as for a cache mount on /var/cache/apt.
APT::Keep-Downloaded-Packages "false";
"""
_APT_SLIM = b"""\
Acquire::Languages "none";
Acquire::GzipIndexes "true";
APT::AutoRemove::SuggestsImportant "false";
"""
_RESIDUE = tuple(
    compile_pattern(text)
    for text in (
        b"run/castoff",
        b"var/log/**",
        b"var/cache/apt/**",
        b"var/cache/debconf/*-old",
        b"var/cache/ldconfig/aux-cache",
        b"var/lib/apt/lists/**",
        b"var/lib/dpkg/*-old",
        b"var/lib/dpkg/available",
        b"var/lib/dpkg/lock*",
        b"var/lib/dpkg/triggers/Lock",
        b"var/lib/systemd/catalog/database",
        b"var/lib/systemd/random-seed",
        b"var/lib/dbus/machine-id",
        b"etc/passwd-",
        b"etc/group-",
        b"etc/shadow-",
        b"etc/gshadow-",
        b"etc/subuid-",
        b"etc/subgid-",
        b"etc/.pwd.lock",
        b"etc/resolv.conf",
        b"etc/hostname",
        b"etc/hosts",
        b"**/__pycache__",
        b"tmp/*",
        b"var/tmp/*",
        b"dev/*",
    )
)
_KEPT_FOLDERS = (
    (b"var/cache/apt/archives/partial", 0o755),
    (b"var/lib/apt/lists/partial", 0o755),
    (b"var/log/apt", 0o755),
)
_EMPTY_LOGS = ((b"var/log/btmp", 0o660), (b"var/log/wtmp", 0o664), (b"var/log/lastlog", 0o664))


@dataclass(frozen=True, slots=True)
class PackageFile:
    """A package on this machine: its name, the host path of its .deb, and its control part."""

    name: str
    path: str
    control: Control


def read_packages(lock: Lock, paths: Sequence[str]) -> list[PackageFile]:
    """Return the packages of a lock with their control parts.

    Args:
        lock: names them.
        paths: host paths of their .debs, in the lock's order.

    Raises:
        InvalidImageError: a package is damaged.
        UsageError: a package's own name is not the one that was locked.
    """
    found = []
    for locked, path in zip(lock.packages, paths, strict=True):
        with Deb(path) as deb:
            control = deb.control()
        if (control.field("Package"), control.field("Version")) != (locked.name, locked.version):
            raise UsageError(f"the package locked as {locked.name} {locked.version} says that it is another one")
        found.append(PackageFile(locked.name, path, control))
    return found


def core_of(packages: Iterable[PackageFile]) -> list[PackageFile]:
    """Return the packages that must be unpacked before dpkg can run: the essential ones, dpkg, and what they need."""
    by_name: dict[str, PackageFile] = {}
    for package in packages:
        by_name[package.name] = package
        for group in parse_relations(package.control.field("Provides")):
            by_name.setdefault(group[0].name, package)
    real = {package.name: package for package in by_name.values()}
    todo = [name for name, package in real.items() if package.control.field("Essential") == "yes" or name == "dpkg"]
    core: dict[str, PackageFile] = {}
    while todo:
        package = real[todo.pop()]
        if package.name in core:
            continue
        core[package.name] = package
        for key in ("Pre-Depends", "Depends"):
            for group in parse_relations(package.control.field(key)):
                todo += [by_name[relation.name].name for relation in group if relation.name in by_name]
    return [core[name] for name in sorted(core)]


def bootstrap(root: RootFolder, packages: Sequence[PackageFile], spool: str, lock: Lock) -> None:
    """Make a configured Debian in an empty folder.

    Args:
        root: the folder.
        packages: all packages.
        spool: an empty host folder on the same file system.
        lock: says the architecture and the archive's time.

    Raises:
        InvalidImageError: a package is damaged or hostile.
        RunError: a maintainer script failed; its words are in `tail`.
        SandboxError: nothing can be run on this machine.
    """
    tree = RootTree(spool)
    merge_usr(tree, lock.architecture)
    for package in core_of(packages):
        unpack_package(tree, package.path)
    _prepare(tree)
    root.fill(tree)
    env = (
        f"PATH={_PATH}",
        "HOME=/root",
        "LC_ALL=C.UTF-8",
        "DEBIAN_FRONTEND=noninteractive",
        "DEBCONF_NONINTERACTIVE_SEEN=true",
        f"SOURCE_DATE_EPOCH={lock.time}",
        "PYTHONHASHSEED=0",
    )
    mounts = tuple(bind(package.path, f"{_DEBS}/{package.name}.deb") for package in packages)
    batches = _batches(packages)
    for batch in batches:
        argv = ("dpkg", *_FORCE, "--install", *(f"{_DEBS}/{package.name}.deb" for package in batch))
        root.run("configure", argv, env, mounts)
    root.run("configure", ("dpkg", "--configure", "--pending"), env, mounts)
    root.run("configure", ("dpkg", "--audit"), env)


def _batches(packages: Sequence[PackageFile]) -> list[list[PackageFile]]:
    """Return the packages in the order of their installation: users first, the files of the system, the core, all."""
    rest = {package.name: package for package in packages}
    batches = [[rest.pop(name)] for name in ("base-passwd", "base-files") if name in rest]
    core = [rest.pop(package.name) for package in core_of(packages) if package.name in rest]
    return [batch for batch in (*batches, core, [rest[name] for name in sorted(rest)]) if batch]


def _prepare(tree: RootTree) -> None:
    """Add what dpkg and the first maintainer scripts expect and no package has."""
    tree.write(b"var/lib/dpkg/status", b"")
    for name in (b"info", b"updates", b"triggers", b"parts", b"alternatives"):
        tree.make_directory(b"var/lib/dpkg/" + name)
    tree.write(b"usr/sbin/policy-rc.d", _POLICY, mode=0o755)
    if tree.get(b"usr/bin/awk") is None and tree.get(b"usr/bin/mawk") is not None:
        tree.symlink(b"usr/bin/awk", b"mawk")
    if tree.get(b"usr/bin/sh") is None and tree.get(b"usr/bin/dash") is not None:
        tree.symlink(b"usr/bin/sh", b"dash")
    tree.make_directory(b"run/castoff")


def finish(tree: RootTree, recipe: Recipe, lock: Lock) -> None:
    """Remove what differs from one time to the next, and add what an image has that no package gives.

    Args:
        tree: the configured root.
        recipe: its users, and what it drops.
        lock: says the archive's time, which is the day of the last change of passwords.
    """
    tree.remove_matching(_RESIDUE)
    for path, mode in _KEPT_FOLDERS:
        tree.make_directory(path, mode=mode)
    apt = _account_id(tree, b"etc/passwd", "_apt")
    if apt is not None:
        for path, _ in _KEPT_FOLDERS[:2]:
            tree.make_directory(path, mode=0o700, uid=apt)
    utmp = _account_id(tree, b"etc/group", "utmp")
    if utmp is not None:
        for path, mode in _EMPTY_LOGS:
            tree.write(path, b"", mode=mode, gid=utmp)
    tree.write(b"etc/machine-id", b"")
    _write_apt(tree, recipe)
    _add_users(tree, recipe)
    shadow = tree.get(b"etc/shadow")
    if shadow is not None:
        text = re.sub(
            rb"^([^:\n]*:[^:\n]*:)\d+:", rb"\g<1>%d:" % (lock.time // _DAY), tree.read(b"etc/shadow") or b"", flags=re.M
        )
        tree.write(b"etc/shadow", text, mode=shadow.permissions, uid=shadow.uid, gid=shadow.gid)
    if not recipe.keep_docs:
        drop_documentation(tree)
    drop(tree, recipe)


def _account_id(tree: RootTree, path: bytes, name: str) -> int | None:
    """Return the id of a user or a group; None where there is none of that name."""
    found = re.search(rb"^%s:[^:]*:(\d+):" % name.encode(), tree.read(path) or b"", re.MULTILINE)
    return int(found[1]) if found else None


def _write_apt(tree: RootTree, recipe: Recipe) -> None:
    """Write apt's sources, those of Debian itself, and settings for images."""
    stanzas = []
    suites = [recipe.suite] + [f"{recipe.suite}-updates"] * ("updates" in recipe.pockets)
    stanzas.append((f"http://deb.{DEBIAN}/debian", " ".join(suites)))
    if "security" in recipe.pockets:
        stanzas.append((f"http://deb.{DEBIAN}/debian-security", f"{recipe.suite}-security"))
    text = "\n".join(
        f"Types: deb\nURIs: {uri}\nSuites: {names}\nComponents: {' '.join(recipe.components)}\n"
        "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
        for uri, names in stanzas
    )
    tree.remove(b"etc/apt/sources.list")
    tree.write(b"etc/apt/sources.list.d/debian.sources", text.encode())
    tree.write(b"etc/apt/apt.conf.d/docker-clean", _APT_CLEAN)
    tree.write(b"etc/apt/apt.conf.d/image-slim", _APT_SLIM)


def _add_users(tree: RootTree, recipe: Recipe) -> None:
    """Add the recipe's users and groups to those that Debian has.

    Raises:
        UsageError: Debian has one of them already.
    """
    passwd, group = tree.read(b"etc/passwd") or b"", tree.read(b"etc/group") or b""
    for user in recipe.users:
        if _account_id(tree, b"etc/passwd", user.name) is not None:
            raise UsageError(f"{recipe.file}: the user {user.name!r} is one that Debian has already")
    if recipe.users:
        tree.write(b"etc/passwd", passwd + "".join(user_lines(recipe)).encode())
    if recipe.users or recipe.groups:
        lines = group_lines(recipe, group.decode("utf-8", "replace").splitlines(keepends=True))
        tree.write(b"etc/group", "".join(lines).encode())
    make_homes(tree, recipe)
