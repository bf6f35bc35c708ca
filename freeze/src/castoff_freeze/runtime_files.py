"""The few files besides code that a runtime needs: users, names, certificates, time zones, media types."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from castoff_freeze.tree import Item, Tree

if TYPE_CHECKING:
    from castoff_freeze.python import Python

_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
CA_BUNDLE = _BUNDLES[0]
"""Where the tree has the certificates of authorities."""

_PASSWD = """root:x:0:0:root:/root:/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin
{user}
"""
_NONROOT = "nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin"
_GROUP = "root:x:0:\nnobody:x:65534:\nnonroot:x:65532:\n"
_HOSTS = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
_NSSWITCH = "passwd: files\ngroup: files\nhosts: files dns\n"
_ZONES_LEFT_OUT = ("posix/", "right/", "posixrules", "leap-seconds.list", "leapseconds", "SECURITY")


def add_runtime_files(tree: Tree, python: Python, loaded: Collection[str], *, sparing: bool, zones: bool) -> list[str]:
    """Add them.

    Args:
        tree: is added to.
        python: the interpreter.
        loaded: modules that are kept.
        sparing: whether only what is used is added.
        zones: whether the time zones of the system are wanted (``zoneinfo`` is used, and no package brings them).

    Returns:
        Remarks, in words.
    """
    remarks: list[str] = []
    why = "every runtime has it"
    tree.add_text("/etc/passwd", _PASSWD.format(user=_NONROOT), why)
    tree.add_text("/etc/group", _GROUP, why)
    tree.add_text("/etc/hosts", _HOSTS, why)
    tree.add_text("/etc/nsswitch.conf", _NSSWITCH, why)
    tree.add_folder("/tmp", "for temporary files", 0o1777)
    tree.add_folder("/home/nonroot", "home of the user", 0o755)
    if "ssl" in loaded or not sparing:
        remarks += _add_certificates(tree, python)
    if not sparing and os.path.isfile("/etc/mime.types"):
        tree.add_system_file("/etc/mime.types", "media types, for mimetypes")
    if zones:
        remarks += _add_zones(tree, python)
    return remarks


def _add_certificates(tree: Tree, python: Python) -> list[str]:
    """Add the bundle of certificates, under the name that the interpreter's OpenSSL looks for."""
    if not python.ca_file:
        return []
    bundle = next((path for path in (*_BUNDLES, python.ca_file) if os.path.isfile(path)), None)
    configuration = os.path.join(os.path.dirname(python.ca_file), "openssl.cnf")
    if os.path.isfile(configuration):
        tree.add_system_file(configuration, "configuration of OpenSSL")
    if bundle is None:
        return ["no certificates of authorities were found (install ca-certificates): TLS clients will trust nobody"]
    why = "certificates of authorities, for TLS clients"
    tree.add(Item(CA_BUNDLE, "file", why, source=os.path.realpath(bundle)))
    if python.ca_file != CA_BUNDLE:
        tree.add(Item(python.ca_file, "link", why, target=CA_BUNDLE))
    return []


def _add_zones(tree: Tree, python: Python) -> list[str]:
    top = next((folder for folder in (*python.tz_path, "/usr/share/zoneinfo") if os.path.isdir(folder)), None)
    if top is None:
        return ["zoneinfo is used, but there are no time zones here: install tzdata, the Debian package or the wheel"]
    seen: dict[tuple[int, int], str] = {}
    for folder, names, files in sorted(os.walk(top)):
        names.sort()
        for name in sorted(files):
            path = os.path.join(folder, name)
            if not path[len(top) + 1 :].startswith(_ZONES_LEFT_OUT) and os.path.isfile(path):
                _add_zone(tree, path, seen)
    return []


def _add_zone(tree: Tree, path: str, seen: dict[tuple[int, int], str]) -> None:
    """Add one zone; further names of the same file become links."""
    why = "time zones, for zoneinfo"
    status = os.stat(path)
    first = seen.setdefault((status.st_dev, status.st_ino), path)
    if first == path:
        tree.add(Item(path, "file", why, source=os.path.realpath(path)))
    else:
        tree.add(Item(path, "link", why, target=os.path.relpath(first, os.path.dirname(path))))


def zone_packages(names: Sequence[str]) -> bool:
    """Tell whether a dependency brings time zones along."""
    return "tzdata" in names
