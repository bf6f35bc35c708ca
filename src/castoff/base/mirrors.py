"""Where an archive may be found: what the caller says, else the machine's apt settings.

Nothing here is trusted: whatever a mirror serves is verified by signature and SHA256, so a wrong address can only fail.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from castoff.base.lockfile import ARCHIVES
from castoff.errors import UsageError

DEBIAN = "debian.org"
"""The domain of the Debian project."""
SNAPSHOT_HOST = f"http://snapshot.{DEBIAN}/archive"
_LIST_LINE = re.compile(r"deb\s+(?:\[(?P<options>[^\]]*)\]\s*)?(?P<uri>\S+)\s+(?P<suite>\S+)(?:\s+(?P<rest>.*))?")


@dataclass(frozen=True, slots=True)
class AptSource:
    """One entry of apt's sources: a URI and the suites that are taken from it."""

    uri: str
    suites: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Mirrors:
    """Knows where archives may be.

    Attributes:
        given: (archive, URL) pairs that the caller gave; they are taken first and nothing but the snapshot archive
            after them.
        apt: the machine's apt sources.
        snapshot: URL of the snapshot archive, whose folders are archives; "" for none.
    """

    given: tuple[tuple[str, str], ...] = ()
    apt: tuple[AptSource, ...] = ()
    snapshot: str = SNAPSHOT_HOST

    def urls(self, archive: str, suite: str) -> tuple[str, ...]:
        """Return the URLs of the roots where a suite may be, the most likely first, without a slash at the end."""
        given = tuple(url for name, url in self.given if name == archive)
        if given:
            return given
        return tuple(dict.fromkeys(source.uri for source in self.apt if suite in source.suites))

    def snapshots(self, archive: str, stamps: Sequence[str]) -> tuple[str, ...]:
        """Return the URLs of an archive's roots as they were at some times of the form ``20260131T120000Z``."""
        return tuple(f"{self.snapshot}/{archive}/{stamp}" for stamp in stamps) if self.snapshot else ()


def parse_mirror(text: str) -> tuple[str, str]:
    """Read ``URL`` (of the main archive) or ``debian-security=URL``.

    Raises:
        UsageError: the archive is not known, or the URL not one of http, https or file.
    """
    name, equals, url = text.partition("=")
    if not equals or name not in ARCHIVES:
        name, url = ARCHIVES[0], text
    if not re.fullmatch(r"(?:https?|file)://\S+", url):
        raise UsageError(
            f"the mirror {text!r} is not valid",
            hint=f"it is an http, https or file URL, after one of {', '.join(ARCHIVES)} and '=' for that archive",
        )
    return name, url.rstrip("/")


def read_apt_sources(folder: str = "/etc/apt") -> tuple[AptSource, ...]:
    """Return the machine's apt sources for binary packages, in apt's order; files that can't be read are left out."""
    parts = os.path.join(folder, "sources.list.d")
    names = sorted(os.listdir(parts)) if os.path.isdir(parts) else []
    paths = [os.path.join(folder, "sources.list"), *(os.path.join(parts, name) for name in names)]
    found: list[AptSource] = []
    for path in paths:
        try:
            with open(path, encoding="utf-8", errors="replace") as stream:
                text = stream.read(1 << 20)
        except OSError:
            continue
        if path.endswith(".sources"):
            found += _deb822(text)
        elif path.endswith(".list"):
            found += _one_line(text)
    return tuple(found)


def _usable(uri: str) -> bool:
    return uri.startswith(("http://", "https://", "file:///"))


def _one_line(text: str) -> Iterator[AptSource]:
    """Yield the entries of the one-line form (sources.list(5))."""
    for line in text.splitlines():
        found = _LIST_LINE.fullmatch(line.partition("#")[0].strip())
        if found and _usable(found["uri"]):
            yield AptSource(found["uri"].rstrip("/"), (found["suite"],))


def _deb822(text: str) -> Iterator[AptSource]:
    """Yield the entries of the deb822 form (sources.list(5)): each URI with all suites."""
    from debian.deb822 import Deb822

    for stanza in Deb822.iter_paragraphs(text.splitlines(keepends=True), use_apt_pkg=False):
        if stanza.get("Enabled", "yes").strip().lower() in ("no", "false", "0", "off", "without", "disable"):
            continue
        if "deb" not in stanza.get("Types", "").split():
            continue
        suites = tuple(stanza.get("Suites", "").split())
        for uri in stanza.get("URIs", "").split():
            if suites and _usable(uri):
                yield AptSource(uri.rstrip("/"), suites)
