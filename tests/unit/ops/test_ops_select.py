"""What a source path, a pattern, ``--parents`` and ``--exclude`` select."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from ops_rig import file_, folder, link, union

from castoff.errors import ContextError
from castoff.ops.select import Request, Selected, content_digest, links_on, select

if TYPE_CHECKING:
    from collections.abc import Iterator

    from castoff.fs.entry import FileEntry
    from castoff.fs.union import UnionTree


class MemoryTree:
    """A source over entries in memory."""

    def __init__(self, *entries: FileEntry) -> None:
        self._tree: UnionTree = union(*entries)
        self.listed: list[bytes] = []

    def lstat(self, path: bytes) -> FileEntry | None:
        return self._tree.lstat(path)

    def listdir(self, path: bytes) -> list[bytes]:
        self.listed.append(path)
        return self._tree.listdir(path)

    def walk(self, path: bytes) -> Iterator[FileEntry]:
        return self._tree.walk(path)

    def digest(self, entry: FileEntry) -> bytes:
        return entry.data or b""

    def describe(self, path: bytes) -> str:
        return f" at {path.decode()}"


TREE = (
    file_("a.txt"),
    file_("b.txt"),
    file_("dir/c.txt"),
    file_("dir/sub/d.go"),
    file_("dir/sub/e.txt"),
    file_("other/sub/f.txt"),
    link("to-dir", "dir"),
    link("to-file", "/dir/c.txt"),
    link("dir/up", "../a.txt"),
    link("away", "nowhere"),
    file_("odd[1].txt"),
)


def names(*sources: str, excludes: tuple[str, ...] = (), parents: bool = False) -> list[str]:
    """Return what is selected: the name of a file; a directory as its content, directories for what is below in ()."""
    found: list[str] = []
    for item in select(MemoryTree(*TREE), Request(sources, excludes, parents)):
        if item.top.is_dir:
            found += [f"({path.decode()})" if path in item.implied else path.decode() for path, _entry in item.below]
        else:
            found.append(item.name.decode())
    return found


def test_a_directory_is_what_is_in_it_and_its_links_stay_links() -> None:
    (item,) = select(MemoryTree(*TREE), Request(("dir",)))
    assert [path for path, _entry in item.below] == [b"c.txt", b"sub", b"sub/d.go", b"sub/e.txt", b"up"]
    assert dict(item.below)[b"up"].is_symlink


def test_links_in_a_source_path_are_followed_within_the_tree() -> None:
    assert names("to-file") == ["to-file"]
    assert names("to-dir") == names("dir")
    assert names("to-dir/up") == ["up"]
    tree = MemoryTree(link("etc", "/../../../../etc"), file_("etc2"), link("x", "../../etc2"))
    assert select(tree, Request(("x",)))[0].top.path == b"etc2"
    with pytest.raises(ContextError, match="40 symbolic links"):
        select(tree, Request(("etc",)))


def test_parent_parts_stop_at_the_root_of_the_source() -> None:
    assert names("../../a.txt", "/dir/../b.txt") == ["a.txt", "b.txt"]


@pytest.mark.parametrize("path", ["missing", "away", "a.txt/below", "dir/missing/x"])
def test_a_path_that_is_not_there_is_an_error_that_names_it(path: str) -> None:
    with pytest.raises(ContextError, match=f'"{path}" is not there at '):
        names(path)


def test_patterns_match_part_by_part_and_sorted() -> None:
    assert names("*.txt") == ["a.txt", "b.txt", "odd[1].txt"]
    assert names("?.txt", "[b-z]*.txt") == ["a.txt", "b.txt", "b.txt", "odd[1].txt"]
    assert names("*/sub/*.txt") == ["e.txt", "f.txt"]
    assert names("to-dir/*.txt") == ["c.txt"]
    assert names("to-*/c.txt") == []  # A link that a pattern finds is no way.
    assert names("**/e.txt") == []
    assert names("no*") == []
    assert names("odd[[]1].txt", "odd\\[1*") == ["odd[1].txt", "odd[1].txt"]


def test_a_pattern_that_finds_a_dangling_link_leaves_it_out() -> None:
    assert names("aw*") == []


def test_excludes_count_from_the_directory_that_is_copied() -> None:
    assert names("dir", excludes=("sub",)) == ["c.txt", "up"]
    assert names("dir", excludes=("*.txt",)) == ["sub", "sub/d.go", "sub/e.txt", "up"]
    assert names("dir", excludes=("**/*.txt", "up")) == ["sub", "sub/d.go"]
    assert names("dir", excludes=("*",)) == []


def test_excluded_directories_come_back_for_what_is_taken_below_them() -> None:
    assert names("dir", excludes=("*", "!sub/d.go")) == ["(sub)", "sub/d.go"]
    assert names(".", excludes=("**", "!**/d.go")) == ["(dir)", "(dir/sub)", "dir/sub/d.go"]
    assert names("dir", excludes=("sub", "!sub/nothing")) == ["c.txt", "up"]


def test_excludes_match_the_name_of_a_single_file() -> None:
    assert names("*.txt", excludes=("b*",)) == ["a.txt", "odd[1].txt"]
    assert names("dir/c.txt", excludes=("*.txt",)) == []


def test_parents_are_kept_from_the_root_or_from_the_pivot() -> None:
    assert names("dir/sub/d.go", parents=True) == ["(dir)", "(dir/sub)", "dir/sub/d.go"]
    assert names("dir/./sub/d.go", parents=True) == ["(sub)", "sub/d.go"]
    assert names("./dir/sub", parents=True) == ["(dir)", "dir/sub", "dir/sub/d.go", "dir/sub/e.txt"]
    assert names("dir/sub/.", parents=True) == names("dir/sub", parents=True)
    assert names("to-dir/./c.txt", parents=True) == ["c.txt"]
    assert names(".", parents=True) == names(".")


def test_parents_take_patterns_of_folders_and_pivots() -> None:
    assert names("**/*.go", parents=True) == ["(dir)", "(dir/sub)", "dir/sub/d.go"]
    assert names("[do]*/./sub/*.txt", parents=True) == ["(sub)", "sub/e.txt", "(sub)", "sub/f.txt"]
    assert names("to-*/./sub/*.txt", parents=True) == ["(sub)", "sub/e.txt"]
    assert names("dir/**/e.txt", parents=True) == ["(dir)", "(dir/sub)", "dir/sub/e.txt"]
    assert names("no/**", parents=True) == []


def test_parents_and_excludes_together() -> None:
    assert names("dir", parents=True, excludes=("dir/sub", "dir/up")) == ["dir", "dir/c.txt"]
    assert names("dir", parents=True, excludes=("dir", "!dir/sub/d.go")) == ["(dir)", "(dir/sub)", "dir/sub/d.go"]


def test_parents_refuse_what_is_missing_and_say_why_a_link_is_no_way() -> None:
    with pytest.raises(ContextError, match='"dir/nothing" is not there'):
        names("dir/nothing", parents=True)
    with pytest.raises(ContextError, match="not there"):
        names("nothing/./x", parents=True)
    with pytest.raises(ContextError, match="leads through a symbolic link"):
        names("to-dir/c.txt", parents=True)


def test_parents_list_no_directory_whose_names_the_pattern_says() -> None:
    tree = MemoryTree(*TREE)
    select(tree, Request(("dir/sub/*.go",), parents=True))
    assert tree.listed == [b"dir/sub"]


def test_a_very_deep_tree_is_no_problem() -> None:
    deep = "/".join(["d"] * 1500)
    tree = MemoryTree(file_(f"{deep}/file"))
    (item,) = select(tree, Request(("**/file",), parents=True))
    assert item.below[-1][0] == f"{deep}/file".encode()


def digest_of(*entries: FileEntry, owners: bool = False, **request: object) -> str:
    tree = MemoryTree(*entries)
    selection: tuple[Selected, ...] = select(tree, Request(("d",), **request))  # type: ignore[arg-type]
    return content_digest(tree, selection, owners=owners)


def test_the_digest_changes_with_all_that_is_copied_and_with_nothing_else() -> None:
    base = (folder("d"), file_("d/f", b"one"), link("d/l", "f"))
    same = digest_of(*base)
    assert digest_of(folder("d", 0o700), *base[1:]) == same  # It is not copied itself.
    assert digest_of(*base, file_("elsewhere")) == same
    assert digest_of(base[0], file_("d/f", b"one", uid=7), base[2]) == same
    others = [
        digest_of(base[0], file_("d/f", b"two"), base[2]),
        digest_of(base[0], file_("d/f", b"one", 0o755), base[2]),
        digest_of(base[0], file_("d/f", b"one"), link("d/l", "g")),
        digest_of(base[0], file_("d/g", b"one"), base[2]),
        digest_of(*base, folder("d/empty")),
        digest_of(*base, owners=True),
        digest_of(base[0], file_("d/f", b"one", uid=7), base[2], owners=True),
    ]
    assert len({same, *others}) == len(others) + 1


def test_a_directory_that_is_only_implied_has_another_digest() -> None:
    entries = (file_("d/s/f"),)
    taken = digest_of(*entries)
    implied = digest_of(*entries, excludes=("s", "!s/f"))
    assert taken != implied


def test_links_on_a_path_are_found_in_their_order() -> None:
    tree = MemoryTree(link("a", "b"), link("b", "/dir"), folder("dir"), link("dir/x", "y"), file_("dir/y"))
    assert [entry.path for entry in links_on(tree, b"/a/x")] == [b"a", b"b", b"dir/x"]
    assert links_on(tree, b"dir/y") == ()
