"""The variant ``distroless``: packages unpacked without maintainer scripts, and what those would have made."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from castoff.base.deb import Control, Deb
from castoff.base.roottree import RootTree, compile_pattern, merge_usr
from castoff.errors import InvalidImageError

if TYPE_CHECKING:
    from castoff.base.recipe import Recipe

STATUS = b"var/lib/dpkg/status.d"
CA_BUNDLE = b"etc/ssl/certs/ca-certificates.crt"
_RUN_LINKS = ((b"var/run", b"/run"), (b"var/lock", b"/run/lock"))
_CA_FOLDER = b"usr/share/ca-certificates/"
_ROOT_USER = "root:x:0:0:root:/root:/sbin/nologin\n"
_DOCUMENTATION = tuple(
    compile_pattern(text)
    for text in (
        b"usr/share/man",
        b"usr/share/info",
        b"usr/share/locale/*",
        b"usr/share/lintian",
        b"usr/share/linda",
        b"usr/share/doc-base",
        b"usr/share/bug",
        b"usr/share/gtk-doc",
        b"usr/share/help",
    )
)
_NSSWITCH = b"""\
passwd:         files
group:          files
shadow:         files
gshadow:        files

hosts:          files dns
networks:       files

protocols:      files
services:       files
ethers:         files
rpc:            files
"""


def unpack(tree: RootTree, debs: Iterable[str], recipe: Recipe, architecture: str) -> None:
    """Unpack packages into an empty tree, and make what the maintainer scripts would have made of it.

    Args:
        tree: takes the files.
        debs: host paths of the packages, in the order to unpack them.
        recipe: says what stays.
        architecture: Debian's name of it.

    Raises:
        InvalidImageError: a package is damaged or hostile.
    """
    merge_usr(tree, architecture)
    controls = [(path, unpack_package(tree, path)) for path in debs]
    if not recipe.keep_docs:
        drop_documentation(tree)
    write_ca_bundle(tree)
    write_users(tree, recipe)
    if b"etc/nsswitch.conf" not in tree:
        tree.write(b"etc/nsswitch.conf", _NSSWITCH)
    tree.make_directory(b"tmp", mode=0o1777)
    tree.make_directory(b"run/lock", mode=0o1777)
    for path, target in _RUN_LINKS:
        tree.remove(path)
        tree.symlink(path, target)
    drop(tree, recipe)
    for deb, control in controls:
        write_status(tree, control, deb)


def unpack_package(tree: RootTree, path: str) -> Control:
    """Unpack the files of one package into a tree, and return its control part.

    Raises:
        InvalidImageError: the package is damaged or hostile.
    """
    with Deb(path) as deb:
        control = deb.control()
        for entry, content in deb.content():
            tree.add(entry, content)
    return control


def drop_documentation(tree: RootTree) -> None:
    """Remove manuals, locales, lintian's files and documentation; copyright files, which licences ask for, stay."""
    tree.remove_matching(_DOCUMENTATION)
    doc = b"usr/share/doc/"
    for path in tree.paths():
        entry = tree.get(path) if path.startswith(doc) else None
        if entry is None or entry.is_dir:
            continue
        # A folder of documentation that is a link leads to the copyright file of another package.
        depth = path.count(b"/")
        if not (depth == 3 and entry.is_symlink) and not (depth == 4 and entry.name == b"copyright"):
            tree.remove(path)
    tree.prune(b"usr/share/doc")


def write_ca_bundle(tree: RootTree) -> None:
    """Write the bundle of CA certificates that ca-certificates' script makes: all of them, sorted by path."""
    parts = []
    for path in tree.paths():
        if path.startswith(_CA_FOLDER) and path.endswith(b".crt"):
            text = tree.read(path) or b""
            if b"-----BEGIN CERTIFICATE-----" not in text:
                raise InvalidImageError(f"{path.decode('utf-8', 'replace')!r} is not a certificate in PEM form")
            parts.append(text.strip(b"\n") + b"\n")
    if parts:
        tree.write(CA_BUNDLE, b"".join(parts))


def write_users(tree: RootTree, recipe: Recipe) -> None:
    """Write /etc/passwd and /etc/group with root and the recipe's users and groups, and make their homes."""
    lines = [] if any(user.uid == 0 for user in recipe.users) else [_ROOT_USER]
    lines += user_lines(recipe)
    groups = group_lines(recipe, () if any(group.gid == 0 for group in recipe.groups) else ("root:x:0:\n",))
    tree.write(b"etc/passwd", "".join(lines).encode())
    tree.write(b"etc/group", "".join(groups).encode())
    tree.make_directory(b"root", mode=0o700)
    make_homes(tree, recipe)


def user_lines(recipe: Recipe) -> list[str]:
    """Return the recipe's users as lines of /etc/passwd."""
    return [f"{u.name}:x:{u.uid}:{u.gid}:{u.comment}:{u.home}:{u.shell}\n" for u in recipe.users]


def group_lines(recipe: Recipe, before: Iterable[str]) -> list[str]:
    """Return lines of /etc/group: those of `before`, the recipe's, and a group of its own for each user without one."""
    lines = list(before)
    lines += [f"{group.name}:x:{group.gid}:{','.join(group.members)}\n" for group in recipe.groups]
    taken = {line.split(":")[2] for line in lines if line.count(":") >= 3}
    for user in recipe.users:
        if str(user.gid) not in taken:
            taken.add(str(user.gid))
            lines.append(f"{user.name}:x:{user.gid}:\n")
    return lines


def make_homes(tree: RootTree, recipe: Recipe) -> None:
    """Make the home directories of the recipe's users, each its user's alone."""
    for user in recipe.users:
        home = user.home.strip("/").encode()
        if home and user.home != "/nonexistent" and (user.uid or home != b"root"):
            tree.make_directory(home, mode=0o700, uid=user.uid, gid=user.gid)


def drop(tree: RootTree, recipe: Recipe) -> None:
    """Remove what the recipe drops."""
    tree.remove_matching([compile_pattern(pattern) for pattern in recipe.drop])


def write_status(tree: RootTree, control: Control, path: str) -> None:
    """Write what vulnerability scanners look for: a package's control paragraph, and the sums of the files it has.

    Raises:
        InvalidImageError: the package's name is not one.
    """
    name = control.field("Package").encode()
    if not name or name.strip(b"abcdefghijklmnopqrstuvwxyz0123456789+.-"):
        raise InvalidImageError(f"the package {path} has no valid name")
    tree.write(STATUS + b"/" + name, control.paragraph)
    sums = [digest + b"  " + file + b"\n" for file, digest in control.md5sums if tree.get(file) is not None]
    if sums:
        tree.write(STATUS + b"/" + name + b".md5sums", b"".join(sums))


def apply_additions(tree: RootTree, recipe: Recipe) -> None:
    """Make the directories, files and links that the recipe adds."""
    for directory in recipe.directories:
        tree.make_directory(directory.path, mode=directory.mode, uid=directory.uid, gid=directory.gid)
    for file in recipe.files:
        tree.write(file.path, file.content, mode=file.mode, uid=file.uid, gid=file.gid)
    for link in recipe.symlinks:
        tree.symlink(link.path, link.target)
