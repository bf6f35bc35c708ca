"""What a build context holds, and the patterns that leave things out of it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from castoff.context.ignore import IgnorePatterns, number_patterns
from castoff.context.survey import ContextEntry, Exclusion, survey
from castoff.errors import ContextError


def make(root: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o644)
    return str(root)


def test_entries_and_exclusions(tmp_path: Path) -> None:
    ignore = "# what is built\nnode_modules\n\n  *.log\ndocs\n!docs/keep.md\n"
    context = make(
        tmp_path,
        {
            ".dockerignore": ignore,
            "main.go": "12",
            "app.log": "123",
            "docs/keep.md": "1",
            "docs/drop.md": "1234",
            "node_modules/a/b": "12345",
            "node_modules/c": "1",
        },
    )
    found = survey(context, os.path.join(context, "Dockerfile"))
    assert [(entry.path, entry.type, entry.size) for entry in found.entries] == [
        (".dockerignore", "file", len(ignore)),
        ("docs", "directory", 0),
        ("docs/keep.md", "file", 1),
        ("main.go", "file", 2),
    ]
    assert found.entries[3] == ContextEntry("main.go", "file", 2, 0o644)
    assert found.size == len(ignore) + 3
    assert found.exclusions == (
        Exclusion("app.log", "file", 3, 4, "*.log"),
        Exclusion("docs/drop.md", "file", 4, 5, "docs"),
        Exclusion("node_modules", "directory", 6, 2, "node_modules"),
    )


def test_a_directory_with_exceptions_of_which_nothing_is_left(tmp_path: Path) -> None:
    context = make(tmp_path, {".dockerignore": "docs\n!docs/none.md\n", "docs/sub/a": "12"})
    found = survey(context, "")
    assert [entry.path for entry in found.entries] == [".dockerignore"]
    assert [(item.path, item.type, item.line) for item in found.exclusions] == [
        ("docs", "directory", 1),
        ("docs/sub", "directory", 1),
    ]


def test_the_ignore_file_of_the_dockerfile_comes_first(tmp_path: Path) -> None:
    context = make(tmp_path, {".dockerignore": "a", "x.Dockerfile.dockerignore": "b", "a": "1", "b": "1"})
    found = survey(context, os.path.join(context, "x.Dockerfile"))
    assert found.ignore_file.endswith("x.Dockerfile.dockerignore")
    assert [item.path for item in found.exclusions] == ["b"]
    assert [item.path for item in survey(context, os.path.join(context, "Dockerfile")).exclusions] == ["a"]


def test_a_context_without_an_ignore_file(tmp_path: Path) -> None:
    found = survey(make(tmp_path, {"a": "1"}), "")
    assert (found.ignore_file, found.exclusions) == ("", ())


def test_links_are_not_followed_and_sockets_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = tmp_path / "c"
    make(context, {"a": "1"})
    (context / "out").symlink_to("/etc")
    monkeypatch.chdir(context)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")
        found = survey(str(context), "")
    assert [(entry.path, entry.type) for entry in found.entries] == [("a", "file"), ("out", "link")]
    assert found.exclusions == (Exclusion("s", "socket", 0),)


def test_a_malformed_ignore_file(tmp_path: Path) -> None:
    with pytest.raises(ContextError):
        survey(make(tmp_path, {".dockerignore": "[a"}), "")


def test_lines_of_patterns() -> None:
    assert number_patterns(b"\xef\xbb\xbf# no\n\na/../b\n !c \n/d") == [(3, "b"), (4, "!c"), (5, "d")]


def test_the_last_of_equal_patterns_decides() -> None:
    ignore = IgnorePatterns.of(["a", "!a", "a"])
    assert ignore.deciding_index("a") == 2
    assert ignore.deciding_index("a/b") == 2
    assert ignore.deciding_index("c") is None
    assert ignore.deciding("a") == "a"
