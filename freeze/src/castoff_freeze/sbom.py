"""The bill of materials of a tree: an SPDX 2.3 document in JSON."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from castoff_freeze import __version__

if TYPE_CHECKING:
    from castoff_freeze.surroundings import Surroundings
    from castoff_freeze.tree import Item

_DPKG = "/var/lib/dpkg"
_UNKNOWN = "NOASSERTION"
_LICENSE = re.compile(r"[A-Za-z0-9.+-]+(?:(?: (?:AND|OR|WITH) )[A-Za-z0-9.+-]+)*")


def bill(place: Surroundings, items: Sequence[Item], digests: Mapping[str, str]) -> dict[str, Any]:
    """Return the document: application, interpreter, dependencies, and the system's packages that gave files."""
    present = {item.owner for item in items if item.kind == "file"}
    packages = [_package("application", place.entry.name, _UNKNOWN, {})]
    debian = _debian_packages(sorted({_origin(item) for item in items if item.kind == "file" and item.source}))
    for distribution in place.dependencies.values():
        if str(distribution) in present:
            purl = f"pkg:pypi/{distribution.name}@{distribution.version}"
            facts = {"purl": purl, "license": distribution.license, "home": distribution.home}
            packages.append(_package(f"pypi-{distribution.name}", distribution.name, distribution.version, facts))
    purl = f"pkg:generic/cpython@{place.python.version}"
    packages.append(_package("python", "cpython", place.python.version, {"purl": purl, "license": "PSF-2.0"}))
    for name, version in sorted(debian.items()):
        packages.append(_package(f"deb-{name}", name, version, {"purl": f"pkg:deb/debian/{name}@{version}"}))
    seed = json.dumps(sorted(digests.items())).encode()
    created = datetime.fromtimestamp(place.request.epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": place.entry.name,
        "documentNamespace": f"https://spdx.org/spdxdocs/castoff-freeze-{hashlib.sha256(seed).hexdigest()}",
        "creationInfo": {"created": created, "creators": [f"Tool: castoff-freeze-{__version__}"]},
        "packages": packages,
        "relationships": [
            _relation("SPDXRef-DOCUMENT", "DESCRIBES", packages[0]["SPDXID"]),
            *(_relation(packages[0]["SPDXID"], "DEPENDS_ON", item["SPDXID"]) for item in packages[1:]),
        ],
    }


def _package(identifier: str, name: str, version: str, facts: Mapping[str, str]) -> dict[str, Any]:
    license_ = facts.get("license", "")
    package: dict[str, Any] = {
        "SPDXID": f"SPDXRef-{re.sub(r'[^A-Za-z0-9.-]', '-', identifier)}",
        "name": name,
        "versionInfo": version,
        "downloadLocation": _UNKNOWN,
        "filesAnalyzed": False,
        "licenseConcluded": _UNKNOWN,
        "licenseDeclared": license_ if _LICENSE.fullmatch(license_) else _UNKNOWN,
        "copyrightText": _UNKNOWN,
    }
    if facts.get("home"):
        package["homepage"] = facts["home"]
    if facts.get("purl"):
        package["externalRefs"] = [
            {
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": facts["purl"],
            }
        ]
    return package


def _relation(one: str, kind: str, other: str) -> dict[str, str]:
    return {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}


def _origin(item: Item) -> str:
    return item.origin or item.source


def _debian_packages(paths: Sequence[str]) -> dict[str, str]:
    """Return the Debian packages, with their versions, that some files belong to; none on other systems."""
    wanted = set(paths) | {path.removeprefix("/usr") for path in paths if path.startswith("/usr/")}
    owners: set[str] = set()
    folder = os.path.join(_DPKG, "info")
    if not os.path.isdir(folder):
        return {}
    for name in os.listdir(folder):
        if name.endswith(".list"):
            with open(os.path.join(folder, name), encoding="utf-8", errors="surrogateescape") as file:
                if any(line.rstrip("\n") in wanted for line in file if not line.endswith("/.\n")):
                    owners.add(name[:-5].partition(":")[0])
    return {name: version for name, version in _debian_versions().items() if name in owners}


def _debian_versions() -> dict[str, str]:
    versions: dict[str, str] = {}
    name = ""
    try:
        with open(os.path.join(_DPKG, "status"), encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                if line.startswith("Package: "):
                    name = line[9:].strip()
                elif line.startswith("Version: "):
                    versions[name] = line[9:].strip()
    except OSError:
        pass
    return versions
