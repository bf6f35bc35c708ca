"""Bytecode, import graphs, shared libraries and watchers, on the interpreter that runs the tests."""

from __future__ import annotations

import marshal
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from castoff_freeze.bytecode import Unit, compile_all, compiled
from castoff_freeze.elf import Resolver, find_loader, read_binary
from castoff_freeze.files import take_inventory
from castoff_freeze.imports import ImportGraph
from castoff_freeze.python import Python, probe, search_path
from castoff_freeze.rules import dependency_dropped
from castoff_freeze.selection import Mode, Wish, select
from castoff_freeze.trace import Trace
from castoff_freeze.tree import Item, Tree, write
from castoff_freeze.watching import watcher

PYTHON = os.path.realpath(sys.executable)


@pytest.fixture(scope="module")
def python() -> Python:
    return probe(PYTHON, os.environ)


def test_docstrings_go_and_line_numbers_stay() -> None:
    source = b'"""M."""\nclass C:\n    """D."""\ndef f():\n    """E."""\n    raise ValueError\n'
    space: dict[str, object] = {}
    exec(marshal.loads(compiled(source, "m.py", strip=True)[16:]), space)
    function = space["f"]
    assert callable(function)
    assert (space.get("__doc__"), function.__doc__, getattr(space["C"], "__doc__", "")) == (None, None, None)
    with pytest.raises(ValueError) as caught:
        function()
    assert caught.tb.tb_next is not None
    assert caught.tb.tb_next.tb_lineno == 6


def test_compiling_twice_gives_the_same_bytes_whatever_else_is_compiled_along(tmp_path: Path) -> None:
    sources = [tmp_path / f"m{number}.py" for number in range(30)]
    for number, path in enumerate(sources):
        path.write_text(
            f"import os\nname_{number} = ('path', {{'a', 'b', 'c'}})\ndef f(path, os={number}): return path\n"
        )
    for folder in ("one", "two"):
        units = [Unit(str(path), str(tmp_path / folder / f"{path.stem}.pyc"), True) for path in sources]
        assert compile_all(PYTHON, [units[:5], units[5:]] if folder == "one" else [units[:5], units[5:], []]) == set()
    for path in sources:
        one, two = (tmp_path / folder / f"{path.stem}.pyc" for folder in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


def test_what_is_no_python_is_named_and_not_written(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("def (")
    assert compile_all(PYTHON, [[Unit(str(bad), str(tmp_path / "bad.pyc"), True)]]) == {str(bad)}
    assert not (tmp_path / "bad.pyc").exists()


def package(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def choose(python: Python, folder: Path, mode: Mode, loaded: set[str]) -> tuple[set[str], dict[str, str]]:
    """Return the standard modules that are kept for an application in a folder, and all reasons by module."""
    path = search_path(python, [str(folder)])
    inventory = take_inventory(python, path, (), [str(folder)])
    bytecode = {
        item.path: str(folder.parent / "pyc" / f"{number}.pyc")
        for number, item in enumerate(inventory.files.values())
        if item.is_source and (item.group == "application" or item.module.partition(".")[0] in ("json", "decimal"))
    }
    compile_all(PYTHON, [[Unit(source, target, True) for source, target in sorted(bytecode.items())]])
    graph = ImportGraph(inventory, bytecode)
    result = select(inventory, graph, Trace(modules=frozenset(loaded)), Wish(mode, ("app",), {}))
    by_path = {item.path: item for item in inventory.files.values()}
    kept = {by_path[name].module for name in result.kept}
    reasons = {by_path[name].module or name: why for name, why in {**result.dropped, **result.kept}.items()}
    return kept, reasons


def test_modes_keep_what_they_promise(python: Python, tmp_path: Path) -> None:
    package(
        tmp_path / "app",
        {
            "app/__init__.py": "from . import near\n",
            "app/near.py": "def f():\n    import json\n    from . import far\n",
            "app/far.py": "import importlib\nimportlib.import_module('html.parser')\n",
            "app/.env": "SECRET=1",
        },
    )
    folder = tmp_path / "app"
    safe, reasons = choose(python, folder, "safe", {"app", "app.near"})
    assert {"json.decoder", "csv", "app.far", "html.parser"} <= safe
    assert not {"test", "idlelib", "tkinter", "ensurepip"} & {name.partition(".")[0] for name in safe}
    small, reasons = choose(python, folder, "small", {"app", "app.near"})
    assert {"json", "json.decoder", "json.scanner", "app.far", "html.parser", "encodings.idna"} <= small
    assert not {"csv", "sqlite3", "pdb", "_pydecimal"} & small
    assert reasons["json.decoder"] == "imported by json"
    assert "nothing that is kept imports it" in reasons["csv"]
    smallest, _ = choose(python, folder, "smallest", {"app", "app.near"})
    assert "json" not in smallest
    assert "app.far" not in smallest


def test_the_closure_of_libraries_is_what_the_loader_loads(python: Python) -> None:
    loader = find_loader(python.real)
    if not loader.path:
        pytest.skip("the interpreter is a static program")
    listed = subprocess.run([loader.path, "--list", python.real], capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("the loader lists nothing")
    wanted = {os.path.realpath(path) for path in re.findall(r"=> (/\S+)", listed.stdout)}
    closure = Resolver(loader, python.real).closure([python.real])
    assert not closure.missing
    assert {os.path.realpath(path) for path in closure.found} == wanted | {os.path.realpath(loader.path)}


def test_what_is_no_elf_file_is_none(tmp_path: Path) -> None:
    for data in (b"", b"\x7fELF", b"\x7fELF" + b"\xff" * 60, b"#!/bin/sh\n", b"\x7fELF\x02\x01\x01" + b"\0" * 200):
        path = tmp_path / "file"
        path.write_bytes(data)
        read_binary(str(path))  # whatever is in it, nothing is raised
    assert read_binary(str(tmp_path / "none")) is None


@pytest.mark.parametrize("kind", ["inotify", "fanotify"])
def test_a_watcher_sees_what_a_child_opens(tmp_path: Path, kind: str) -> None:
    (tmp_path / "in").mkdir()
    seen, unseen = tmp_path / "in" / "seen", tmp_path / "in" / "unseen"
    for path in (seen, unseen):
        path.write_text("x")
    eyes = watcher([str(tmp_path)], prefer=kind)
    if eyes.name != kind:
        pytest.skip(f"{kind} is not permitted here")
    script = "import subprocess, sys; sys.stdin.readline(); subprocess.run(['cat', sys.argv[1]])"
    with subprocess.Popen([PYTHON, "-c", script, str(seen)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as child:
        eyes.start(child.pid)
        child.communicate(b"\n")
    found = eyes.stop()
    assert str(seen) in found
    assert str(unseen) not in found


def test_a_tree_is_written_with_modes_and_times_of_its_own(tmp_path: Path) -> None:
    tree = Tree()
    source = tmp_path / "source"
    source.write_text("x")
    source.chmod(0o600)
    tree.add(Item("/a/b", "file", "why", source=str(source), mode=0o755))
    tree.add(Item("/a/c", "link", "why", target="b"))
    tree.add_folder("/tmp", "why", 0o1777)
    tree.add_text("/a/b", "never", "the first counts")
    root = tmp_path / "root"
    root.mkdir()
    write(tree, str(root), 1000)
    assert (root / "a/b").read_text() == (root / "a/c").read_text() == "x"
    assert [oct((root / name).stat().st_mode)[-4:] for name in ("a/b", "tmp", "a")] == ["0755", "1777", "0755"]
    assert {(root / name).lstat().st_mtime for name in ("a", "a/b", "a/c", "tmp")} == {1000.0}


@pytest.mark.parametrize(
    ("path", "dropped"),
    [
        ("/s/a/tests/test_x.py", True),
        ("/s/a/x.pyi", True),
        ("/s/a/include/x.hpp", True),
        ("/s/a-1.dist-info/INSTALLER", True),
        ("/s/a-1.dist-info/METADATA", False),
        ("/s/a-1.dist-info/licenses/LICENSE", False),
        ("/s/bin/tool", True),
        ("/bin/tool", True),
        ("/s/a/testing.py", False),
        ("/s/a/data.json", False),
    ],
)
def test_files_of_dependencies_that_no_runtime_reads(path: str, dropped: bool) -> None:
    assert bool(dependency_dropped(path, "/s")) is dropped
