"""Users and groups by name and number, from the files of an image."""

from __future__ import annotations

import stat

import pytest

from castoff.errors import ContextError
from castoff.fs.entry import FileEntry
from castoff.fs.union import EntryLayer, UnionTree
from castoff.image.users import ExecUser, Owner, exec_user, has_names, owner, unknown_names

PASSWD = b"""# comment:x:1:1
root:x:0:0:root:/root:/bin/sh
web:x:33:34::/var/www:/bin/false
bare:x:40:41
+nis
broken:x:many:1:::
minus:x:-1:1:::
huge:x:99999999999999999999999999:1:::
long:x:%b:1:::
0web:x:50:51:::
\xff:x:60:61:::
""" % (b"9" * 6000)
GROUP = b"root:x:0:\nstaff:x:50:web,other\nweb:x:34:\nwheel:x:10:root,web\nodd:x:x:web\n"


def image(passwd: bytes | None = PASSWD, group: bytes | None = GROUP) -> UnionTree:
    entries = []
    for path, data in ((b"etc/passwd", passwd), (b"etc/group", group)):
        if data is not None:
            entries.append(FileEntry(path, stat.S_IFREG | 0o644, size=len(data), data=data))
    return UnionTree([EntryLayer(entries)])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (0, 0)),
        ("0", (0, 0)),
        ("65532", (65532, 65532)),
        ("65532:7", (65532, 7)),
        ("7:staff", (7, 50)),
        ("web", (33, 34)),
        ("web:staff", (33, 50)),
        ("web:0", (33, 0)),
        (":staff", (0, 50)),
        ("bare", (40, 41)),
        ("0web", (50, 51)),
        ("4294967294", (4294967294, 4294967294)),
    ],
)
def test_owners(text: str, expected: tuple[int, int]) -> None:
    assert owner(image(), text) == Owner(*expected)
    assert unknown_names(image(), text) == ()


@pytest.mark.parametrize(
    "text", ["nobody", "web:nobody", "1:nobody", "broken", "minus", "huge", "long", "4294967295", "9" * 6000, "-1", "٣"]
)
def test_unknown_owners_are_root_and_told(text: str) -> None:
    assert 0 in owner(image(), text)
    (name,) = unknown_names(image(), text)
    assert name.startswith(("user ", "group "))
    assert repr(text.rpartition(":")[2]) in name


def test_a_process_of_an_unknown_user_is_an_error() -> None:
    for text in ("nobody", "web:nobody", "1:nobody"):
        with pytest.raises(ContextError, match=r"no (user|group) "):
            exec_user(image(), text)


def test_an_image_without_files_knows_numbers_only() -> None:
    bare = image(None, None)
    assert owner(bare, "5:6") == Owner(5, 6)
    assert owner(bare, "web:staff") == Owner(0, 0)
    assert len(unknown_names(bare, "web:staff")) == 2
    assert exec_user(bare, "5") == ExecUser(5, 0, (0,))
    with pytest.raises(ContextError, match="/etc/passwd"):
        exec_user(bare, "web")


def test_files_that_are_links_are_followed_within_the_image_and_folders_have_no_rows() -> None:
    link = FileEntry(b"etc/passwd", stat.S_IFLNK | 0o777, link=b"/../../lib/passwd")
    data = FileEntry(b"lib/passwd", stat.S_IFREG | 0o644, size=len(PASSWD), data=PASSWD)
    folder = FileEntry(b"etc/group", stat.S_IFDIR | 0o755)
    tree = UnionTree([EntryLayer([link, data, folder])])
    assert owner(tree, "web") == Owner(33, 34)
    assert unknown_names(tree, "web:staff") == ("group 'staff' in the image's /etc/group",)


def test_processes_get_home_name_and_supplementary_groups() -> None:
    assert exec_user(image(), "web") == ExecUser(33, 34, (34, 10, 50), "/var/www", "web")
    assert exec_user(image(), "33") == ExecUser(33, 34, (34, 10, 50), "/var/www", "web")
    assert exec_user(image(), "web:staff") == ExecUser(33, 50, (50,), "/var/www", "web")
    assert exec_user(image(), "") == ExecUser(0, 0, (0, 10), "/root", "root")
    assert exec_user(image(), "1234") == ExecUser(1234, 0, (0,))
    assert exec_user(image(), "bare") == ExecUser(40, 41, (41,), "", "bare")


def test_names_are_told_from_numbers() -> None:
    assert [has_names(text) for text in ("", "5", "5:6", "web", "5:staff", "web:5")] == [
        False,
        False,
        False,
        True,
        True,
        True,
    ]
