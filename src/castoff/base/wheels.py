"""Wheels from PyPI: found and fetched by pip, which knows this machine's indexes, and unpacked by castoff.

A wheel is a zip archive (PyPA specifications, "Binary distribution format"); it is only unpacked, never installed.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import subprocess
import sys
import tempfile
import zipfile
import zlib
from typing import TYPE_CHECKING

from castoff.base.download import CHUNK, DownloadCache
from castoff.base.lockfile import LockedWheel
from castoff.base.roottree import RootTree, order
from castoff.errors import InvalidImageError, RegistryError, UnsupportedError, UsageError
from castoff.fs.entry import FileEntry, display

if TYPE_CHECKING:
    from castoff.base.recipe import Wheel

_MAX_CONTENT = 8 << 30
_MAX_ENTRIES = 500_000
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64", "armhf": "armv7l", "i386": "i686", "ppc64el": "ppc64le"}
_GLIBC_MINORS = range(36, 4, -1)
_LEGACY = ("manylinux2014", "manylinux2010", "manylinux1", "linux")
_DEFAULT_PYTHON = "3.11"
_ELF = b"\x7fELF"


def platforms(architecture: str) -> tuple[str, ...]:
    """Return the platform tags of wheels that run on Debian, the most demanding first (PEP 600).

    Args:
        architecture: Debian's name of it.
    """
    machine = _MACHINES.get(architecture, architecture)
    return (*(f"manylinux_2_{minor}_{machine}" for minor in _GLIBC_MINORS), *(f"{old}_{machine}" for old in _LEGACY))


def find_wheel(wheel: Wheel, architecture: str, downloads: DownloadCache) -> LockedWheel:
    """Return the wheel that pip chooses, downloaded.

    Raises:
        RegistryError: pip finds none; its own words are in `diagnostics`.
        UnsupportedError: there is no pip.
    """
    with tempfile.TemporaryDirectory(prefix="castoff-") as folder:
        path = _pip_download(wheel, architecture, folder, "")
        with open(path, "rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        downloads.add(path, sha256)
        return LockedWheel(wheel.name, wheel.version, os.path.basename(path), sha256)


def fetch_wheel(wheel: Wheel, locked: LockedWheel, architecture: str, downloads: DownloadCache) -> str:
    """Return the host path of a locked wheel, verified.

    Raises:
        RegistryError: pip does not find it.
        DigestMismatchError: what pip found is another file.
        UnsupportedError: there is no pip.
    """
    if downloads.has(locked.sha256):
        return downloads.path(locked.sha256)
    with tempfile.TemporaryDirectory(prefix="castoff-") as folder:
        return downloads.add(_pip_download(wheel, architecture, folder, locked.sha256), locked.sha256)


def _pip_download(wheel: Wheel, architecture: str, folder: str, sha256: str) -> str:
    """Let pip download one wheel into an empty folder. With a digest, pip takes no other file of the release."""
    requirements = os.path.join(folder, "requirements.txt")
    with open(requirements, "w", encoding="utf-8") as stream:
        pin = f"{wheel.name}=={wheel.version}"
        stream.write(f"{pin} --hash=sha256:{sha256}\n" if sha256 else f"{pin}\n")
    target = os.path.join(folder, "wheels")
    python = wheel.python or _DEFAULT_PYTHON
    argv = [sys.executable, "-I", "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
    argv += ["--no-deps", "--only-binary=:all:", "--no-cache-dir", "--dest", target, "--requirement", requirements]
    argv += ["--python-version", python, "--implementation", "cp" if wheel.python else "py"]
    for tag in platforms(architecture):
        argv += ["--platform", tag]
    result = subprocess.run(argv, capture_output=True, stdin=subprocess.DEVNULL, cwd=folder, check=False)
    words = result.stderr.decode("utf-8", "replace").strip()
    if result.returncode:
        if "No module named pip" in words:
            raise UnsupportedError(
                f"pip is needed to fetch the wheel {wheel.name} {wheel.version}, and {sys.executable} has none",
                feature="pip",
                hint="run castoff from an environment that has pip",
            )
        last = next((line for line in reversed(words.splitlines()) if line.startswith("ERROR:")), words[-400:])
        raise RegistryError(
            f"pip can't download the wheel {wheel.name} {wheel.version}: {last.removeprefix('ERROR:').strip()}",
            diagnostics=words,
            hint="check pip's index settings with: pip config list",
        )
    names = [name for name in os.listdir(target) if name.endswith(".whl")]
    if len(names) != 1:
        raise RegistryError(f"pip gave {len(names)} files for the wheel {wheel.name} {wheel.version}, not one")
    return os.path.join(target, names[0])


def unpack_wheel(tree: RootTree, wheel: Wheel, path: str) -> None:
    """Unpack a wheel, or one folder of it, into a tree.

    Modes are those of the archive, reduced to 0644 and 0755; what starts as an ELF program or a script and lies in a
    folder named bin or a tool's folder is executable too, since many wheels are made without modes.

    Raises:
        InvalidImageError: the wheel is damaged, too large, or an entry leads out of it; the entry is named.
        UsageError: it has no such folder.
    """
    name = os.path.basename(path)
    prefix = wheel.subpath + b"/" if wheel.subpath else b""
    found = total = 0
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) > _MAX_ENTRIES:
                raise InvalidImageError(f"the wheel {name} has more than {_MAX_ENTRIES} entries")
            for member, inside in sorted(((m, _inside(m, name)) for m in members), key=lambda pair: order(pair[1])):
                total += member.file_size
                if total > _MAX_CONTENT:
                    raise InvalidImageError(f"the wheel {name} is too large when unpacked")
                if inside.startswith(prefix) and len(inside) > len(prefix):
                    found += 1
                    _unpack_member(tree, archive, member, b"/".join((wheel.path, inside[len(prefix) :])))
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, RuntimeError) as error:
        raise InvalidImageError(f"the wheel {name} is damaged: {error}") from error
    if not found:
        raise UsageError(f"the wheel {name} has no folder {display(wheel.subpath)!r}")


def _inside(member: zipfile.ZipInfo, wheel: str) -> bytes:
    """Return the clean relative path of a member."""
    raw = os.fsencode(member.filename)
    parts = [part for part in raw.split(b"/") if part not in (b"", b".")]
    if raw.startswith(b"/") or b".." in parts or b"\0" in raw or b"\\" in raw:
        raise InvalidImageError(f"the wheel {wheel} has the entry {display(raw)!r}, which leads out of it")
    return b"/".join(parts)


def _unpack_member(tree: RootTree, archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: bytes) -> None:
    mode = member.external_attr >> 16
    if member.is_dir():
        tree.make_directory(path)
        return
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise InvalidImageError(f"the wheel has the entry {display(path)!r} of a kind that wheels do not have")
    executable = bool(mode & 0o111) or (_may_be_program(path) and _is_program(archive, member))
    permissions = 0o755 if executable else 0o644
    entry = FileEntry(path, stat.S_IFREG | permissions, size=member.file_size, mtime_ns=tree.mtime_ns)
    with archive.open(member) as stream:
        tree.add(entry, stream)
        # Reading to the end is what makes zipfile compare the checksum.
        if stream.read(CHUNK):
            raise InvalidImageError(f"the content of {display(path)!r} is longer than the wheel says")


def _may_be_program(path: bytes) -> bool:
    return bool(re.search(rb"(?:^|/)(?:s?bin|libexec|scripts|pkg/tool/[^/]+)/[^/]+$", path))


def _is_program(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    with archive.open(member) as stream:
        return stream.read(4).startswith((_ELF, b"#!"))
