"""Where COPY, ADD and WORKDIR put things, and what they then look like."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ops_rig import OpsRig, file_, folder, layer_of, link, rows, tar_of

from castoff.errors import ContextError
from castoff.plan.step import InlineFile

PASSWD = b"root:x:0:0::/root:/bin/sh\nweb:x:33:34::/:/bin/false\n"
GROUP = b"root:x:0:\nstaff:x:50:\n"


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[OpsRig]:
    made = OpsRig(tmp_path)
    yield made
    made.store.close()


SOURCE = (
    folder("src", 0o700, 9, 9),
    file_("src/a", b"a", 0o640, 1, 2),
    folder("src/sub", 0o711, 3, 4),
    file_("src/sub/b", b"b", 0o755),
    link("src/l", "a"),
)


def test_a_directory_gives_its_content_to_a_new_directory_of_root(rig: OpsRig) -> None:
    result = layer_of(rig.copy(rig.filesystem(*SOURCE), sources=("src",), dest="/x/y"))
    assert rows(result) == [
        "x d0755 0:0",
        "x/y d0755 0:0",
        "x/y/a f0640 1:2",
        "x/y/l -> a 0:0",
        "x/y/sub d0711 3:4",
        "x/y/sub/b f0755 0:0",
    ]


def test_a_file_goes_into_a_directory_and_becomes_any_other_name(rig: OpsRig) -> None:
    source, below = rig.filesystem(*SOURCE), rig.filesystem(folder("opt", 0o700, 5, 5))
    assert "opt/a f0640 1:2" in rows(layer_of(rig.copy(source, below, sources=("src/a",), dest="/opt")))
    assert rows(layer_of(rig.copy(source, below, sources=("src/a",), dest="/new"))) == ["new f0640 1:2"]
    assert rows(layer_of(rig.copy(source, below, sources=("src/a",), dest="/new/"))) == [
        "new d0755 0:0",
        "new/a f0640 1:2",
    ]


def test_a_followed_link_is_copied_under_the_name_it_was_asked_for(rig: OpsRig) -> None:
    result = layer_of(rig.copy(rig.filesystem(*SOURCE), sources=("src/l",), dest="/d/"))
    assert rows(result)[1:] == ["d/l f0640 1:2"]


def test_links_in_the_destination_are_followed_within_the_image(rig: OpsRig) -> None:
    below = rig.filesystem(link("lib", "usr/lib"), folder("usr"), folder("usr/lib"), link("out", "/../../etc"))
    source = rig.filesystem(*SOURCE)
    assert "usr/lib/a f0640 1:2" in rows(layer_of(rig.copy(source, below, sources=("src/a",), dest="/lib/")))
    assert "etc/a f0640 1:2" in rows(layer_of(rig.copy(source, below, sources=("src/a",), dest="/out/")))


def test_link_layers_know_nothing_of_what_is_below(rig: OpsRig) -> None:
    below = rig.filesystem(link("lib", "usr/lib"))
    result = layer_of(rig.copy(rig.filesystem(*SOURCE), below, sources=("src/a",), dest="/lib/", link=True))
    assert rows(result) == ["lib d0755 0:0", "lib/a f0640 1:2"]


def test_a_link_in_the_place_of_a_file_is_replaced_and_not_written_through(rig: OpsRig) -> None:
    below = rig.filesystem(folder("d"), link("d/a", "/etc/passwd"), file_("etc/passwd"))
    assert rows(layer_of(rig.copy(rig.filesystem(*SOURCE), below, sources=("src/a",), dest="/d/"))) == [
        "d d0755 0:0",
        "d/a f0640 1:2",
    ]


def test_existing_directories_below_the_destination_get_the_source_s_look(rig: OpsRig) -> None:
    below = rig.filesystem(folder("d", 0o777, 7, 7), folder("d/sub", 0o777, 7, 7), file_("d/sub/kept"))
    result = layer_of(rig.copy(rig.filesystem(*SOURCE), below, sources=("src/",), dest="/d"))
    assert rows(result)[0] == "d d0777 7:7"
    assert "d/sub d0711 3:4" in rows(result)
    assert "d/sub/kept" not in result


@pytest.mark.parametrize(("dest", "message"), [("/f", "over /f|/f is not a directory"), ("/f/x", "not a directory")])
def test_a_file_in_the_way_of_a_directory_is_an_error(rig: OpsRig, dest: str, message: str) -> None:
    with pytest.raises(ContextError, match=message):
        rig.copy(rig.filesystem(*SOURCE), rig.filesystem(file_("f")), sources=("src",), dest=dest)


def test_a_directory_in_the_way_of_a_file_is_an_error(rig: OpsRig) -> None:
    below = rig.filesystem(folder("d"), folder("d/a"))
    with pytest.raises(ContextError, match="cannot replace the directory /d/a"):
        rig.copy(rig.filesystem(*SOURCE), below, sources=("src/a",), dest="/d/")


def test_a_pattern_that_finds_nothing_makes_nothing(rig: OpsRig) -> None:
    assert layer_of(rig.copy(rig.filesystem(*SOURCE), sources=("no*",), dest="/d/")) == {}


def test_owners_are_looked_up_in_the_image_and_cover_all_that_is_made(rig: OpsRig) -> None:
    below = rig.filesystem(file_("etc/passwd", PASSWD), file_("etc/group", GROUP))
    source = rig.filesystem(*SOURCE)
    for chown, owner in (("web", "33:34"), ("web:staff", "33:50"), ("8", "8:8"), ("8:staff", "8:50")):
        result = rows(layer_of(rig.copy(source, below, sources=("src",), dest="/n/m", chown=chown)))
        assert [row.split()[-1] for row in result] == [owner] * len(result)


def test_an_owner_that_the_image_lacks_is_root_and_a_warning(rig: OpsRig) -> None:
    below = rig.filesystem(file_("etc/passwd", PASSWD), file_("etc/group", GROUP))
    for chown, owner in (("nobody", "0:0"), ("web:nobody", "33:0"), ("nobody:staff", "0:50")):
        result = rows(layer_of(rig.copy(rig.filesystem(*SOURCE), below, sources=("src",), dest="/n", chown=chown)))
        assert [row.split()[-1] for row in result] == [owner] * len(result)
    assert [message.partition(": ")[2] for message in rig.warnings] == [
        "--chown=nobody: there is no user 'nobody' in the image's /etc/passwd, so root is taken",
        "--chown=web:nobody: there is no group 'nobody' in the image's /etc/group, so root is taken",
        "--chown=nobody:staff: there is no user 'nobody' in the image's /etc/passwd, so root is taken",
    ]


def test_chmod_covers_files_directories_and_octal_the_parents_that_are_made(rig: OpsRig) -> None:
    source = rig.filesystem(*SOURCE)
    octal = rows(layer_of(rig.copy(source, sources=("src",), dest="/n/m", chmod="4750")))
    assert octal[:3] == ["n d0750 0:0", "n/m d0750 0:0", "n/m/a f4750 1:2"]
    assert octal[3:] == ["n/m/l -> a 0:0", "n/m/sub d4750 3:4", "n/m/sub/b f4750 0:0"]
    symbolic = rows(layer_of(rig.copy(source, sources=("src",), dest="/n", chmod="u=rwX,go=rX")))
    assert symbolic == ["n d0755 0:0", "n/a f0644 1:2", "n/l -> a 0:0", "n/sub d0755 3:4", "n/sub/b f0755 0:0"]


def test_implied_directories_take_the_source_s_look_when_new_and_its_mode_when_not(rig: OpsRig) -> None:
    source = rig.filesystem(*SOURCE)
    new = rows(layer_of(rig.copy(source, sources=("src/sub/b",), dest="/", parents=True, chown="6")))
    assert new == ["src d0700 6:6", "src/sub d0711 6:6", "src/sub/b f0755 6:6"]
    below = rig.filesystem(folder("src", 0o777, 8, 8))
    old = rows(layer_of(rig.copy(source, below, sources=("src/sub/b",), dest="/", parents=True)))
    assert old == ["src d0700 8:8", "src/sub d0711 3:4", "src/sub/b f0755 0:0"]


def test_hard_links_stay_within_one_source(rig: OpsRig) -> None:
    root = rig.path / "context"
    (root / "d").mkdir(parents=True)
    (root / "d/one").write_text("same")
    (root / "d/two").hardlink_to(root / "d/one")
    (root / "e").hardlink_to(root / "d/one")
    result = layer_of(rig.copy(rig.context(), sources=("d", "e"), dest="/t/"))
    assert {path: entry.hardlink for path, entry in result.items() if entry.is_file} == {
        "t/e": None,
        "t/one": None,
        "t/two": b"t/one",
    }


def test_sockets_are_no_part_of_a_context_and_pipes_are_copied(rig: OpsRig) -> None:
    import os
    import stat

    root = rig.path / "context"
    root.mkdir()
    os.mkfifo(root / "pipe", 0o600)
    os.mknod(root / "socket", stat.S_IFSOCK | 0o600)  # bind() takes no path of more than 107 bytes
    result = layer_of(rig.copy(rig.context(), sources=(".",), dest="/t"))
    assert list(result) == ["t", "t/pipe"]


def test_heredocs_are_files_and_nothing_of_their_name_leads_out(rig: OpsRig) -> None:
    files = (InlineFile("../../run.sh", b"echo"), InlineFile("conf", b"x=1"))
    result = layer_of(rig.copy(None, sources=(), files=files, dest="/opt/", chmod="755"))
    assert rows(result) == ["opt d0755 0:0", "opt/conf f0755 0:0", "opt/run.sh f0755 0:0"]
    with pytest.raises(ContextError, match="can't be named"):
        rig.copy(None, sources=(), files=(InlineFile("..", b""),), dest="/opt/")


def test_add_takes_an_archive_apart_by_what_it_is_and_copy_never_does(rig: OpsRig) -> None:
    data = tar_of(("in/file", b"data"), mode="w:gz")
    source = rig.filesystem(file_("plain.txt", data), file_("fake.tar.gz", b"no archive"))
    paths: dict[str, Any] = {"sources": ("plain.txt", "fake.tar.gz"), "dest": "/d/"}
    assert list(layer_of(rig.copy(source, is_add=True, **paths))) == ["d", "d/fake.tar.gz", "d/in", "d/in/file"]
    assert list(layer_of(rig.copy(source, is_add=True, unpack=True, **paths))) == [
        "d",
        "d/fake.tar.gz",
        "d/in",
        "d/in/file",
    ]
    assert list(layer_of(rig.copy(source, is_add=True, unpack=False, **paths))) == ["d", "d/fake.tar.gz", "d/plain.txt"]
    assert list(layer_of(rig.copy(source, **paths))) == ["d", "d/fake.tar.gz", "d/plain.txt"]


def test_workdir_makes_parents_for_the_user_and_again_what_was_there(rig: OpsRig) -> None:
    below = rig.filesystem(file_("etc/passwd", PASSWD), file_("etc/group", GROUP), folder("srv", 0o700, 9, 9))
    assert rows(layer_of(rig.workdir(below, "/a/b", "web"))) == ["a d0755 33:34", "a/b d0755 33:34"]
    assert rows(layer_of(rig.workdir(below, "/srv", "web"))) == ["srv d0700 9:9"]
    assert rows(layer_of(rig.workdir(below, "/a", "65532"))) == ["a d0755 65532:65532"]
    assert rows(layer_of(rig.workdir(below, "/a", "not-yet:staff"))) == ["a d0755 0:50"]
    assert rows(layer_of(rig.workdir(below, "/a", "web:not-yet"))) == ["a d0755 33:0"]


def test_keys_change_with_the_content_the_place_and_the_look(rig: OpsRig) -> None:
    below, source = rig.filesystem(), rig.filesystem(*SOURCE)
    step: dict[str, Any] = {"sources": ("src",), "dest": "/d"}
    key = rig.key([below, source], **step)
    assert rig.key([below, rig.filesystem(*SOURCE, file_("elsewhere"))], **step) == key
    others = [
        rig.key([rig.filesystem(), source], **step),
        rig.key([below, rig.filesystem(*SOURCE, file_("src/new"))], **step),
        rig.key([below, source], **{**step, "dest": "/e"}),
        rig.key([below, source], **step, chown="5"),
        rig.key([below, source], **step, chmod="700"),
        rig.key([below, source], **step, link=True),
        rig.key([below, source], **step, is_add=True),
        rig.key([below, source], **step, excludes=("a",)),
    ]
    assert len({key, *others}) == len(others) + 1


def test_link_keys_know_whom_a_name_means_and_nothing_else_of_what_is_below(rig: OpsRig) -> None:
    source = rig.filesystem(*SOURCE)
    step: dict[str, Any] = {"sources": ("src",), "dest": "/d", "link": True}
    one = rig.filesystem(file_("etc/passwd", PASSWD))
    two = rig.filesystem(file_("etc/passwd", PASSWD.replace(b"33", b"44")))
    assert rig.key([one, source], **step) == rig.key([two, source], **step)
    assert rig.key([one, source], **step, chown="7:8") == rig.key([two, source], **step, chown="7:8")
    assert rig.key([one, source], **step, chown="web") != rig.key([two, source], **step, chown="web")
