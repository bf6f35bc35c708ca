"""The program of the processes that enter sandboxes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import castoff

SOURCE = str(Path(castoff.__file__).parents[1])
ASK = f"""
import sys
sys.path.insert(0, {SOURCE!r})
from castoff.sandbox.interpreter import start_python
look = "import os, sys; print(os.readlink('/proc/self/exe')); print(*sys.argv[1:])"
sys.exit(start_python(["-I", "-S", "-c", look, "one", "two"]).wait())
"""


def ask(program: str) -> list[str]:
    """Return what a Python that another one started says of itself; `program` is that other one's file."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", ASK], executable=program, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout.splitlines()


def test_it_is_a_copy_in_memory() -> None:
    program, arguments = ask(os.path.realpath(sys.executable))
    assert program.startswith("/memfd:")
    assert arguments == "one two"


def test_a_program_with_libraries_beside_it_stays_where_it_is(tmp_path: Path) -> None:
    """The loader finds such libraries by the program's own path, and a copy in memory has none."""
    moved = tmp_path / "python"
    moved.write_bytes(Path(os.path.realpath(sys.executable)).read_bytes() + b"\0$ORIGIN/../lib\0")
    moved.chmod(0o755)
    program, arguments = ask(str(moved))
    assert program == os.path.realpath(sys.executable)
    assert arguments == "one two"
