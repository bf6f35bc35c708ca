"""What is installed: distributions with their files, and whether they are what the lock names."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from castoff_freeze.errors import LockError, UnsafePackageError

TOOLS = frozenset("pip setuptools wheel castoff-freeze pyelftools uv ensurepip distlib".split())
"""Distributions that build others and that are never meant when all that is installed is frozen."""

_MAX_LOCK = 16 << 20
_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^]]*\])?\s*==\s*([^\s;\\,]+)\s*(;[^\\]*)?")
_NAME = re.compile(r"[-_.]+")


@dataclass(frozen=True, slots=True)
class Distribution:
    """An installed distribution.

    Attributes:
        name: normalised.
        version: as its metadata has it.
        license: as its metadata has it, or "".
        folder: that it is installed in.
        metadata: its ``.dist-info`` folder.
        files: absolute paths of its files, bytecode left out.
        home: address of its project, or "".
        console_scripts: names to ``module:function``.
    """

    name: str
    version: str
    license: str
    folder: str
    metadata: str
    files: tuple[str, ...]
    home: str
    console_scripts: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def normalise(name: str) -> str:
    """Return a distribution's name in the one spelling that names are compared in (PEP 503)."""
    return _NAME.sub("-", name).lower()


def installed(path: Sequence[str]) -> dict[str, Distribution]:
    """Return the distributions that are found along an import path; the first of a name counts."""
    found: dict[str, Distribution] = {}
    for item in importlib.metadata.distributions(path=list(path)):
        distribution = _read(item)
        if distribution is not None:
            found.setdefault(distribution.name, distribution)
    return dict(sorted(found.items()))


def _read(item: importlib.metadata.Distribution) -> Distribution | None:
    name = item.metadata["Name"]
    location = getattr(item, "_path", None)
    if not name or location is None:
        return None
    metadata = os.path.abspath(str(location))
    folder = os.path.dirname(metadata)
    files = {os.path.normpath(os.path.join(folder, str(file))) for file in item.files or ()}
    scripts = {
        point.name: point.value.partition("[")[0].strip()
        for point in item.entry_points
        if point.group == "console_scripts"
    }
    declared = item.metadata["License-Expression"] or item.metadata["License"] or ""
    return Distribution(
        normalise(name),
        item.metadata["Version"] or "",
        declared if "\n" not in declared and len(declared) < 200 else "",
        folder,
        metadata,
        tuple(sorted(path for path in files if not path.endswith(".pyc"))),
        item.metadata["Home-page"] or "",
        scripts,
    )


def read_lock(path: str) -> dict[str, tuple[tuple[str, ...], bool]]:
    """Return what a requirements file pins: normalised names with the versions, and whether markers limit all of them.

    Raises:
        LockError: it can't be read, pins nothing, or has a line that is no pinned requirement.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(_MAX_LOCK).decode()
    except OSError as error:
        raise LockError(f"cannot read the lock {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise LockError(f"the lock {path} is not text in UTF-8") from error
    pins: dict[str, tuple[tuple[str, ...], bool]] = {}
    for line in text.replace("\\\n", " ").splitlines():
        words = line.split(" #")[0].strip()
        if not words or words.startswith(("#", "-")):
            continue
        match = _REQUIREMENT.match(words)
        if match is None:
            raise LockError(
                f"the lock {path} has a line that pins no version: {words[:80]}",
                hint="make it with `pip-compile --generate-hashes` or `uv pip compile --generate-hashes`",
            )
        # A lock for several versions of Python may pin a name more than once, each time with a marker.
        known, limited = pins.get(normalise(match[1]), ((), True))
        pins[normalise(match[1])] = ((*known, match[2]), limited and bool(match[3]))
    if not pins:
        raise LockError(f"the lock {path} pins nothing")
    return pins


def chosen(found: Mapping[str, Distribution], lock: str) -> dict[str, Distribution]:
    """Return the distributions that may be frozen: those of the lock, or all but tools where there is none ("").

    Raises:
        LockError: what the lock names is not installed, or in another version.
    """
    if not lock:
        # What a system's package manager installed beside has no record; if it is used, the verification finds out.
        return {name: item for name, item in found.items() if name not in TOOLS and item.files and not _is_egg(item)}
    picked: dict[str, Distribution] = {}
    for name, (versions, conditional) in read_lock(lock).items():
        item = found.get(name)
        if item is None:
            if conditional:
                continue
            raise LockError(
                f"{name} {versions[0]} is in the lock {lock} but not installed", hint="install the lock first"
            )
        if item.version not in versions:
            raise LockError(f"{name} is installed as {item.version}, but the lock {lock} has {' and '.join(versions)}")
        picked[name] = item
    return picked


def check_safe(items: Iterable[Distribution]) -> None:
    """Refuse distributions whose files are not all known, or lie elsewhere.

    Raises:
        UnsafePackageError: saying which and why.
    """
    for item in items:
        if not item.files:
            raise UnsafePackageError(
                f"{item} cannot be frozen: it was installed without a record of its files",
                hint="install it from a wheel, or leave it out with a lock",
            )
        if _is_egg(item):
            raise UnsafePackageError(
                f"{item} cannot be frozen: it is installed as an egg", hint="install it from a wheel"
            )
        if _is_editable(item):
            raise UnsafePackageError(
                f"{item} cannot be frozen: it is installed in editable mode, so its files are elsewhere",
                hint="install it without --editable",
            )


def _is_egg(item: Distribution) -> bool:
    return item.metadata.endswith(".egg-info") or ".egg/" in item.metadata


def _is_editable(item: Distribution) -> bool:
    try:
        with open(os.path.join(item.metadata, "direct_url.json"), encoding="utf-8") as file:
            origin = json.load(file)
    except (OSError, ValueError):
        return False
    return isinstance(origin, dict) and bool((origin.get("dir_info") or {}).get("editable"))
