"""The sources of ADD, told apart."""

from __future__ import annotations

import pytest

from castoff.ops.parts import source_parts
from castoff.ops.remote import asks, file_name, is_remote
from castoff.ops.select import Request
from castoff.plan.step import CopyStep

SHA = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://h/a/b.txt?x=/y#z", "b.txt"),
        ("http://h/a/b/", "b"),
        ("http://h/a%20b", "a b"),
        ("http://h/a%2Fb", "b"),
        ("http://h", "__unnamed__"),
        ("http://h/", "__unnamed__"),
        ("http://h/..", "__unnamed__"),
        ("http://h/%2e%2e", "__unnamed__"),
        ("http://h/%00", "__unnamed__"),
    ],
)
def test_names_of_files(url: str, name: str) -> None:
    assert file_name(url) == name


def test_sources_keep_their_order_and_each_place_is_a_part() -> None:
    step = CopyStep(("a", "b", "http://h/x", "c", "https://h/r.git#v"), "/d/", is_add=True, excludes=("*.o",))
    whole = Request(("/",), ("*.o",))
    parts = [(part.request, part.unpack, part.remote) for part in source_parts(step)]
    assert parts == [
        (Request(("a", "b"), ("*.o",)), True, ""),
        (whole, False, "http://h/x"),
        (Request(("c",), ("*.o",)), True, ""),
        (whole, False, "https://h/r.git#v"),
    ]
    copied = CopyStep(("a", "http://h/x"), "/d/")
    assert [part.request for part in source_parts(copied)] == [Request(("a", "http://h/x"))]
    assert source_parts(CopyStep((), "/d/")) == ()


@pytest.mark.parametrize(
    ("unpack", "local", "remote"), [(None, True, False), (True, True, True), (False, False, False)]
)
def test_what_is_unpacked(unpack: bool | None, local: bool, remote: bool) -> None:
    step = CopyStep(("a.tar", "http://h/b.tar"), "/d/", is_add=True, unpack=unpack)
    assert [part.unpack for part in source_parts(step)] == [local, remote]


@pytest.mark.parametrize(
    ("source", "checksum", "expected"),
    [
        ("a", "", False),
        ("http://h/x", "", True),
        ("http://h/x", f"sha256:{'0' * 64}", False),
        ("https://h/r.git", "", True),
        ("https://h/r.git#main", "", True),
        (f"https://h/r.git#{SHA}", "", False),
        ("https://h/r.git#main", SHA, False),
        ("https://h/r.git#main", SHA[:10], True),
    ],
)
def test_who_has_to_be_asked(source: str, checksum: str, expected: bool) -> None:
    assert asks(CopyStep((source,), "/d", is_add=True, checksum=checksum)) is expected


def test_remote_contexts() -> None:
    for text in ("http://h/x", "https://h/x.git", "git@h:x", "ssh://h/x", "git://h/x", "github.com/a/b"):
        assert is_remote(text)
    for text in (".", "/a", "./git@h:x", "docker-image://x", "oci-layout://x", "ftp://h/x"):
        assert not is_remote(text)
