"""Archives that ADD takes apart, hostile ones among them."""

from __future__ import annotations

import gzip
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ops_rig import (
    OpsRig,
    directory,
    file_,
    folder,
    hard_link,
    layer_of,
    link,
    opaques_of,
    rows,
    symlink,
    tar_of,
)

from castoff.errors import CastoffError, ContextError, InvalidImageError
from castoff.fs.union import open_content
from castoff.layer.tarreader import TarLimits
from castoff.ops.select import Selected
from castoff.ops.unpack import unpack_archives


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[OpsRig]:
    made = OpsRig(tmp_path)
    yield made
    made.store.close()


class Adder:
    """Runs ADD of one archive."""

    def __init__(self, rig: OpsRig) -> None:
        self._rig = rig

    def __call__(self, data: bytes, *below: Any, dest: str = "/d/", **step: Any) -> Any:
        source = self._rig.filesystem(file_("x.tar", data))
        return self._rig.copy(source, self._rig.filesystem(*below), sources=("x.tar",), dest=dest, is_add=True, **step)


@pytest.fixture
def add(rig: OpsRig) -> Adder:
    return Adder(rig)


def test_owners_modes_and_links_are_those_of_the_archive(add: Adder) -> None:
    data = tar_of(
        ("bin", directory(mode=0o711, uid=5, gid=6)),
        ("bin/run", {"mode": 0o4755, "uid": 1, "gid": 2}),
        ("bin/sh", symlink("run")),
        ("lone/file", b"x"),
    )
    assert rows(layer_of(add(data))) == [
        "d d0755 0:0",
        "d/bin d0711 5:6",
        "d/bin/run f4755 1:2",
        "d/bin/sh -> run 0:0",
        "d/lone d0755 0:0",
        "d/lone/file f0644 0:0",
    ]


def test_chown_covers_what_is_unpacked_and_chmod_does_not(add: Adder) -> None:
    data = tar_of(("bin/run", {"mode": 0o700, "uid": 1}))
    assert rows(layer_of(add(data, chown="7:8", chmod="777"))) == [
        "d d0755 7:8",
        "d/bin d0755 0:0",
        "d/bin/run f0700 7:8",
    ]


@pytest.mark.parametrize("name", ["../out", "a/../../out", "/../out", "a/.."])
def test_a_path_that_leads_out_is_refused(add: Adder, name: str) -> None:
    with pytest.raises(InvalidImageError, match=r"x\.tar can't be unpacked"):
        add(tar_of((name, b"evil")))


def test_absolute_paths_count_from_the_destination(add: Adder) -> None:
    assert list(layer_of(add(tar_of(("/etc/passwd", b"x"))))) == ["d", "d/etc", "d/etc/passwd"]


@pytest.mark.parametrize("target", ["/etc", "../../../../etc", "../etc"])
def test_links_of_the_archive_lead_nowhere_but_into_the_destination(add: Adder, target: str) -> None:
    data = tar_of(("l", symlink(target)), ("l/passwd", b"evil"))
    result = layer_of(add(data, folder("etc"), file_("etc/passwd")))
    assert result["d/l"].is_symlink
    assert list(result) == ["d", "d/etc", "d/etc/passwd", "d/l"]


def test_links_of_the_image_below_the_destination_lead_nowhere_else(add: Adder) -> None:
    data = tar_of(("l/file", b"evil"))
    result = layer_of(add(data, folder("d"), link("d/l", "/etc"), folder("etc")))
    assert list(result) == ["d", "d/etc", "d/etc/file"]


def test_links_that_go_round_are_an_error(add: Adder) -> None:
    with pytest.raises(ContextError, match="symbolic links"):
        add(tar_of(("a", symlink("b")), ("b", symlink("a")), ("a/file", b"x")))


def test_hard_links_join_files_of_the_archive_and_of_the_image(add: Adder) -> None:
    data = tar_of(("one", b"1"), ("two", hard_link("one")), ("three", hard_link("old")))
    result = layer_of(add(data, folder("d"), file_("d/old", b"old")))
    assert {path: entry.hardlink for path, entry in result.items() if entry.is_file} == {
        "d/old": None,
        "d/one": None,
        "d/three": b"d/old",
        "d/two": b"d/one",
    }


def test_two_archives_share_no_links(rig: OpsRig) -> None:
    one, two = (tar_of((f"{name}1", name.encode()), (f"{name}2", hard_link(f"{name}1"))) for name in "ab")
    source = rig.filesystem(file_("one", one), file_("two", two))
    result = layer_of(rig.copy(source, sources=("one", "two"), dest="/", is_add=True))
    assert {path: entry.hardlink for path, entry in result.items()} == {
        "a1": None,
        "a2": b"a1",
        "b1": None,
        "b2": b"b1",
    }


@pytest.mark.parametrize("target", ["../../etc/shadow", "/etc/shadow", "nothing", "folder"])
def test_hard_links_to_what_is_not_in_the_destination_are_refused(add: Adder, target: str) -> None:
    data = tar_of(("folder", directory()), ("stolen", hard_link(target)))
    with pytest.raises(InvalidImageError):
        add(data, folder("etc"), file_("etc/shadow"))


def test_a_hard_link_through_a_link_stays_in_the_destination(add: Adder) -> None:
    data = tar_of(("l", symlink("/etc")), ("stolen", hard_link("l/shadow")))
    with pytest.raises(InvalidImageError, match="leads to nothing"):
        add(data, folder("etc"), file_("etc/shadow"))


def test_what_is_in_the_way_is_replaced(add: Adder) -> None:
    below = (folder("d"), folder("d/a"), file_("d/a/old"), file_("d/b"), link("d/c", "/etc"), folder("etc"))
    data = tar_of(("a", b"file now"), ("b/new", b"folder now"), ("c", directory()), ("c/x", b""))
    with pytest.raises(ContextError, match="/d/b is not a directory"):
        add(data, *below)
    data = tar_of(("a", b"file now"), ("b", directory()), ("b/new", b""), ("c", directory()), ("c/x", b""))
    result = layer_of(add(data, *below))
    assert result["d/a"].is_file
    assert [path for path in result if path.startswith("d/b")] == ["d/b", "d/b/new"]
    assert [path for path in result if path.startswith("d/c")] == ["d/c", "d/c/x"]
    assert "etc/x" not in result


def test_a_directory_that_was_a_file_for_a_moment_is_empty(add: Adder) -> None:
    data = tar_of(("a", b"file"), ("a", directory()), ("a/new", b""))
    done = add(data, folder("d"), folder("d/a"), file_("d/a/old"))
    assert opaques_of(done) == ["d/a"]
    assert done.tree().lstat(b"d/a/old") is None
    assert done.tree().lstat(b"d/a/new") is not None


def test_of_two_members_with_one_name_the_later_counts(add: Adder) -> None:
    data = tar_of(("f", b"first"), ("g", hard_link("f")), ("f", b"second"))
    result = layer_of(add(data))
    assert result["d/f"].data == b"second"
    assert result["d/g"].data == b"first"
    assert result["d/g"].hardlink is None


@pytest.mark.parametrize("cut", [700, 1500, 2048])
def test_a_torn_archive_is_an_error_that_names_it(add: Adder, cut: int) -> None:
    data = tar_of(("big", b"x" * 4000), ("more", b"y" * 4000))[:cut]
    with pytest.raises(InvalidImageError, match=r"x\.tar can't be unpacked"):
        add(data)


def test_a_torn_compression_is_an_error_that_names_it(add: Adder) -> None:
    data = gzip.compress(tar_of(*((f"f{n}", os.urandom(600)) for n in range(40))))
    with pytest.raises(InvalidImageError, match=r"x\.tar can't be unpacked"):
        add(data[: len(data) // 2])


def limited(rig: OpsRig, data: bytes, limits: TarLimits) -> tuple[Selected, ...]:
    entry = file_("bomb.tar", data)
    return unpack_archives((Selected(b"bomb.tar", entry),), rig.workspace.session, limits)


def test_bombs_go_off_at_the_limits_and_not_in_memory(rig: OpsRig) -> None:
    many = tar_of(*((f"f{number}", b"") for number in range(30)))
    with pytest.raises(InvalidImageError, match="more than 20 entries"):
        limited(rig, many, TarLimits(entries=20))
    zeros = gzip.compress(tar_of(("zeros", bytes(8 << 20))))
    with pytest.raises(InvalidImageError, match=r"bomb\.tar"):
        limited(rig, zeros, TarLimits(size=1 << 20))


def test_a_file_that_finds_no_room_is_refused_before_it_is_written(rig: OpsRig) -> None:
    out = tarfile.TarInfo("huge")
    out.size = 200 << 30
    head = out.tobuf(tarfile.GNU_FORMAT)
    with pytest.raises(CastoffError, match=r"room|size|bytes"):
        limited(rig, head + bytes(1024), TarLimits())


def test_large_content_is_kept_on_disk_for_the_session(rig: OpsRig) -> None:
    data = os.urandom(200 << 10)
    (item,) = limited(rig, tar_of(("small", b"s"), ("large", data)), TarLimits())
    found = dict(item.below)
    assert found[b"small"].data == b"s"
    assert found[b"large"].data is None
    with open_content(found[b"large"]) as file:
        assert file.read() == data


def test_only_regular_files_are_looked_into(rig: OpsRig) -> None:
    root = rig.path / "context"
    root.mkdir()
    os.mkfifo(root / "pipe.tar")
    (root / "empty.tar").touch()
    (root / "short.tar").write_bytes(b"\x1f\x8b")
    result = layer_of(rig.copy(rig.context(), sources=("*.tar",), dest="/d/", is_add=True))
    assert list(result) == ["d", "d/empty.tar", "d/pipe.tar", "d/short.tar"]
