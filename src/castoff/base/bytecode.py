"""Compiles the Python modules of a base to bytecode that no modification time can make stale (PEP 552).

The base's own interpreter does it, in the sandbox: bytecode of another version is worth nothing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from castoff.base.roottree import RootTree

if TYPE_CHECKING:
    from castoff.base.rootfolder import RootFolder

_INTERPRETER = re.compile(rb"usr/bin/python3\.\d+")
_FOLDERS = "/usr/lib/python3", "/usr/lib/{name}", "/usr/local/lib/{name}"
# One process, in sorted order, with a fixed hash seed: the same modules give the same bytes. What does not compile
# (templates, code for other versions) stays as it is, as Debian's own tool leaves it.
_PROGRAM = """\
import compileall, os, py_compile, sys
mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
for folder in sys.argv[1:]:
    if os.path.isdir(folder):
        compileall.compile_dir(folder, maxlevels=64, quiet=2, force=True, invalidation_mode=mode)
"""


def interpreter(tree: RootTree) -> str | None:
    """Return the name of a tree's Python interpreter, such as ``python3.11``; None where it has none."""
    found = [path for path in tree.paths() if _INTERPRETER.fullmatch(path)]
    return found[-1].rpartition(b"/")[2].decode() if found else None


def compile_modules(tree: RootTree, name: str, root: RootFolder, spool: str) -> RootTree:
    """Compile all modules below Python's folders, and return the tree with the bytecode.

    Args:
        tree: the base; its contents are moved, so that it must not be used any more.
        name: its interpreter's name.
        root: an empty folder to do it in.
        spool: an empty host folder for the new tree.

    Raises:
        RunError: the interpreter failed.
        SandboxError: nothing can be run on this machine.
        StoreError: the folder can't be written.
    """
    root.fill(tree)
    folders = tuple(folder.format(name=name) for folder in _FOLDERS)
    env = ("PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8", "PYTHONHASHSEED=0")
    root.run("bytecode", (f"/usr/bin/{name}", "-I", "-S", "-B", "-c", _PROGRAM, *folders), env)
    compiled = RootTree(spool, tree.mtime_ns)
    root.load(compiled)
    return compiled
