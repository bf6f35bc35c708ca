"""Dockerfiles that are found here: of installed packages, of this repository, of the conformance material."""

from __future__ import annotations

import functools
import json
import os
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
_LISTS = Path("/var/lib/dpkg/info")
_MAX_SIZE = 20_000


def _is_dockerfile(name: str) -> bool:
    base = name.rpartition("/")[2].lower()
    return base.startswith(("dockerfile", "containerfile")) and not base.endswith((".h", ".vim", ".py", ".pyc", ".gz"))


def _of_distributions() -> set[Path]:
    return {
        Path(str(file.locate()))
        for distribution in distributions()
        for file in distribution.files or ()
        if _is_dockerfile(str(file))
    }


def _of_system_packages() -> set[Path]:
    found = set()
    for listing in _LISTS.glob("*.list"):
        text = listing.read_text(encoding="utf-8", errors="replace")
        if "ockerfile" in text or "ontainerfile" in text:
            found |= {Path(line) for line in text.splitlines() if _is_dockerfile(line)}
    return found


def _of_repository() -> set[Path]:
    return {path for folder in ("services", "benchmarks", "tests") for path in (ROOT / folder).glob("**/Dockerfile*")}


def _of_conformance() -> set[str]:
    folder = Path(os.environ.get("CASTOFF_CONFORMANCE") or ROOT.parent / "shared" / "conformance")
    found = set()
    for name in ("parser", "parser_negative", "lint", "dockerfile_integration", "buildah_conformance"):
        path = folder / f"{name}.json"
        if path.is_file():
            pending = [json.loads(path.read_text(encoding="utf-8"))["cases"]]
            while pending:
                value = pending.pop()
                if isinstance(value, list):
                    pending += value
                elif isinstance(value, dict):
                    pending += [item for key, item in value.items() if key.lower() != "dockerfile"]
                    found |= {item for key, item in value.items() if key.lower() == "dockerfile" and _is_text(item)}
    return {text for text in found if len(text) <= _MAX_SIZE}


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


@functools.cache
def corpus() -> tuple[str, ...]:
    """Return the texts, sorted, each once."""
    texts = _of_conformance()
    for path in _of_distributions() | _of_system_packages() | _of_repository():
        try:
            data = path.read_bytes()
        except OSError:
            continue
        if len(data) <= _MAX_SIZE and data.strip():
            texts.add(data.decode("utf-8", "replace"))
    return tuple(sorted(texts))
