"""Limits on what a container may use, by control groups of either version (man 7 cgroups).

Version 1: a group below castoff's own in each hierarchy that a limit needs. Version 2: for root a group below
``castoff`` at the top; for others one below castoff's own, which must have been delegated to the user.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from castoff.errors import UnsupportedError

if TYPE_CHECKING:
    from castoff.containers.record import Limits

_PERIOD = 100_000
_HINT = "start castoff in a group of its own: systemd-run --user --scope -p Delegate=yes castoff …"
_HINT_ROOT = "castoff must be able to write below /sys/fs/cgroup (in a container, start that with its cgroups writable)"
_TRIES = 200
_PAUSE = 0.01


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a controller is: the group of this process, the folder at the top, and the version."""

    own: str
    top: str
    version: int


class Cgroup:
    """The control groups of one container.

    Attributes:
        procs: the files by which a process joins them.
    """

    def __init__(self, folders: dict[str, str], homes: tuple[str, ...]) -> None:
        """Take folders by controller, and those that this process is in without them."""
        self._folders = folders
        self._homes = homes
        self.procs = tuple(f"{folder}/cgroup.procs" for folder in dict.fromkeys(folders.values()))

    @classmethod
    def create(cls, name: str, limits: Limits, root: str = "/") -> Cgroup:
        """Make groups with limits.

        Args:
            name: of the groups; unique on this machine.
            limits: what the container may use.
            root: where ``proc`` and the paths of mounts begin.

        Raises:
            UnsupportedError: the kernel, or the owner of castoff's own group, does not allow it.
        """
        folders: dict[str, str] = {}
        homes: list[str] = []
        made = cls(folders, ())
        for option, controller, files in _settings(limits):
            try:
                place = _places(root).get(controller)
                if place is None:
                    raise FileNotFoundError(errno.ENOENT, f"the kernel has no controller {controller}")
                folder = folders.get(controller) or _make_group(place, name, controller)
                folders[controller] = folder
                for file, value in files[place.version - 1]:
                    _write(f"{folder}/{file}", value)
                homes.append(f"{place.own}/cgroup.procs")
            except OSError as error:
                made.remove()
                raise UnsupportedError(
                    f"{option} can't be set on this machine: {error.strerror}",
                    feature="cgroups",
                    hint=_HINT if os.geteuid() else _HINT_ROOT,
                ) from error
        return cls(folders, tuple(dict.fromkeys(homes)))

    def enter(self) -> None:
        """Move this process into the groups, and with it what it starts from now on.

        Raises:
            OSError: the kernel refused.
        """
        for path in self.procs:
            _write(path, "0")

    def leave(self) -> None:
        """Move this process, and its children in the groups, back to where it was; theirs stay.

        Raises:
            OSError: the kernel refused.
        """
        own = os.getpid()
        for path, home in zip(self.procs, self._homes, strict=False):
            with open(path, encoding="ascii") as file:
                pids = [int(line) for line in file]
            for pid in pids:
                if pid == own or _parent(pid) == own:
                    _write(home, str(pid))

    def oom_killed(self) -> bool:
        """Tell whether the kernel has killed something in the groups for lack of memory."""
        folder = self._folders.get("memory", "")
        for name in ("memory.events", "memory.oom_control"):
            with contextlib.suppress(OSError), open(f"{folder}/{name}", encoding="ascii") as file:
                return any(line.startswith("oom_kill ") and line.split()[1] != "0" for line in file)
        return False

    def remove(self) -> None:
        """Remove the groups; those in which something still ends are waited for a moment. Idempotent."""
        for folder in dict.fromkeys(self._folders.values()):
            for _ in range(_TRIES):
                try:
                    os.rmdir(folder)
                except OSError as error:
                    if error.errno == errno.EBUSY:
                        time.sleep(_PAUSE)
                        continue
                break


def _settings(limits: Limits) -> list[tuple[str, str, tuple[list[tuple[str, str]], list[tuple[str, str]]]]]:
    """Return, for each limit, the option, the controller, and files and values for versions 1 and 2."""
    settings = []
    if limits.memory:
        size = str(limits.memory)
        settings.append(("--memory", "memory", ([("memory.limit_in_bytes", size)], [("memory.max", size)])))
    if limits.cpus:
        quota = str(max(1000, int(limits.cpus * _PERIOD)))
        first = [("cpu.cfs_period_us", str(_PERIOD)), ("cpu.cfs_quota_us", quota)]
        settings.append(("--cpus", "cpu", (first, [("cpu.max", f"{quota} {_PERIOD}")])))
    if limits.pids:
        number = [("pids.max", str(limits.pids))]
        settings.append(("--pids-limit", "pids", (number, number)))
    return settings


def _places(root: str) -> dict[str, _Place]:
    """Return where each controller is, as /proc says."""
    own: dict[str, str] = {}
    with open(os.path.join(root, "proc/self/cgroup"), encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            _, names, path = line.rstrip("\n").split(":", 2)
            own |= dict.fromkeys(names.split(",") if names else [""], path)
    places: dict[str, _Place] = {}
    with open(os.path.join(root, "proc/self/mountinfo"), encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            fields, _, tail = line.rstrip("\n").partition(" - ")
            kind, _, options = tail.split(" ", 2)
            top = root.rstrip("/") + fields.split(" ")[4]
            if kind == "cgroup":
                for name in options.split(","):
                    if name in own:
                        places[name] = _place(top, own[name], 1)
            elif kind == "cgroup2" and "" in own:
                with contextlib.suppress(OSError), open(f"{top}/cgroup.controllers", encoding="ascii") as available:
                    for name in available.read().split():
                        places.setdefault(name, _place(top, own[""], 2))
    return places


def _place(top: str, own: str, version: int) -> _Place:
    """Return a place; with a namespace of control groups the path may be that of elsewhere, and the top is meant."""
    path = top + own.rstrip("/")
    return _Place(path if os.path.isdir(path) else top, top, version)


def _make_group(place: _Place, name: str, controller: str) -> str:
    parent = place.own
    if place.version == 2:
        # A group that hands a controller on may have no processes itself, but for the one at the top.
        at_top = os.geteuid() == 0 and os.access(place.top, os.W_OK)
        parent = f"{place.top}/castoff" if at_top else place.own
        if at_top:
            _hand_on(place.top, controller)
            os.makedirs(parent, exist_ok=True)
        _hand_on(parent, controller)
    folder = f"{parent}/castoff-{name}"
    os.makedirs(folder, exist_ok=True)
    return folder


def _hand_on(folder: str, controller: str) -> None:
    path = f"{folder}/cgroup.subtree_control"
    try:
        _write(path, f"+{controller}")
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        # The processes in it, castoff itself among them, move into a leaf.
        leaf = f"{folder}/castoff-leaf"
        os.makedirs(leaf, exist_ok=True)
        with open(f"{folder}/cgroup.procs", encoding="ascii") as file:
            pids = file.read().split()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                _write(f"{leaf}/cgroup.procs", pid)
        _write(path, f"+{controller}")


def _write(path: str, text: str) -> None:
    with open(path, "wb", buffering=0) as file:
        file.write(text.encode())


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except OSError:
        return 0
