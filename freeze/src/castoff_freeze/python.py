"""The interpreter that is frozen: where it is, and where its parts are."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from castoff_freeze.errors import FreezeError

_PROBE = """
import importlib.machinery, importlib.util, json, os, platform, site, sys, sysconfig
try:
    import ssl
    paths = ssl.get_default_verify_paths()
    tls = [paths.openssl_cafile, paths.openssl_capath, paths.cafile or ""]
except ImportError:
    tls = ["", "", ""]
json.dump({
    "executable": sys.executable, "prefix": sys.prefix, "base_prefix": sys.base_prefix,
    "stdlib": sysconfig.get_path("stdlib"), "platstdlib": sysconfig.get_path("platstdlib"),
    "path": [os.path.abspath(entry) for entry in sys.path if entry], "version": platform.python_version(),
    "tag": sys.implementation.cache_tag, "suffixes": importlib.machinery.EXTENSION_SUFFIXES,
    "implementation": sys.implementation.name, "tls": tls, "sites": site.getsitepackages(),
    "builtins": sorted(sys.builtin_module_names),
    "sysconfig": sysconfig._get_sysconfigdata_name(), "platform": sysconfig.get_platform(),
    "tzpath": sysconfig.get_config_var("TZPATH") or "",
}, sys.stdout)
"""


@dataclass(frozen=True, slots=True)
class Python:
    """An interpreter and where its parts are; all paths are absolute.

    Attributes:
        executable: as it is called, maybe a link or that of a virtual environment.
        version: such as ``3.11.2``.
        tag: of its bytecode, such as ``cpython-311``.
        prefix: of the environment; `base_prefix` is that of the interpreter.
        base_prefix: where the standard library is installed.
        stdlib: folder of the standard library.
        dynload: folder of the standard library's extension modules.
        path: import path of its own: standard library and site folders.
        sites: site folders, existing or not.
        suffixes: file name endings of extension modules.
        builtins: names of the modules inside of the executable.
        sysconfig_module: module with the build's variables, which `zoneinfo` reads.
        ca_file: where its OpenSSL looks for a bundle of certificates, or "".
        ca_folder: where its OpenSSL looks for single certificates, or "".
        tz_path: folders where it looks for time zones.
    """

    executable: str
    version: str
    tag: str
    prefix: str
    base_prefix: str
    stdlib: str
    dynload: str
    path: tuple[str, ...]
    sites: tuple[str, ...]
    suffixes: tuple[str, ...]
    builtins: frozenset[str]
    sysconfig_module: str
    ca_file: str
    ca_folder: str
    tz_path: tuple[str, ...]

    @property
    def real(self) -> str:
        """Return the executable's path without links."""
        return os.path.realpath(self.executable)

    @property
    def short_version(self) -> str:
        """Return the version without its last part, as in ``3.11``."""
        return ".".join(self.version.split(".")[:2])

    def is_site(self, folder: str) -> bool:
        """Tell whether packages are installed in a folder, for all that this interpreter runs."""
        return folder in self.sites or os.path.basename(folder) in ("site-packages", "dist-packages")


def probe(executable: str, environment: Mapping[str, str]) -> Python:
    """Ask an interpreter about itself.

    Args:
        executable: its path.
        environment: variables of the service; those that add to the import path are left out.

    Raises:
        FreezeError: it can't be run, or is not CPython 3.11 or newer.
    """
    clean = {name: value for name, value in environment.items() if not name.startswith("PYTHON")}
    try:
        done = subprocess.run(
            [executable, "-s", "-c", _PROBE], capture_output=True, check=True, env=clean, cwd="/", timeout=120
        )
        facts = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise FreezeError(f"the interpreter {executable} cannot be asked about itself: {error}") from error
    if facts["implementation"] != "cpython" or _numbers(facts["version"]) < (3, 11):
        raise FreezeError(f"{executable} is {facts['implementation']} {facts['version']}, not CPython 3.11 or newer")
    dynload = [entry for entry in facts["path"] if os.path.basename(entry) == "lib-dynload"]
    return Python(
        executable=facts["executable"] or executable,
        version=facts["version"],
        tag=facts["tag"],
        prefix=facts["prefix"],
        base_prefix=facts["base_prefix"],
        stdlib=_stdlib(facts),
        dynload=dynload[0] if dynload else os.path.join(_stdlib(facts), "lib-dynload"),
        path=tuple(facts["path"]),
        sites=tuple(facts["sites"]),
        suffixes=tuple(facts["suffixes"]),
        builtins=frozenset(facts["builtins"]),
        sysconfig_module=facts["sysconfig"],
        ca_file=facts["tls"][0],
        ca_folder=facts["tls"][1],
        tz_path=tuple(entry for entry in facts["tzpath"].split(":") if entry),
    )


def _stdlib(facts: Mapping[str, str]) -> str:
    return os.path.normpath(facts["stdlib"])


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def search_path(python: Python, extra: Sequence[str]) -> tuple[str, ...]:
    """Return the whole import path of the service: what was added, then the interpreter's own; nothing twice."""
    return tuple(dict.fromkeys((*extra, *python.path)))
