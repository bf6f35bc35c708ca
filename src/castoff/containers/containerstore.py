"""The containers of a store, on disk: ``containers/<id>/`` with all that belongs to each.

In the folder of a container: ``config.json`` (the record), ``state.json``, ``lock`` (its monitor holds it while it
lives, and the kernel lets go of it however that ends), ``socket`` (where the monitor listens), ``root/fs`` (its own
files), ``volumes``, ``log.jsonl`` and ``log.1.jsonl``, ``sandbox`` (the executor's), ``monitor.log``.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from castoff.containers.record import ContainerRecord, ContainerState
from castoff.errors import CastoffError, StoreError, UsageError
from castoff.store.failure import translated
from castoff.store.locking import exclusive, try_lock
from castoff.store.removal import remove_tree
from castoff.store.replacement import replace_file

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = "containers"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_ID = re.compile(r"[0-9a-f]{64}")
_PREFIX = re.compile(r"[0-9a-f]{1,64}")
_LIMIT = 4 << 20
_TAKE_TIMEOUT = 10.0
_LIVE_TIMEOUT = 1.0
_PAUSE = 0.005
_RECORD = "config.json"
_FIRST = (
    "bold brisk calm clever eager fair glad keen kind lively merry neat proud quick quiet sharp smart warm wise witty"
)
_SECOND = (
    "anvil beacon bridge canal cedar comet delta ember ferry forge harbor lantern maple meadow orbit pine quarry reef"
)


class NoContainerError(UsageError):
    """There is no container of that name or id."""

    exit_code = 1


class Container:
    """The folder of one container.

    Attributes:
        id: 64 hexadecimal digits.
        path: absolute path of the folder.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.id = os.path.basename(path)

    def new_folder(self) -> str:
        """Make an empty folder that goes with the container, and return its path.

        Raises:
            StoreError: the store can't be written.
        """
        path = f"{self.path}/volumes/{secrets.token_hex(8)}"
        with translated("make a container"):
            os.makedirs(path, 0o711)
        return path

    def record(self) -> ContainerRecord:
        """Read how it was made.

        Raises:
            NoContainerError: it is gone.
            StoreError: its file can't be read.
        """
        try:
            return ContainerRecord.from_json(self._read(_RECORD))
        except FileNotFoundError as error:
            raise NoContainerError(f"there is no container {self.id[:12]}") from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(
                f"the container {self.id[:12]} is damaged: config.json can't be read",
                hint=f"remove it: castoff rm -f {self.id[:12]}",
            ) from error

    def state(self) -> ContainerState:
        """Read how it is; where its monitor is gone without a word, that is what comes out.

        Raises:
            NoContainerError: it is gone.
        """
        alive = self.is_alive()
        path = f"{self.path}/state.json"
        try:
            state = ContainerState.from_json(self._read("state.json"))
            if state.is_live and not (alive or self.is_alive()):
                return state.lost(os.stat(path).st_mtime)
        except FileNotFoundError as error:
            if not os.path.isdir(self.path):
                raise NoContainerError(f"there is no container {self.id[:12]}") from error
            return ContainerState()
        except (OSError, ValueError, TypeError):
            return ContainerState().lost(0)
        return state

    def write_state(self, state: ContainerState) -> None:
        """Write down how it is. Atomic.

        Raises:
            OSError: the store can't be written.
        """
        replace_file(f"{self.path}/state.json", json.dumps(state.to_json()).encode(), locked=True)

    def _read(self, name: str) -> dict[str, Any]:
        with open(f"{self.path}/{name}", "rb") as file:
            value = json.loads(file.read(_LIMIT))
        if not isinstance(value, dict):
            raise TypeError(name)
        return value

    def is_alive(self) -> bool:
        """Tell whether its monitor lives."""
        try:
            fd = os.open(f"{self.path}/lock", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def take(self, *, at_once: bool = False) -> int:
        """Take the container's lock, for its monitor or for its removal, and return the descriptor that holds it.

        Somebody may only be looking, or a monitor be about to end: that is waited for, unless it must be `at_once`.

        Raises:
            NoContainerError: it is gone.
            UsageError: it is running.
        """
        try:
            fd = os.open(f"{self.path}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError as error:
            raise NoContainerError(f"there is no container {self.id[:12]}") from error
        begun = time.monotonic()
        while not try_lock(fd):
            waited = time.monotonic() - begun
            if at_once or waited > _TAKE_TIMEOUT or (waited > _LIVE_TIMEOUT and self._is_live()):
                os.close(fd)
                raise UsageError(f"the container {self.id[:12]} is running")
            time.sleep(_PAUSE)
        if not os.path.exists(f"{self.path}/{_RECORD}"):
            os.close(fd)
            raise NoContainerError(f"there is no container {self.id[:12]}")  # it was removed meanwhile
        return fd

    def _is_live(self) -> bool:
        try:
            return self.state().is_live
        except NoContainerError:
            return False

    def claim(self) -> int:
        """Take the lock of a container whose folder has just been made.

        Raises:
            OSError: its file can't be made.
        """
        fd = os.open(f"{self.path}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        return fd

    def remove(self) -> None:
        """Remove the folder with all in it; the caller holds the lock. Idempotent.

        Raises:
            StoreError: something can't be removed.
        """
        # Without its record it is no container any more, so that a removal that is cut short shows.
        with translated(f"remove the container {self.id[:12]}"):
            for name in (_RECORD, "socket"):
                if os.path.lexists(f"{self.path}/{name}"):
                    os.unlink(f"{self.path}/{name}")
        if not remove_tree(self.path):
            raise StoreError(
                f"the files of the container {self.id[:12]} can't be removed", hint="castoff rm tries it again"
            )


class ContainerStore:
    """All containers of a store. Several processes share it safely."""

    def __init__(self, root: str) -> None:
        """Take the folder of a store."""
        self.path = f"{root}/{FOLDER}"

    def new(self) -> tuple[Container, int]:
        """Make a folder for a container that is about to be made; return it and what holds its lock.

        Raises:
            StoreError: the store can't be written.
        """
        with translated("make a container"):
            os.makedirs(self.path, 0o700, exist_ok=True)
            with exclusive(f"{self.path}/names.lock"):
                container = Container(f"{self.path}/{secrets.token_hex(32)}")
                os.mkdir(container.path, 0o700)
                return container, container.claim()

    def register(self, container: Container, record: ContainerRecord) -> ContainerRecord:
        """Write a container's record, by which it exists; gives it a name where it has none.

        Raises:
            UsageError: the name is taken, or is none.
            StoreError: the store can't be written.
        """
        if record.name and not _NAME.fullmatch(record.name):
            raise UsageError(
                f"--name {record.name!r} is no name for a container", hint="write letters, digits, '_', '.' and '-'"
            )
        with translated("make a container"), exclusive(f"{self.path}/names.lock"):
            taken = {name: each for each in self if (name := _name_of(each))}
            if record.name in taken:
                raise UsageError(
                    f"the name {record.name} is taken by the container {taken[record.name].id[:12]}",
                    hint=f"remove it: castoff rm -f {record.name}",
                )
            name = record.name or _new_name(set(taken))
            record = replace(record, name=name)
            container.write_state(ContainerState())
            path = f"{container.path}/{_RECORD}"
            fd = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with open(fd, "wb") as file:
                file.write(json.dumps(record.to_json()).encode())
            os.rename(path + ".new", path)
        return record

    def __iter__(self) -> Iterator[Container]:
        """Yield the containers that exist, in no order."""
        try:
            names = os.listdir(self.path)
        except FileNotFoundError:
            return
        for name in names:
            if _ID.fullmatch(name) and os.path.exists(f"{self.path}/{name}/{_RECORD}"):
                yield Container(f"{self.path}/{name}")

    def find(self, text: str) -> Container:
        """Return the container of a name, an id, or the beginning of one.

        Raises:
            NoContainerError: there is none.
            UsageError: several ids begin so.
        """
        containers = list(self)
        for container in containers:
            if text == container.id or text == _name_of(container):
                return container
        found = [each for each in containers if _PREFIX.fullmatch(text) and each.id.startswith(text)]
        if len(found) > 1:
            raise UsageError(
                f"{len(found)} containers have ids that begin with {text}", hint="castoff ps -a lists them"
            )
        if not found:
            raise NoContainerError(f"there is no container {text}", hint="castoff ps -a lists those that there are")
        return found[0]

    def sweep(self) -> None:
        """Remove what is left of containers whose making or removal was cut short. Idempotent; never fails."""
        with contextlib.suppress(OSError), exclusive(f"{self.path}/names.lock"):
            for name in os.listdir(self.path):
                container = Container(f"{self.path}/{name}")
                if not _ID.fullmatch(name) or os.path.exists(f"{container.path}/{_RECORD}"):
                    continue
                if not container.is_alive():  # whoever makes or removes one holds its lock
                    remove_tree(container.path)


def snapshots_in_use(root: str) -> frozenset[str]:
    """Return the names of the snapshots that the containers of the store in a folder stand on.

    Raises:
        StoreError: a container's record can't be read, so that what it needs is not known.
    """
    found = set()
    for container in ContainerStore(root):
        try:
            found.add(container.record().snapshot)
        except NoContainerError:
            continue
    return frozenset(found - {""})


def _name_of(container: Container) -> str:
    try:
        return container.record().name
    except CastoffError:
        return ""


def _new_name(taken: set[str]) -> str:
    for _ in range(100):
        name = f"{secrets.choice(_FIRST.split())}_{secrets.choice(_SECOND.split())}"
        if name not in taken:
            return name
    return f"container_{secrets.token_hex(4)}"
