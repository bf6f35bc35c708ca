"""The check that nothing of a machine is in the tree finds what it is there for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "check_tree.py"
HASH = "0" * 64


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Give a small tree with the script in it, as the script looks at the tree that it lies in."""
    if not SCRIPT.exists():
        pytest.skip("needs the whole tree: scripts/ is not here")
    folder = tmp_path / "some-clone"
    (folder / "scripts").mkdir(parents=True)
    (folder / "requirements").mkdir()
    (folder / "scripts/check_tree.py").write_bytes(SCRIPT.read_bytes())
    (folder / "requirements/dev.txt").write_text(
        f"pytest==9.0 ; python_version < '3.14' \\\n    --hash=sha256:{HASH} \\\n    --hash=sha256:{HASH}\n", "utf-8"
    )
    return folder


def check(folder: Path) -> tuple[int, str]:
    command = [sys.executable, str(folder / "scripts/check_tree.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_clean_tree_passes(tree: Path) -> None:
    assert check(tree) == (0, "")


def test_clean_tree_in_git_passes(tree: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tree)], check=True)
    assert check(tree) == (0, "")


def test_path_of_the_clone_is_found(tree: Path) -> None:
    (tree / "notes.md").write_text(f"all is well\nrun {tree}/run\n", "utf-8")
    code, out = check(tree)
    assert code == 1
    assert out.startswith("notes.md:2: names the folder of this clone")


def test_ignored_file_is_not_looked_at(tree: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tree)], check=True)
    (tree / ".gitignore").write_text("notes.md\n", "utf-8")
    (tree / "notes.md").write_text(f"run {tree}/run\n", "utf-8")
    assert check(tree) == (0, "")


@pytest.mark.parametrize(
    "line", ["--index-url https://example.org/simple", "pytest>=9", "pytest @ file:///x", "-r other.txt"]
)
def test_requirements_hold_names_versions_and_hashes_only(tree: Path, line: str) -> None:
    (tree / "requirements/dev.txt").write_text(line + "\n", "utf-8")
    code, out = check(tree)
    assert code == 1
    assert "requirements/dev.txt:1: not a name, a version or a hash" in out


def test_lock_with_an_address_is_found(tree: Path) -> None:
    (tree / "some.lock").write_text('url = "http://example.org/pool/x.deb"\n', "utf-8")
    assert check(tree) == (1, "some.lock:1: a lock file with an address\n")
