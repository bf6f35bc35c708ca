"""Everything that a freeze begins with: interpreter, import path, distributions, application, entry; all checked."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from castoff_freeze import distributions
from castoff_freeze.entry import Entry, server_names
from castoff_freeze.errors import EntryError, UsageError
from castoff_freeze.files import Inventory, take_inventory
from castoff_freeze.python import Python, probe, search_path

if TYPE_CHECKING:
    from castoff_freeze.distributions import Distribution
    from castoff_freeze.selection import Mode
    from castoff_freeze.smoke import Smoke

_TOO_HIGH = frozenset("/ /usr /usr/lib /usr/local /usr/local/lib /etc /opt /home /root /var /bin /usr/bin /lib".split())


@dataclass(frozen=True, slots=True)
class FreezeRequest:
    """What is asked for.

    Attributes:
        entry: what to start; a console script without its target.
        smoke: what to ask of it.
        output: folder to make.
        python: path of the interpreter.
        mode: how much is kept.
        lock: requirements file, or "" for all that is installed.
        paths: import path before the interpreter's own; none for that of PYTHONPATH.
        application: files and folders of the application; none to find them by the entry.
        include: paths and modules that are kept in any case.
        exclude: paths and modules that are left out.
        split: whether dependencies and application go to folders of their own.
        report: folder for manifest, bill of materials and sizes; "" for one beside the output.
        isolation: ``auto``, ``namespaces``, ``chroot`` or ``none``.
        watch: ``auto``, ``fanotify``, ``inotify`` or ``none``.
        uid: user that the service runs as.
        retries: how many times missing files are added.
        docstrings: whose are kept: ``all``, ``dependencies`` (and the application), ``application`` or ``none``.
        strip: whether symbols are taken out of machine code.
        launcher: path of the launcher inside of the tree.
        environment: of the calling process.
        epoch: time of every file, in seconds since 1970.
        weigh: whether the tree is compressed, to tell what it would weigh as a layer.
        said: takes lines of progress.
    """

    entry: Entry
    smoke: Smoke
    output: str
    python: str
    mode: Mode = "safe"
    lock: str = ""
    paths: tuple[str, ...] = ()
    application: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    split: bool = False
    report: str = ""
    isolation: str = "auto"
    watch: str = "auto"
    uid: int = 65532
    retries: int = 5
    docstrings: str = "dependencies"
    strip: bool = True
    launcher: str = "/start"
    environment: Mapping[str, str] = field(default_factory=dict)
    epoch: int = 315532800
    weigh: bool = True
    said: Callable[[str], None] = lambda _line: None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a freeze begins with.

    Attributes:
        request: what is asked for.
        python: the interpreter.
        paths: goes before the interpreter's own import path.
        dependencies: by name.
        application: files and folders.
        inventory: all files that could be kept.
        entry: what to start, complete.
        port: that the service listens on in every run.
    """

    request: FreezeRequest
    python: Python
    paths: tuple[str, ...]
    dependencies: Mapping[str, Distribution]
    application: tuple[str, ...]
    inventory: Inventory
    entry: Entry
    port: int

    def environment(self) -> dict[str, str]:
        """Return the variables of the service in every run."""
        smoke = self.request.smoke
        variables = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/", "PYTHONHASHSEED": "0"}
        if self.entry.kind == "app":
            variables |= {"HOST": "127.0.0.1", "PORT": str(self.port)}
        variables |= smoke.environment
        if smoke.port_variable:
            variables[smoke.port_variable] = str(self.port)
        return variables

    def folders(self) -> dict[str, str]:
        """Return the folder that each dependency is installed in, by ``name version``."""
        return {str(item): item.folder for item in self.dependencies.values()}


def survey(request: FreezeRequest) -> Surroundings:
    """Look at everything and check it.

    Raises:
        UsageError: entry, lock or application make no sense here.
        UnsafePackageError: a package can't be frozen.
        FreezeError: the interpreter can't be used.
    """
    python = probe(request.python, request.environment)
    given = request.paths or tuple(
        entry for entry in request.environment.get("PYTHONPATH", "").split(os.pathsep) if entry
    )
    paths = tuple(dict.fromkeys(os.path.abspath(path) for path in given))
    found = distributions.installed(search_path(python, paths))
    picked = distributions.chosen(found, request.lock)
    entry = _complete(request.entry, picked, found)
    paths = _with_entry_folder(entry, paths, python)
    application, own = _application(request, entry, paths, picked, python)
    dependencies = {name: item for name, item in picked.items() if name != own}
    distributions.check_safe(dependencies.values())
    inventory = take_inventory(python, search_path(python, paths), dependencies.values(), application)
    entry = _with_server(entry, inventory)
    _check_entry(entry, inventory)
    entry = _with_origin(entry, inventory)
    port = request.smoke.port
    if entry.kind == "app" or request.smoke.port_variable:
        port = _free_port()
    return Surroundings(request, python, paths, dependencies, application, inventory, entry, port)


def _complete(entry: Entry, picked: Mapping[str, Distribution], found: Mapping[str, Distribution]) -> Entry:
    if entry.kind != "console":
        return entry
    for item in picked.values():
        if entry.name in item.console_scripts:
            return replace(entry, target=item.console_scripts[entry.name])
    unlocked = [item for item in found.values() if entry.name in item.console_scripts]
    if unlocked:
        raise EntryError(f"the console script {entry.name} belongs to {unlocked[0]}, which the lock does not have")
    names = sorted({name for item in picked.values() for name in item.console_scripts})
    raise EntryError(
        f"no installed package has a console script {entry.name!r}",
        hint=f"there are {', '.join(names[:12])}" if names else "no installed package has any",
    )


def _with_entry_folder(entry: Entry, paths: tuple[str, ...], python: Python) -> tuple[str, ...]:
    """Return the import path with the folder that Python itself would add for such an entry."""
    if entry.kind == "script":
        return tuple(dict.fromkeys((os.path.dirname(entry.script), *paths)))
    if _find_module(entry.module, search_path(python, paths)):
        return paths
    here = os.getcwd()
    return (*paths, here) if _find_module(entry.module, [here]) else paths


def _find_module(module: str, path: Sequence[str]) -> str:
    """Return the file or folder of the top of a module along a path, or ""."""
    top = module.partition(".")[0]
    for entry in path:
        for name in (top, f"{top}.py"):
            place = os.path.join(entry, name)
            if os.path.isfile(place) or os.path.isdir(place):
                return place
    return ""


def _application(
    request: FreezeRequest,
    entry: Entry,
    paths: tuple[str, ...],
    picked: Mapping[str, Distribution],
    python: Python,
) -> tuple[tuple[str, ...], str]:
    """Return files and folders of the application, and the distribution that it is, or ""."""
    if request.application:
        given = tuple(os.path.abspath(path) for path in request.application)
        for path in given:
            if not os.path.exists(path):
                raise UsageError(f"there is no application {path}")
        return given, ""
    place = entry.script or _find_module(entry.module, search_path(python, paths))
    if not place:
        raise EntryError(
            f"there is no module {entry.module.partition('.')[0]}",
            hint=f"looked in {', '.join(search_path(python, paths))}; --path adds a folder",
        )
    for name, item in picked.items():
        if place in item.files or any(file.startswith(place + os.sep) for file in item.files):
            return item.files, name
    if os.path.isdir(place):
        return (place,), ""
    folder = os.path.dirname(place)
    if folder in _TOO_HIGH or folder == python.stdlib or python.is_site(folder):
        return (place,), ""
    return tuple(_siblings(folder, request, paths)), ""


def _siblings(folder: str, request: FreezeRequest, paths: Sequence[str]) -> list[str]:
    """Return what lies beside an application's file, but for what is known to be none of it."""
    others = {os.path.abspath(path) for path in (request.lock, request.output, request.report) if path}
    others |= {path for path in paths if path != folder}
    names = (name for name in sorted(os.listdir(folder)) if not name.startswith((".", "Dockerfile")))
    kept = [os.path.join(folder, name) for name in names if not name.endswith((".lock", ".in", "smoke.toml", ".whl"))]
    left = {"tests", "__pycache__", "held_out.toml", "requirements.txt"}
    return [path for path in kept if path not in others and os.path.basename(path) not in left]


def _with_server(entry: Entry, inventory: Inventory) -> Entry:
    if entry.kind != "app":
        return entry
    known = [name for name in server_names() if name in inventory.modules]
    if entry.server:
        if entry.server not in known:
            raise EntryError(f"the server {entry.server} is not among what may be frozen", hint="add it to the lock")
        return entry
    if not known:
        raise EntryError(
            f"{entry.target} needs a server, and none is installed", hint=f"install one of {', '.join(server_names())}"
        )
    return replace(entry, server=known[0])


def _check_entry(entry: Entry, inventory: Inventory) -> None:
    if entry.kind == "script":
        return
    if entry.module not in inventory.modules:
        raise EntryError(f"there is no module {entry.module} in what may be frozen")
    if entry.kind == "module" and inventory.modules[entry.module].package:
        main = f"{entry.module}.__main__"
        if main not in inventory.modules:
            raise EntryError(f"the package {entry.module} has no __main__ module, so -m cannot start it")


def _with_origin(entry: Entry, inventory: Inventory) -> Entry:
    """Return a module's entry with the path of the source that it starts."""
    started = entry.server or (entry.target if entry.kind == "module" else "")
    for name in (f"{started}.__main__", started):
        if started and name in inventory.modules:
            return replace(entry, origin=inventory.modules[name].path)
    return entry


def _free_port() -> int:
    with socket.socket() as probe_:
        probe_.bind(("127.0.0.1", 0))
        return int(probe_.getsockname()[1])
