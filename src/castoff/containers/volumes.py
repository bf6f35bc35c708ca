"""Named volumes: folders of the store that outlive the containers that use them, ``volumes/<name>/data``."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from castoff.containers.containerstore import ContainerStore, NoContainerError
from castoff.errors import StoreError, UsageError
from castoff.store.failure import translated
from castoff.store.locking import exclusive
from castoff.store.removal import remove_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_DATA = "data"


class NoVolumeError(UsageError):
    """There is no volume of that name."""

    exit_code = 1


class VolumeStore:
    """The named volumes of a store. Several processes share it safely."""

    def __init__(self, root: str) -> None:
        """Take the folder of a store."""
        self._root = root
        self._path = f"{root}/volumes"

    def find(self, name: str) -> str | None:
        """Return the host path of a volume's content; None where there is no such volume.

        Raises:
            UsageError: that is no name for one.
        """
        path = f"{self._folder(name)}/{_DATA}"
        return path if os.path.isdir(path) else None

    def _folder(self, name: str) -> str:
        if not VOLUME_NAME.fullmatch(name):
            raise UsageError(f"{name!r} is no name for a volume", hint="write letters, digits, '_', '.' and '-'")
        return f"{self._path}/{name}"

    def adopt(self, name: str, content: str) -> str:
        """Make a folder the content of a new volume, and return where it is then; a volume that is there is kept.

        Raises:
            StoreError: the store can't be written.
        """
        folder = self._folder(name)
        path = f"{folder}/{_DATA}"
        with translated(f"make the volume {name}"):
            os.makedirs(self._path, 0o711, exist_ok=True)
            with exclusive(f"{self._path}/.lock"):
                if not os.path.isdir(path):
                    os.makedirs(folder, 0o711, exist_ok=True)
                    os.rename(content, path)
        return path

    def __iter__(self) -> Iterator[str]:
        """Yield the names, sorted."""
        try:
            names = os.listdir(self._path)
        except FileNotFoundError:
            return
        yield from sorted(name for name in names if VOLUME_NAME.fullmatch(name) and self.find(name))

    def users(self, name: str) -> list[str]:
        """Return the names of the containers that use a volume.

        Raises:
            StoreError: the record of a container can't be read.
        """
        path = f"{self._folder(name)}/{_DATA}"
        found = []
        for container in ContainerStore(self._root):
            try:
                record = container.record()
            except NoContainerError:
                continue
            if any(mount.source == path for mount in record.spec.mounts):
                found.append(record.name)
        return sorted(found)

    def remove(self, name: str) -> None:
        """Remove a volume with all in it.

        Raises:
            NoVolumeError: there is none.
            StoreError: a container uses it, or something can't be removed.
        """
        if self.find(name) is None:
            raise NoVolumeError(f"there is no volume {name}", hint="castoff volume ls lists them")
        with translated(f"remove the volume {name}"), exclusive(f"{self._path}/.lock"):
            users = self.users(name)
            if users:
                raise StoreError(
                    f"the volume {name} is used by {', '.join(users)}", hint="remove those containers first"
                )
            if not remove_tree(self._folder(name)):
                raise StoreError(f"the volume {name} can't be removed whole")
