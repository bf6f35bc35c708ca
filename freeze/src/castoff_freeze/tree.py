"""The frozen tree: what goes where, and writing it so that equal trees are equal bytes."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from castoff_freeze.errors import OutputError

Layer = Literal["deps", "app"]
Kind = Literal["file", "link", "folder"]

_MAX_LINKS = 40


@dataclass(frozen=True, slots=True)
class Item:
    """An entry of the tree.

    Attributes:
        path: absolute, inside of the tree.
        kind: what it is.
        why: why it is there.
        layer: the folder that it is written to where layers are kept apart.
        owner: whose it is: ``name version`` of a dependency, ``python``, ``stdlib``, ``application``, ``system``.
        source: file whose bytes it gets, or "".
        content: its bytes, where there is no source.
        target: of a link.
        mode: permission bits.
        origin: the file that it stands for, where that is another one than `path`.
    """

    path: str
    kind: Kind
    why: str
    layer: Layer = "deps"
    owner: str = "system"
    source: str = ""
    content: bytes = b""
    target: str = ""
    mode: int = 0o644
    origin: str = ""


class Tree:
    """A set of entries; the first of a path counts."""

    def __init__(self) -> None:
        self._items: dict[str, Item] = {}

    def __contains__(self, path: str) -> bool:
        return path in self._items

    def __iter__(self) -> Iterator[Item]:
        return iter([self._items[path] for path in sorted(self._items)])

    def add(self, item: Item) -> None:
        """Add an entry unless there is one of its path."""
        self._items.setdefault(item.path, item)

    def add_folder(self, path: str, why: str, mode: int = 0o755, layer: Layer = "deps") -> None:
        """Add a folder that is there even if it is empty."""
        self.add(Item(path, "folder", why, layer, mode=mode))

    def add_text(self, path: str, text: str, why: str, *, mode: int = 0o644, layer: Layer = "deps") -> None:
        """Add a file that is made here."""
        owner = "application" if layer == "app" else "system"
        self.add(Item(path, "file", why, layer, owner, content=text.encode(), mode=mode))

    def add_system_file(self, path: str, why: str, owner: str = "system") -> None:
        """Add a file of this system under its path, with the links that lead to it.

        Links among the folders above it are not kept: the file is put where its path says, in folders that are real.
        """
        place = path
        for _ in range(_MAX_LINKS):
            if not os.path.islink(place):
                break
            target = os.readlink(place)
            aim = os.path.normpath(os.path.join(os.path.dirname(place), target))
            self.add(Item(place, "link", why, owner=owner, target=target))
            place = aim
        self.add(Item(place, "file", why, owner=owner, source=os.path.realpath(place), mode=_mode_of(place)))

    def replace(self, item: Item) -> None:
        """Put an entry in the place of that of its path."""
        self._items[item.path] = item

    def files(self) -> Iterator[Item]:
        """Yield the regular files in the order of their paths."""
        return (item for item in self if item.kind == "file")


def _mode_of(path: str) -> int:
    """Return the mode that a file gets: executable for all, or for none."""
    try:
        return 0o755 if os.stat(path).st_mode & stat.S_IXUSR else 0o644
    except OSError:
        return 0o644


def write(items: Iterable[Item], root: str, epoch: int) -> None:
    """Write entries below a folder that exists and is empty.

    Raises:
        OutputError: something could not be written.
    """
    folders: dict[str, int] = {}
    try:
        for item in items:
            place = root + item.path
            if item.kind == "folder":
                folders[place] = item.mode
                os.makedirs(place, exist_ok=True)
                continue
            os.makedirs(os.path.dirname(place), exist_ok=True)
            if item.kind == "link":
                os.symlink(item.target, place)
            else:
                if item.source:
                    shutil.copyfile(item.source, place)
                else:
                    with open(place, "wb") as file:
                        file.write(item.content)
                os.chmod(place, item.mode)
        settle(root, folders, epoch)
    except OSError as error:
        raise OutputError(f"cannot write {error.filename or root}: {error.strerror}") from error


def settle(root: str, folders: Mapping[str, int], epoch: int) -> None:
    """Give everything the modes and the times that do not depend on when and by whom it was written.

    Args:
        root: folder of the tree.
        folders: modes of folders, by their paths on this system; others get 0755.
        epoch: seconds since 1970.
    """
    for folder, names, files in os.walk(root, topdown=False):
        for name in (*names, *files):
            path = os.path.join(folder, name)
            if os.path.isdir(path) and not os.path.islink(path):
                os.chmod(path, folders.get(path, 0o755))
            os.utime(path, (epoch, epoch), follow_symlinks=False)
    os.chmod(root, 0o755)
    os.utime(root, (epoch, epoch))


MOUNT_POINTS = ("proc", "dev", "tmp")
"""Folders that a verification mounts something on."""


def make_mount_points(root: str) -> list[str]:
    """Make the folders that a verification needs, and return those that were not there."""
    made: list[str] = []
    for name in MOUNT_POINTS:
        path = os.path.join(root, name)
        if not os.path.lexists(path):
            os.mkdir(path)
            os.chmod(path, 0o1777 if name == "tmp" else 0o755)
            made.append(path)
    null = os.path.join(root, "dev", "null")
    if not os.path.lexists(null):  # for a verification that may mount nothing
        with open(null, "wb"):
            pass
        os.chmod(null, 0o666)
        made.append(null)
    return made


def remove_mount_points(made: Iterable[str]) -> None:
    """Remove what `make_mount_points` made, with what was left in it."""
    for path in sorted(made, reverse=True):
        if os.path.isdir(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                os.unlink(path)
