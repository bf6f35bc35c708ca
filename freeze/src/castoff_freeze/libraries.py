"""Add what machine code needs to a tree: the loader, shared libraries, and those that are only loaded by name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from castoff_freeze.elf import ALWAYS, Loader, Need, Resolver, find_loader
from castoff_freeze.tree import Item, Tree

_OLD_NSS = ("libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2")
_NSS_INSIDE = (2, 34)


def add_libraries(tree: Tree, program: str, named: Iterable[str], bundled: Mapping[str, str]) -> list[str]:
    """Add the closure of all machine code in a tree.

    Args:
        tree: holds the program and the extension modules; it is added to.
        program: path of the interpreter.
        named: names or paths that the service loaded by ``dlopen``.
        bundled: libraries that packages bring along, with the package's name and version.

    Returns:
        Names of libraries that were not found, each with the file that wants it, in words.
    """
    loader = find_loader(program)
    resolver = Resolver(loader, program, bundled)
    found: dict[str, Need] = {}
    for name in (*ALWAYS, *_nss(loader), *sorted(named)):
        need = resolver.by_name(name) if name else None
        if need is not None and not name.startswith(("/proc", "/tmp")):
            found.setdefault(need.path, Need(need.path, "", name, need.configured))
    machine_code = [item.origin or item.path for item in tree.files() if _is_elf(item)]
    closure = resolver.closure([program, *machine_code, *found])
    for path, need in {**found, **closure.found}.items():
        why = f"needed by {need.by}" if need.by else "loaded by name"
        _add(tree, need, f"{why} ({need.name})", loader, bundled.get(path, "system"))
    for folder in {os.path.dirname(loader.path)} if loader.path else ():
        tree.add_folder(folder, "folder of the loader")
    return [f"{name}, wanted by {by}" for by, name in closure.missing]


def _add(tree: Tree, need: Need, why: str, loader: Loader, owner: str) -> None:
    if need.path == loader.path:
        # A program names its loader by a path whose folders are often links: here they are folders.
        tree.add(Item(need.path, "file", why, owner=owner, source=os.path.realpath(need.path), mode=0o755))
        return
    folder = os.path.dirname(need.path)
    real = os.path.realpath(folder)
    defaults = {os.path.realpath(item) for item in loader.default}
    place = os.path.join(real, os.path.basename(need.path)) if real in defaults else need.path
    tree.add_system_file(place, why, owner)
    if need.configured and loader.default:
        # The tree has no configuration of the loader: the library gets a name in a folder that is always searched.
        home = os.path.realpath(next((item for item in loader.default if os.path.isdir(item)), loader.default[-1]))
        tree.add(Item(os.path.join(home, need.name), "link", why, owner=owner, target=place))


def _is_elf(item: Item) -> bool:
    if not item.source:
        return item.content.startswith(b"\x7fELF")
    with open(item.source, "rb") as file:
        return file.read(4) == b"\x7fELF"


def _nss(loader: Loader) -> tuple[str, ...]:
    """Return what an old glibc loads to look names up; newer ones have it inside."""
    if not loader.path or "musl" in loader.path:
        return ()
    try:
        version = tuple(int(part) for part in (os.confstr("CS_GNU_LIBC_VERSION") or "").split()[-1].split("."))
    except (ValueError, IndexError, OSError):
        return ()
    return () if version >= _NSS_INSIDE else _OLD_NSS
