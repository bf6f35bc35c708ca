"""A layer in the making: what covers what, what is linked, what a layer holds in the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ops_rig import file_, folder, link, union

from castoff.errors import ContextError
from castoff.fs.changes import Added, Opaque
from castoff.fs.entry import FileEntry
from castoff.image.users import Owner
from castoff.ops.staging import Staging


def described(staging: Staging) -> list[str]:
    result = []
    for change in staging.changes():
        if isinstance(change, Added):
            kind = "d" if change.entry.is_dir else "l" if change.entry.is_symlink else "f"
            joined = f"={change.entry.hardlink.decode()}" if change.entry.hardlink is not None else ""
            result.append(f"{kind}{joined} {change.path.decode()}")
        elif isinstance(change, Opaque):
            result.append(f"opaque {change.path.decode()}")
    return result


def test_missing_parents_are_made_and_existing_ones_join_the_layer_as_they_are() -> None:
    staging = Staging(union(folder("opt", 0o711, 3, 4)))
    staging.make_directories(b"opt/a/b", Owner(5, 6), 0o750)
    assert described(staging) == ["d opt", "d opt/a", "d opt/a/b"]
    assert [(c.entry.permissions, c.entry.uid) for c in staging.changes() if isinstance(c, Added)] == [
        (0o711, 3),
        (0o750, 5),
        (0o750, 5),
    ]


def test_a_directory_is_not_made_where_a_file_is() -> None:
    staging = Staging(union(file_("opt")))
    with pytest.raises(ContextError, match="/opt is not a directory"):
        staging.make_directories(b"opt/a", Owner(0, 0))


def test_files_and_directories_do_not_replace_one_another_in_a_copy() -> None:
    staging = Staging(union(folder("d"), file_("f")))
    with pytest.raises(ContextError, match="cannot replace the directory /d with a file"):
        staging.put(file_("d"))
    with pytest.raises(ContextError, match="cannot copy a directory over /f"):
        staging.put(folder("f"))
    staging.put(link("f", "d"))
    assert described(staging) == ["l f"]


def test_replacing_a_directory_hides_what_was_in_it() -> None:
    staging = Staging(union(file_("d/old"), file_("d/sub/old"), file_("keep")))
    staging.replace(file_("d"))
    assert staging.lstat(b"d/old") is None
    staging.replace(folder("d"))
    assert staging.lstat(b"d/sub") is None
    staging.replace(file_("d/new"))
    assert described(staging) == ["d d", "opaque d", "f d/new"]


def test_replacing_a_staged_directory_forgets_what_was_put_into_it() -> None:
    staging = Staging(union())
    staging.replace(folder("d"))
    staging.replace(file_("d/x"))
    staging.replace(file_("dx"))
    staging.replace(link("d", "elsewhere"))
    assert described(staging) == ["l d", "f dx"]


def test_a_directory_over_a_directory_keeps_its_content() -> None:
    staging = Staging(union(file_("d/old")))
    staging.replace(folder("d", 0o700))
    assert staging.lstat(b"d/old") is not None
    assert described(staging) == ["d d"]


def test_resolving_in_a_directory_never_leaves_it() -> None:
    staging = Staging(union(folder("app"), link("app/abs", "/etc"), link("app/up", "../../../etc"), folder("etc")))
    assert staging.resolve(b"abs/x", b"app") == b"app/etc/x"
    assert staging.resolve(b"up", b"app") == b"app/etc"
    assert staging.resolve(b"../..", b"app") == b"app"
    assert staging.resolve(b"app/abs/x") == b"etc/x"


def test_links_share_an_inode_and_the_first_in_order_is_the_file() -> None:
    staging = Staging(union(file_("usr/tool")))
    staging.replace(file_("b"))
    assert staging.link(b"a", b"b")
    assert staging.link(b"c", b"b")
    assert staging.link(b"tool", b"usr/tool")
    assert not staging.link(b"x", b"nothing")
    assert not staging.link(b"x", b"usr")
    assert described(staging) == ["f a", "f=a b", "f=a c", "f tool", "d usr", "f=tool usr/tool"]


def test_touching_puts_an_entry_into_the_layer_again() -> None:
    staging = Staging(union(folder("app", 0o700)))
    staging.touch(b"app")
    staging.touch(b"nothing")
    staging.touch(b"")
    assert described(staging) == ["d app"]


def test_siblings_are_sorted_part_by_part() -> None:
    staging = Staging(union())
    for path in ("a-b", "a", "a/z", "a.c"):
        staging.put(folder(path) if path == "a" else file_(path))
    assert described(staging) == ["d a", "f a/z", "f a-b", "f a.c"]


class Counted(dict[bytes, FileEntry]):
    """Entries that count how often all of them are gone through."""

    passes = 0

    def __iter__(self) -> Iterator[bytes]:
        self.passes += 1
        return super().__iter__()


def test_replacing_many_does_not_go_through_all_that_is_there_each_time() -> None:
    staging = Staging(union(*(file_(f"f{number}") for number in range(100))))
    staging._entries = entries = Counted()
    for number in range(100):
        staging.replace(file_(f"f{number}"))
    for number in range(50):
        staging.make_directories(f"d{number}/a/b".encode(), Owner(0, 0))
        staging.put(file_(f"d{number}/a/b/c"))
        staging.replace(file_(f"d{number}"))
    assert entries.passes <= 1
    assert sorted(entries) == sorted([*(b"f%d" % n for n in range(100)), *(b"d%d" % n for n in range(50))])


def test_what_was_staged_below_a_directory_goes_with_it_and_may_come_again() -> None:
    staging = Staging(union(folder("d"), file_("d/old")))
    staging.put(file_("d/new"))
    staging.replace(file_("d"))
    assert staging.lstat(b"d/old") is None
    assert staging.lstat(b"d/new") is None
    staging.replace(folder("d"))
    staging.put(file_("d/again"))
    staging.make_directories(b"d/e/f", Owner(0, 0))
    staging.replace(file_("d/e"))
    assert described(staging) == ["d d", "opaque d", "f d/again", "f d/e"]
