"""The papers of a freeze: why each file is there or not, what is inside, and what it weighs."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from castoff_freeze import __version__, sbom

if TYPE_CHECKING:
    from castoff_freeze.recording import Recording
    from castoff_freeze.selection import Selection
    from castoff_freeze.sizes import Sizes
    from castoff_freeze.surroundings import Surroundings
    from castoff_freeze.tree import Item
    from castoff_freeze.verification import Verdict

MANIFEST, BILL, SIZES = "manifest.json", "sbom.spdx.json", "sizes.txt"


@dataclass(frozen=True, slots=True)
class Paper:
    """What the papers are made of.

    Attributes:
        place: what was frozen.
        recording: of the unshrunk service.
        selection: what was kept and dropped.
        items: entries of the tree.
        remarks: what the user should know.
    """

    place: Surroundings
    recording: Recording
    selection: Selection
    items: Sequence[Item]
    remarks: tuple[str, ...]


def write(paper: Paper, verdict: Verdict, sizes: Sizes, folder: str) -> None:
    """Write manifest, bill of materials and table of sizes into a folder.

    Raises:
        OSError: it can't be written.
    """
    digests = {item.path: digest(item) for item in paper.items if item.kind == "file"}
    for name, text in (
        (MANIFEST, _json(_manifest(paper, verdict, sizes, digests))),
        (BILL, _json(sbom.bill(paper.place, paper.items, digests))),
        (SIZES, sizes.table()),
    ):
        with open(os.path.join(folder, name), "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    os.chmod(folder, 0o755)


def digest(item: Item) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal."""
    if not item.source:
        return hashlib.sha256(item.content).hexdigest()
    with open(item.source, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _json(document: object) -> str:
    return json.dumps(document, indent=1, ensure_ascii=True) + "\n"


def _manifest(paper: Paper, verdict: Verdict, sizes: Sizes, digests: dict[str, str]) -> dict[str, Any]:
    place = paper.place
    return {
        "format": 1,
        "tool": f"castoff-freeze {__version__}",
        "mode": place.request.mode,
        "unsafe": place.request.mode == "smallest",
        "python": place.python.version,
        "entry": {"kind": place.entry.kind, "target": place.entry.target, "server": place.entry.server},
        "launcher": place.request.launcher,
        "traced": paper.recording.watched_by,
        "verified": {
            "isolation": verdict.report.isolation,
            "network": verdict.report.network,
            "uid": verdict.report.uid,
            "asked": [str(asked) for asked in paper.recording.asked],
        },
        "remarks": list(paper.remarks),
        "size": {"bytes": sizes.total, "files": sizes.files},
        "files": [_entry(item, digests) for item in paper.items],
        "dropped": [{"path": path, "why": why} for path, why in sorted(paper.selection.dropped.items())],
    }


def _entry(item: Item, digests: dict[str, str]) -> dict[str, Any]:
    entry: dict[str, Any] = {"path": item.path, "kind": item.kind, "why": item.why, "layer": item.layer}
    if item.kind == "link":
        return entry | {"target": item.target}
    entry["mode"] = f"{item.mode:04o}"
    if item.kind == "file":
        size = os.path.getsize(item.source) if item.source else len(item.content)
        entry |= {"size": size, "sha256": digests[item.path], "owner": item.owner}
        if item.origin and item.origin != item.path:
            entry["made of"] = item.origin
    return entry
