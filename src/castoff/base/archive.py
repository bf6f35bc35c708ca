"""A Debian archive: signed Release file, package index, packages, each verified by the one before.

The forms are those of the Debian repository format: InRelease is signed with OpenPGP, it holds the SHA256 of the
Packages indexes, and these hold the SHA256 of the packages.
"""

from __future__ import annotations

import calendar
import email.utils
import hashlib
import lzma
import os
import re
import shutil
import subprocess
import tempfile
import time
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from castoff.base.download import Download, DownloadCache, NotThereError, check_digest, read_url, with_suffix
from castoff.errors import CastoffError, DigestMismatchError, RegistryError, StoreError, UnsupportedError

if TYPE_CHECKING:
    from castoff.base.lockfile import Lock, LockedPackage
    from castoff.base.mirrors import Mirrors

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_MAX_RELEASE = 16 << 20
_MAX_INDEX = 512 << 20
_HALF_DAY = 43200


class SignatureError(RegistryError):
    """A Release file is not signed by a key of the keyring."""


@dataclass(frozen=True, slots=True)
class Release:
    """What a verified InRelease file says.

    Attributes:
        origin: who made the archive.
        names: its suite's name and codename.
        time: its date, in seconds since the epoch.
        architectures: the architectures that it has indexes for.
        by_hash: whether indexes can be asked for by their digest.
        separate_all: whether packages for all architectures are only in an index of their own.
        files: hexadecimal SHA256 and size by path below the suite's folder.
    """

    origin: str
    names: tuple[str, ...]
    time: int
    architectures: tuple[str, ...]
    by_hash: bool
    separate_all: bool
    files: dict[str, tuple[str, int]]


@dataclass(frozen=True, slots=True)
class SuiteIndex:
    """The packages of one suite and component: `text` is a Packages file, verified, as its bytes."""

    archive: str
    suite: str
    component: str
    time: int
    text: bytes


@dataclass(frozen=True, slots=True)
class Archive:
    """Reads archives through mirrors.

    Attributes:
        mirrors: where they may be.
        downloads: where files are kept.
        keyring: host path of the OpenPGP keys that are trusted.
    """

    mirrors: Mirrors
    downloads: DownloadCache
    keyring: str = KEYRING

    def indexes(self, archive: str, suite: str, components: tuple[str, ...], architecture: str) -> list[SuiteIndex]:
        """Return the package indexes of a suite.

        Raises:
            RegistryError: no mirror has the suite, or none that has it is of origin Debian.
            SignatureError: what was found is not signed by a trusted key.
            DigestMismatchError: an index is not the one that was signed.
            UnsupportedError: gpgv or the keyring is missing.
        """
        urls = self.mirrors.urls(archive, suite)
        if not urls:
            raise RegistryError(
                f"this machine's apt settings name no mirror of the suite {suite}",
                hint=f"name one with --mirror {archive}=URL or in CASTOFF_MIRROR",
            )
        errors: list[CastoffError] = []
        for url in urls:
            try:
                return self._indexes_from(url, archive, suite, components, architecture)
            except (RegistryError, DigestMismatchError) as error:
                errors.append(error)
        first = next((error for error in errors if not isinstance(error, NotThereError)), errors[0])
        if first.hint is None:
            first.hint = f"name a mirror: --mirror {archive}=URL"
        raise first

    def _indexes_from(
        self, url: str, archive: str, suite: str, components: tuple[str, ...], architecture: str
    ) -> list[SuiteIndex]:
        folder = f"{url}/dists/{suite}"
        release = parse_release(verify(read_url(f"{folder}/InRelease", _MAX_RELEASE), self.keyring, folder), folder)
        if release.origin != "Debian" or suite not in release.names:
            raise RegistryError(f"{folder} is of origin {release.origin!r} and suite {'/'.join(release.names)!r}")
        if architecture not in release.architectures:
            raise RegistryError(f"{folder} has no packages for the architecture {architecture!r}")
        indexes = []
        kinds = (architecture, "all") if release.separate_all else (architecture,)
        for component in components:
            for kind in kinds:
                text = self._packages(folder, release, f"{component}/binary-{kind}")
                indexes.append(SuiteIndex(archive, suite, component, release.time, text))
        return indexes

    def _packages(self, folder: str, release: Release, path: str) -> bytes:
        for suffix in (".xz", ".gz", ""):
            name = f"{path}/Packages{suffix}"
            if name in release.files:
                break
        else:
            raise RegistryError(f"{folder} has no index {path}")
        sha256, size = release.files[name]
        urls = [with_suffix(folder, name)]
        if release.by_hash:
            # A mirror in the middle of an update still has the old index under its digest.
            urls.insert(0, f"{folder}/{path}/by-hash/SHA256/{sha256}")
        local = self.downloads.fetch(Download(name, tuple(urls), sha256, size))
        with open(local, "rb") as stream:
            data = stream.read()
        check_digest(f"{folder}/{name}", sha256, hashlib.sha256(data).hexdigest())
        return _decompress(data, suffix, f"{folder}/{name}")

    def package(self, package: LockedPackage, lock: Lock) -> str:
        """Return the host path of a package, verified; from the snapshot archive where the mirror has it no more.

        Raises:
            NotThereError: neither has it; the package, its version and what to do are named.
            RegistryError: they can't be reached.
            DigestMismatchError: it is not the package that was locked.
        """
        roots = self.mirrors.urls(package.archive, package.suite)
        roots += self.mirrors.snapshots(package.archive, _stamps(lock.time_of(package)))
        urls = tuple(with_suffix(root, package.path) for root in roots)
        name = f"{package.name} {package.version}"
        try:
            return self.downloads.fetch(Download(name, urls, package.sha256, package.size))
        except RegistryError as error:
            gone = isinstance(error, NotThereError)
            reason = "neither the mirror nor the snapshot archive has it any more" if gone else error.message
            raise (NotThereError if gone else RegistryError)(
                f"the locked package {package.name} {package.version} can't be had: {reason}",
                status=error.status,
                temporary=error.temporary,
                hint="lock the recipe again with `castoff base lock RECIPE.toml`, or name another --mirror"
                if gone
                else "check the network, or name another mirror with --mirror",
            ) from error


def _stamps(seconds: int) -> tuple[str, ...]:
    """Return times at which the snapshot archive should have what a Release file of a time lists.

    The archive is photographed some hours after its Release file is made, and a time without a photograph means the
    one before it.
    """
    steps = (seconds + _HALF_DAY, seconds + 4 * _HALF_DAY, seconds)
    return tuple(time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(step)) for step in steps)


def verify(signed: bytes, keyring: str, what: str) -> str:
    """Return the text of a clear-signed file after checking its signature with gpgv.

    Raises:
        SignatureError: it is not signed by a key of the keyring.
        UnsupportedError: gpgv or the keyring is missing.
    """
    gpgv = shutil.which("gpgv")
    if not gpgv:
        raise UnsupportedError(
            "gpgv is needed to verify Debian's archive", feature="gpgv", hint="install it: apt-get install gpgv"
        )
    if not os.access(keyring, os.R_OK):
        raise UnsupportedError(
            f"the keyring {keyring} is needed to verify Debian's archive",
            feature="debian-archive-keyring",
            hint="install it: apt-get install debian-archive-keyring",
        )
    with tempfile.TemporaryDirectory(prefix="castoff-") as folder:
        path, output = os.path.join(folder, "signed"), os.path.join(folder, "text")
        with open(path, "wb") as stream:
            stream.write(signed)
        # Only what gpgv wrote is used: text outside the signed part of the file is worth nothing.
        argv = [gpgv, "--homedir", folder, "--keyring", keyring, "--output", output, path]
        result = subprocess.run(argv, capture_output=True, stdin=subprocess.DEVNULL, check=False)
        if result.returncode or not os.path.exists(output):
            reason = result.stderr.decode("utf-8", "replace").strip().splitlines()
            raise SignatureError(
                f"the signature of {what} is not good",
                diagnostics=" ".join(reason[-2:]),
                hint="update the package debian-archive-keyring, or name another mirror",
            )
        with open(output, "rb") as stream:
            return stream.read().decode("utf-8", "surrogateescape")


def parse_release(text: str, what: str) -> Release:
    """Read the text of a Release file.

    Raises:
        RegistryError: a field that is needed is missing or not well formed.
    """
    from debian.deb822 import Deb822

    fields = Deb822(text.splitlines(keepends=True))
    parsed = email.utils.parsedate_tz(fields.get("Date", "").replace("UTC", "+0000"))
    if parsed is None or "SHA256" not in fields:
        raise RegistryError(f"{what} has no Date, or no SHA256 of its indexes")
    files = {}
    for line in fields["SHA256"].splitlines():
        words = line.split()
        if len(words) == 3 and re.fullmatch(r"[0-9a-f]{64}", words[0]) and words[1].isdigit():
            files[words[2]] = (words[0], int(words[1]))
    architectures = tuple(fields.get("Architectures", "").split())
    return Release(
        origin=fields.get("Origin", ""),
        names=tuple(dict.fromkeys(name for name in (fields.get("Codename"), fields.get("Suite")) if name)),
        time=calendar.timegm((*parsed[:6], 0, 0, 0)) - (parsed[9] or 0),
        architectures=architectures,
        by_hash=fields.get("Acquire-By-Hash", "") == "yes",
        separate_all="all" in architectures
        and "Packages" not in fields.get("No-Support-for-Architecture-all", "").split(),
        files=files,
    )


def _decompress(data: bytes, suffix: str, what: str) -> bytes:
    """Return the content of an index, at most _MAX_INDEX bytes of it."""
    try:
        if suffix == ".xz":
            text = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=256 << 20).decompress(data, _MAX_INDEX + 1)
        elif suffix == ".gz":
            text = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(data, _MAX_INDEX + 1)
        else:
            text = data
    except (lzma.LZMAError, zlib.error) as error:
        raise StoreError(f"{what} can't be decompressed: {error}") from error
    if len(text) > _MAX_INDEX:
        raise StoreError(f"{what} has more than the {_MAX_INDEX} bytes that are read")
    return text
