"""The door in a fresh clone with a new HOME: installs, needs no network the second time, and cleans up."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MADE = shutil.ignore_patterns(".venv", ".git", ".demo", ".cache", "*_cache", "__pycache__", ".hypothesis", "dist")


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Return every file below a folder with its content, and every folder."""
    found = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in found}


class Clone:
    """A copy of the tree as git has it, with a HOME of its own."""

    def __init__(self, base: Path) -> None:
        self.folder = base / "a clone"
        self.home = base / "home"
        self.elsewhere = base / "elsewhere"
        shutil.copytree(ROOT, self.folder, symlinks=True, ignore=MADE)
        self.home.mkdir()
        self.elsewhere.mkdir()

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a command from another folder, as a person would who gives the whole path."""
        kept = {name: value for name, value in os.environ.items() if name.startswith("PIP_") and "CACHE" not in name}
        env = {**kept, "HOME": str(self.home), "PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
        return subprocess.run(argv, cwd=self.elsewhere, env=env, capture_output=True, text=True, check=False)

    def door(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``./run``."""
        return self.run(str(self.folder / "run"), *arguments)

    def venv_times(self) -> dict[str, int]:
        """Return when each file of the virtual environment was last changed, bytecode aside."""
        files = (self.folder / ".venv").rglob("*")
        return {str(path): path.lstat().st_mtime_ns for path in files if "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """Make the clone and install in it."""
    if not (ROOT / "run").exists():
        pytest.skip("needs the whole tree: ./run is not here")
    made = Clone(tmp_path_factory.mktemp("fresh"))
    before = snapshot(made.folder)
    installed = made.door("install")
    if installed.returncode and "No matching distribution" in installed.stderr:
        pytest.skip("no package index can be reached")
    assert installed.returncode == 0, installed.stdout + installed.stderr
    after = snapshot(made.folder)
    made_now = {name.split("/")[0] for name in set(after) - set(before)}
    assert made_now <= {".venv", ".cache"}
    assert {name: after[name] for name in before} == before
    return made


def test_installed_command_works_from_anywhere(clone: Clone) -> None:
    done = clone.run(str(clone.folder / ".venv/bin/castoff"), "--version")
    assert done.returncode == 0, done.stderr
    assert "castoff" in done.stdout


def test_second_install_needs_no_network_and_changes_nothing(clone: Clone) -> None:
    before = clone.venv_times()
    isolated = ["unshare", "--user", "--map-root-user", "--net", "--"]
    if clone.run(*isolated, "true").returncode != 0:
        pytest.skip("network namespaces are not available")
    done = clone.run(*isolated, str(clone.folder / "run"), "install")
    assert done.returncode == 0, done.stderr
    assert clone.venv_times() == before


def test_changed_source_is_installed_again(clone: Clone) -> None:
    source = clone.folder / "src/castoff/__init__.py"
    text = source.read_text(encoding="utf-8")
    try:
        source.write_text(text + '\nMARK = "changed"\n', encoding="utf-8")
        assert clone.door("install").returncode == 0
        probe = "import castoff; print(castoff.MARK, castoff.__file__)"
        done = clone.run(str(clone.folder / ".venv/bin/python"), "-I", "-c", probe)
    finally:
        source.write_text(text, encoding="utf-8")
    assert done.stdout.startswith("changed"), done.stderr
    assert "site-packages" in done.stdout


def test_home_stays_empty(clone: Clone) -> None:
    assert list(clone.home.rglob("*")) == []
    assert list(clone.elsewhere.rglob("*")) == []


def test_unknown_verb_is_wrong_usage(clone: Clone) -> None:
    done = clone.door("bild")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "usage: ./run VERB" in done.stderr


def test_clean_leaves_what_git_has(clone: Clone) -> None:
    assert clone.door("clean").returncode == 0
    left = {path.name for path in clone.folder.iterdir()}
    assert left == {path.name for path in ROOT.iterdir() if path.name not in MADE(str(ROOT), os.listdir(ROOT))}
