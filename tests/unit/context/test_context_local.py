"""A folder of the host as a build context: what is in it, what is not, and what changes while it is read."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from castoff.context.digests import DigestCache
from castoff.context.ignore import IgnorePatterns
from castoff.context.local import LocalContext
from castoff.errors import ContextError
from castoff.fs.rooted import remove_tree
from castoff.fs.union import open_content

if TYPE_CHECKING:
    from castoff.fs.entry import FileEntry


def opened(root: Path | str, ignore: bytes = b"") -> LocalContext:
    return LocalContext(str(root), IgnorePatterns.parse(ignore) if ignore else None, DigestCache(None))


def paths(context: LocalContext, top: bytes = b"") -> list[str]:
    """Return what a walk yields, without the root."""
    return [os.fsdecode(entry.path) for entry in context.walk(top) if entry.path]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Give a context with a file outside of it."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("secret")
    made = tmp_path / "root"
    (made / "sub/deep").mkdir(parents=True)
    (made / "a").write_text("a")
    (made / "sub/b").write_text("b")
    (made / "sub/deep/c").write_text("c")
    return made


@pytest.fixture
def swap(root: Path) -> Callable[[], None]:
    """Give what replaces the directory sub with a link out of the context."""

    def do() -> None:
        (root / "sub").rename(root / "was-sub")
        (root / "sub").symlink_to("../outside")

    return do


def test_a_walk_goes_parents_first_and_siblings_by_bytes(root: Path) -> None:
    (root / "sub.x").touch()
    (root / os.fsdecode(b"\xff")).touch()
    assert paths(opened(root)) == ["a", "sub", "sub/b", "sub/deep", "sub/deep/c", "sub.x", os.fsdecode(b"\xff")]
    assert paths(opened(root), b"sub/deep") == ["sub/deep", "sub/deep/c"]
    assert paths(opened(root), b"nothing") == []


def test_owners_are_root_and_the_rest_is_what_the_folder_has(root: Path) -> None:
    (root / "a").chmod(0o4711)
    os.utime(root / "a", ns=(5, 1_234_567_890))
    entry = opened(root).lstat(b"a")
    assert entry is not None
    assert (entry.uid, entry.gid, entry.permissions, entry.mtime_ns, entry.size) == (0, 0, 0o4711, 1_234_567_890, 1)


def test_ignored_entries_are_not_there_and_exceptions_are(root: Path) -> None:
    context = opened(root, b"*\n!sub/deep/c\n")
    assert paths(context) == ["sub", "sub/deep", "sub/deep/c"]
    assert context.lstat(b"a") is None
    assert context.lstat(b"sub/b") is None
    assert context.listdir(b"") == [b"sub"]
    assert context.excludes(b"sub/b")


def test_an_ignored_directory_with_no_exception_in_it_is_not_there(root: Path) -> None:
    context = opened(root, b"sub\n!sub/nothing\n")
    assert paths(context) == ["a"]
    assert list(context.walk(b"sub")) == []


def test_the_root_may_be_a_link_and_nothing_below_is_a_way(root: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to("root")
    (root / "link").symlink_to("sub")
    context = opened(tmp_path / "alias")
    assert paths(context)[:2] == ["a", "link"]
    assert context.lstat(b"link/b") is None
    with pytest.raises(ContextError, match="link can't be read"):
        context.listdir(b"link")


def test_links_out_of_the_context_are_links(root: Path) -> None:
    (root / "out").symlink_to("/etc/passwd")
    (root / "up").symlink_to("../outside/secret")
    context = opened(root)
    found = {entry.path: entry for entry in context.walk(b"")}
    assert found[b"out"].is_symlink
    assert found[b"out"].link == b"/etc/passwd"
    assert found[b"up"].link == b"../outside/secret"
    with pytest.raises(ContextError, match="not a regular file"):
        context.digest(found[b"up"])


def test_a_context_that_is_not_there_has_nothing(tmp_path: Path) -> None:
    context = opened(tmp_path / "missing")
    assert context.lstat(b"a") is None
    assert paths(context) == []


def test_sockets_are_left_out_and_pipes_are_never_opened(root: Path) -> None:
    os.mkfifo(root / "pipe")
    os.mknod(root / "socket", stat.S_IFSOCK | 0o600)  # bind() takes no path of more than 107 bytes
    context = opened(root)
    assert [path for path in paths(context) if "/" not in path] == ["a", "pipe", "sub"]
    assert context.lstat(b"socket") is None
    pipe = context.lstat(b"pipe")
    assert pipe is not None
    assert stat.S_ISFIFO(pipe.mode)
    with pytest.raises(ContextError, match="not a regular file"):
        context.digest(pipe)


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read every folder")
def test_an_unreadable_folder_is_an_error_with_advice_unless_it_is_ignored(root: Path) -> None:
    (root / "sub/deep").chmod(0)
    try:
        with pytest.raises(ContextError, match="sub/deep can't be read") as caught:
            paths(opened(root))
        assert "dockerignore" in (caught.value.hint or "")
        assert paths(opened(root, b"sub/deep\n")) == ["a", "sub", "sub/b"]
    finally:
        (root / "sub/deep").chmod(0o700)


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read every folder")
def test_a_folder_that_can_only_be_searched_gives_what_is_asked_for_by_name(root: Path) -> None:
    (root / "sub").chmod(0o111)
    try:
        context = opened(root)
        assert context.lstat(b"sub/b") is not None
        assert context.lstat(b"sub/deep/c") is not None
    finally:
        (root / "sub").chmod(0o700)


def test_paths_that_are_none_are_errors(root: Path) -> None:
    with pytest.raises(ContextError, match="no path"):
        opened(root).lstat(b"a\0b")
    with pytest.raises(ContextError, match="can't be read"):
        opened(root).lstat(b"x" * 5000)


def test_deep_folders_need_no_recursion(root: Path) -> None:
    descriptor = os.open(root, os.O_RDONLY)
    for _number in range(1200):
        os.mkdir("d", dir_fd=descriptor)
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    try:
        context = opened(root)
        assert len([path for path in paths(context) if path.startswith("d")]) == 1200
        context.close()
        assert context.lstat(b"/".join([b"d"] * 1200)) is not None
    finally:
        remove_tree(os.fsencode(root / "d"))  # Python's own way to remove folders recurses.


def read(context: LocalContext, entry: FileEntry | None) -> bytes:
    assert entry is not None
    context.digest(entry)
    with open_content(entry) as file:
        return file.read()


def test_a_file_that_changes_after_it_was_seen_is_an_error(root: Path) -> None:
    context = opened(root)
    entry = context.lstat(b"a")
    assert entry is not None
    (root / "a").write_text("b")
    with pytest.raises(ContextError, match="changed while"):
        context.digest(entry)
    with pytest.raises(ContextError, match="changed while"):
        open_content(entry)


def test_a_file_that_becomes_another_or_a_link_is_never_read(root: Path) -> None:
    for replacement in ("link", "file", "pipe"):
        context = opened(root)
        entry = context.lstat(b"a")
        assert entry is not None
        (root / "a").rename(root / f"old-{replacement}")
        if replacement == "link":
            (root / "a").symlink_to("../outside/secret")
        elif replacement == "file":
            (root / "a").write_text("b")
        else:
            os.mkfifo(root / "a")
        with pytest.raises(ContextError):
            context.digest(entry)
        with pytest.raises(ContextError):
            open_content(entry)
        (root / "a").unlink()
        (root / f"old-{replacement}").rename(root / "a")


def test_a_directory_swapped_before_it_is_listed_is_an_error(root: Path, swap: Callable[[], None]) -> None:
    context = opened(root)
    walk = context.walk(b"")
    assert [next(walk).path for _number in range(3)] == [b"", b"a", b"sub"]
    swap()
    with pytest.raises(ContextError, match="sub can't be read"):
        next(walk)
    assert opened(root).lstat(b"sub/secret") is None


def test_a_directory_swapped_after_a_file_was_seen_gives_nothing_from_outside(
    root: Path, swap: Callable[[], None], tmp_path: Path
) -> None:
    (tmp_path / "outside/b").write_text("?")
    context = opened(root)
    entry = context.lstat(b"sub/b")
    assert entry is not None
    swap()
    with pytest.raises(ContextError, match="changed while"):
        context.digest(entry)
    with pytest.raises(ContextError, match="changed while"):
        open_content(entry)


def test_unchanged_files_are_read_once_for_ever(root: Path, tmp_path: Path) -> None:
    cache = str(tmp_path / "digests")
    for _number in range(2):
        old = 1_000_000_000
        os.utime(root / "a", (old, old))
    first = LocalContext(str(root), None, DigestCache(cache))
    assert read(first, first.lstat(b"a")) == b"a"
    assert first.bytes_read == 1
    assert read(first, first.lstat(b"a")) == b"a"
    assert first.bytes_read == 1


def test_what_was_looked_at_is_remembered(root: Path) -> None:
    context = opened(root, b"sub/deep\n")
    context.lstat(b"missing")
    list(context.walk(b"sub"))
    assert context.seen[b"missing"] is None
    assert context.seen[b"sub"] is not None
    own, used, rest = context.listed[b"sub"]
    assert stat.S_ISDIR(own.mode)
    assert (list(used), rest) == ([b"b"], frozenset({b"deep"}))


NAMES = st.sampled_from(["a", "b", "x.txt", "y.go", "deep"])
TREES = st.recursive(
    st.sampled_from(["file", "link"]), lambda inner: st.dictionaries(NAMES, inner, max_size=4), max_leaves=12
)
PATTERNS = st.lists(
    st.sampled_from(
        ["*", "**", "a", "b", "*.txt", "**/*.txt", "a/b", "a/*", "**/deep", "deep/**", "?", "x.*", "a/deep/b"]
    ).flatmap(lambda pattern: st.sampled_from([pattern, "!" + pattern])),
    max_size=5,
)


def lay(tree: object, where: str) -> None:
    if isinstance(tree, dict):
        os.mkdir(where)
        for name, inner in tree.items():
            lay(inner, f"{where}/{name}")
    elif tree == "link":
        os.symlink("..", where)
    else:
        with open(where, "w"):
            pass


def every(root: str) -> Iterator[tuple[str, bool]]:
    """Yield every path below a folder and whether it is a directory."""
    for here, folders, files in os.walk(root):
        for name in folders + files:
            full = os.path.join(here, name)
            yield os.path.relpath(full, root), os.path.isdir(full) and not os.path.islink(full)


@settings(max_examples=150)
@given(st.dictionaries(NAMES, TREES, max_size=5), PATTERNS)
def test_a_walk_agrees_with_the_operating_system_and_the_patterns(tree: dict[str, object], patterns: list[str]) -> None:
    """What is not ignored is there, and so is every directory above it; nothing else is."""
    ignore = IgnorePatterns.of(patterns)
    with tempfile.TemporaryDirectory() as folder:
        root = f"{folder}/root"
        lay(tree, root)
        kept = {path for path, _is_folder in every(root) if not ignore.excludes(path)}
        above = {path.rsplit("/", count)[0] for path in kept for count in range(1, path.count("/") + 1)}
        context = LocalContext(root, ignore if ignore else None, DigestCache(None))
        walked = paths(context)
        context.close()
    assert len(walked) == len(set(walked))
    assert set(walked) == kept | above
    assert [path.split("/") for path in walked] == sorted(path.split("/") for path in walked)
