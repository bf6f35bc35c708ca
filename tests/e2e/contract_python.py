"""Finds what the Python service needs to run from its source: its locked dependencies, installed aside once."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVICE = ROOT / "services" / "devops-info-service"
RUNTIME_KEY = "python_version"
COMMAND = [sys.executable, "-W", "error", "-m", "devops_info_service"]


def install(lock: str) -> str:
    """Return a folder with the packages of one of the service's lock files; skip where pip can't give them.

    The folder is kept beside the project's other caches, named after the lock's content.
    """
    path = SERVICE / lock
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    folder = _cache() / f"{path.stem}-{digest}-{sys.version_info[0]}.{sys.version_info[1]}"
    with open(f"{folder}.lock", "w", encoding="ascii") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if not folder.is_dir():
            _install(path, folder)
    return str(folder)


def _cache() -> Path:
    parent = ROOT if os.access(ROOT, os.W_OK) else Path(tempfile.gettempdir())
    cache = parent / ".cache" / "services"
    cache.mkdir(parents=True, exist_ok=True)
    return cache


def _install(lock: Path, folder: Path) -> None:
    made = f"{folder}.{os.getpid()}"
    argv = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
    argv += ["--require-hashes", "--only-binary=:all:", "--target", made, "--requirement", str(lock)]
    # pip is the interpreter's own: nothing that these tests import may shadow a part of it.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        shutil.rmtree(made, ignore_errors=True)
        words = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")] or [done.stderr[-300:]]
        pytest.skip(f"pip can't install services/devops-info-service/{lock.name}: {words[-1]}")
    os.rename(made, folder)


def environment(lock: str = "requirements.lock") -> dict[str, str]:
    """Return the variables with which this Python finds the service and what it needs, and nothing of castoff."""
    return {"PYTHONPATH": os.pathsep.join((str(SERVICE), install(lock))), "PYTHONDONTWRITEBYTECODE": "1"}
