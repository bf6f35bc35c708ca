"""Where the conformance material is, and its cases."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any

VARIABLE = "CASTOFF_CONFORMANCE"
SIBLING = "shared/conformance"


def folder() -> Path:
    """Return the folder named by the environment, else the one beside the checkout."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else Path(__file__).resolve().parents[3] / SIBLING


@functools.cache
def load(suite: str) -> list[dict[str, Any]] | None:
    """Return the cases of a suite; None where the material is absent."""
    path = folder() / f"{suite}.json"
    if not path.is_file():
        return None
    with path.open(encoding="utf-8") as file:
        cases: list[dict[str, Any]] = json.load(file)["cases"]
    return cases


def name_of(case: dict[str, Any], number: int) -> str:
    """Return a name for one case."""
    text = str(case.get("name") or case.get("source") or case.get("table") or case.get("kind") or "case")
    return f"{number:03d}-{text}".replace("/", "-").replace(" ", "_")
