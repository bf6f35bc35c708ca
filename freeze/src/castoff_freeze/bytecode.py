"""Compile modules the same way every time.

Marshalled code depends on what else the compiling process holds (which of its strings are shared), so every batch of
files is compiled by a fresh interpreter that does nothing else, and batches never depend on how many processors there
are.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import marshal
import os
import struct
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_BATCH = 24
_UNCHECKED = 1  # the pyc is hash-based, and its source is not looked at


@dataclass(frozen=True, slots=True)
class Unit:
    """One file to compile.

    Attributes:
        source: path that is read; also the file name in tracebacks.
        target: path that is written.
        strip: whether docstrings are left out.
    """

    source: str
    target: str
    strip: bool


def compile_all(python: str, groups: Iterable[Sequence[Unit]]) -> set[str]:
    """Compile groups of files; no batch holds files of two groups.

    Returns:
        The sources that are no valid Python.

    Raises:
        OSError: the compiling interpreter could not be run, or a file could not be read or written.
    """
    batches = [group[start : start + _BATCH] for group in groups for start in range(0, len(group), _BATCH)]
    failed: set[str] = set()
    running: list[subprocess.Popen[bytes]] = []
    width = max(1, len(os.sched_getaffinity(0)))
    try:
        for batch in batches:
            if len(running) >= width:
                failed |= _finish(running.pop(0))
            running.append(_begin(python, batch))
        while running:
            failed |= _finish(running.pop(0))
    finally:
        for process in running:
            process.kill()
            process.communicate()
    return failed


def _begin(python: str, batch: Sequence[Unit]) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [python, "-I", "-S", "-W", "ignore", "-X", "no_debug_ranges", os.path.abspath(__file__)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"},
    )
    assert process.stdin is not None
    # Fewer bytes than a pipe holds, but for absurd paths: writing them never waits for the other side's answer.
    process.stdin.write(json.dumps([[unit.source, unit.target, unit.strip] for unit in batch]).encode())
    process.stdin.close()
    process.stdin = None
    return process


def _finish(process: subprocess.Popen[bytes]) -> set[str]:
    output, _ = process.communicate()
    if process.returncode:
        raise OSError(0, "the interpreter that compiles modules failed")
    return set(json.loads(output))


def compiled(data: bytes, name: str, *, strip: bool) -> bytes:
    """Return the bytecode file of a source.

    Args:
        data: the source.
        name: file name in tracebacks.
        strip: whether docstrings are left out.

    Raises:
        SyntaxError, ValueError: it is no valid Python.
    """
    if strip:
        tree = ast.parse(data)
        _strip_docstrings(tree)
        code = compile(tree, name, "exec", dont_inherit=True, optimize=0)
    else:
        code = compile(data, name, "exec", dont_inherit=True, optimize=0)
    head = importlib.util.MAGIC_NUMBER + struct.pack("<I", _UNCHECKED) + importlib.util.source_hash(data)
    return head + marshal.dumps(code)


def _strip_docstrings(tree: ast.Module) -> None:
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module) or not node.body:
            continue
        first = node.body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            if len(node.body) > 1 or isinstance(node, ast.Module):
                del node.body[0]
            else:
                node.body[0] = ast.copy_location(ast.Pass(), first)


def _main() -> None:
    failed = []
    for source, target, strip in json.load(sys.stdin):
        with open(source, "rb") as file:
            data = file.read()
        try:
            result = compiled(data, source, strip=strip)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            failed.append(source)
            continue
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "wb") as file:
            file.write(result)
    json.dump(failed, sys.stdout)


if __name__ == "__main__":
    _main()
