"""The store of ./run demo, from whose bases the end-to-end tests start.

`./run test` sees to it: to the bases, and to the wheels of the Python service beside the store. CASTOFF_DEMO_STORE
names another one. A test that has none is skipped.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "services" / "devops-info-service" / "requirements.lock"
_REMEDY = "./run demo makes it, or CASTOFF_DEMO_STORE names another one"


def find_store(castoff: list[str], references: tuple[str, ...]) -> str:
    """Return the store; skip where it is not there, belongs to another user, or lacks one of the bases.

    Args:
        castoff: the start of castoff's command line.
        references: of the bases.
    """
    store = os.environ.get("CASTOFF_DEMO_STORE") or str(ROOT / ".demo" / "store")
    if not os.path.isdir(store):
        pytest.skip(f"there is no store {store} ({_REMEDY})")
    if not os.access(store, os.R_OK | os.W_OK | os.X_OK):
        pytest.skip(f"the store {store} belongs to another user")
    for reference in references:
        found = subprocess.run([*castoff, "--root", store, "inspect", reference], capture_output=True, check=False)
        if found.returncode:
            pytest.skip(f"the store {store} has no {reference} ({_REMEDY})")
    return store


def find_wheels(store: str, folder: Path) -> str:
    """Return a folder with the wheels of the Python service's lock: the demo's, or a new one; skip where pip fails."""
    mark = Path(os.path.dirname(store), "wheels.lock")
    if mark.is_file() and mark.read_bytes() == LOCK.read_bytes():
        return os.path.join(os.path.dirname(store), "wheels")
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
    argv += ["--require-hashes", "--only-binary=:all:", "--python-version=3.11", "--requirement", str(LOCK)]
    done = subprocess.run([*argv, "--dest", str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"pip can't download the wheels of the Python service: {done.stderr.strip().splitlines()[-1]}")
    return str(folder)
