"""What is kept of keys and selections, and what it lets a later build say."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from ops_rig import file_, folder, link, union

from castoff.ops.buildnotes import BuildNotes, NoteStore, StepNote
from castoff.ops.keyfacts import facts_of, is_hidden, shown
from castoff.ops.listing import MAX_FILES, FileChange, Listing, ListingStore
from castoff.ops.select import Request, select
from castoff.ops.sources import _StageTree

FILE = stat.S_IFREG | 0o644


def test_facts_of_a_run() -> None:
    facts = facts_of(
        (
            ("below", "k" * 64),
            ("command", ("/bin/sh", "-c", "go build")),
            ("environment", ("PATH=/bin", "VERSION=1", "API_TOKEN=tell-nobody", "LONG=" + "x" * 500)),
            ("heredocs", (("EOF", b"echo hello", 0o755),)),
            ("mounts", (("bind", "/src", True, "c" * 64), ("cache", "/cache", "go", "shared"))),
            ("hosts", ("db",)),
            ("SOURCE_DATE_EPOCH", None),
        ),
        ("VERSION",),
    )
    assert facts["command"] == "go build"
    assert facts["variable:PATH"] == "/bin"
    assert facts["argument:VERSION"] == "1"
    assert is_hidden(facts["variable:API_TOKEN"])
    assert is_hidden(facts["variable:LONG"])
    assert facts["files:/src"] == "c" * 64
    assert facts["mount:/src"] == "bind"
    assert facts["mount:/cache"] == "cache go shared"
    assert facts["host:db"] == facts["SOURCE_DATE_EPOCH"] == ""
    assert not any("tell-nobody" in text or "hello" in text for text in facts.values())


@pytest.mark.parametrize(
    "name", ["TOKEN", "GITHUB_TOKEN", "DB_PASSWORD", "db_passwd", "AWS_SECRET_ACCESS_KEY", "API_KEYS", "NPM_AUTH"]
)
def test_values_of_variables_that_sound_secret_are_not_kept(name: str) -> None:
    facts = facts_of((("environment", (f"{name}=hunter2",)),), ())
    assert is_hidden(facts[f"variable:{name}"])
    assert "hunter2" not in str(facts)


@pytest.mark.parametrize("name", ["PATH", "MONKEY", "KEYBOARD", "PATTERN", "AUTHOR"])
def test_values_of_others_are(name: str) -> None:
    assert facts_of((("environment", (f"{name}=v",)),), ())[f"variable:{name}"] == "v"


def test_a_value_that_looks_like_a_digest_is_told_from_one() -> None:
    assert is_hidden(shown("#abc"))
    assert not is_hidden(shown("abc"))


def listing(**rows: tuple[int, str, str]) -> Listing:
    return Listing(dict(rows))


def test_what_changed_between_two_listings() -> None:
    old = listing(a=(FILE, "0:0", "aa"), b=(FILE, "0:0", "bb"), c=(FILE, "0:0", "cc"), gone=(FILE, "0:0", "gg"))
    new = listing(a=(FILE, "0:0", "a2"), b=(FILE | 0o111, "0:0", "bb"), c=(FILE, "1:1", "cc"), new=(FILE, "", "nn"))
    assert list(old.changes(new)) == [
        FileChange("a", "sha256 aa", "sha256 a2"),
        FileChange("b", "mode 0644", "mode 0755"),
        FileChange("c", "owner 0:0", "owner 1:1"),
        FileChange("new", "", "sha256 nn"),
        FileChange("gone", "sha256 gg", ""),
    ]


def test_a_file_that_became_a_link() -> None:
    old, new = listing(a=(FILE, "", "aa")), listing(a=(stat.S_IFLNK | 0o777, "", "b"))
    assert list(old.changes(new)) == [FileChange("a", "sha256 aa", "link to b")]


def test_of_a_listing_that_is_not_whole_nothing_is_said_to_be_new() -> None:
    short = Listing({"a": (FILE, "", "aa")}, complete=False)
    whole = listing(a=(FILE, "", "a2"), b=(FILE, "", "bb"))
    assert [change.path for change in short.changes(whole)] == ["a"]
    assert [change.path for change in whole.changes(short)] == ["a"]


def test_a_listing_is_kept_under_its_digest(tmp_path: Path) -> None:
    tree = _StageTree(union(folder("d"), file_("d/a", b"1"), file_("d/b", b"2", 0o755, 7, 8), link("d/l", "a")))
    store = ListingStore(str(tmp_path))
    store.keep("digest", tree, select(tree, Request(("d",))), owners=True)
    kept = store.load("digest")
    assert kept is not None
    assert list(kept.rows) == ["d/a", "d/b", "d/l"]
    assert kept.rows["d/b"][:2] == (stat.S_IFREG | 0o755, "7:8")
    assert kept.rows["d/b"][2] == "d4735e3a265e"  # the beginning of the sha256 of "2"
    assert kept.rows["d/l"][2] == "a"
    assert kept.complete
    assert store.load("other") is None
    assert os.listdir(tmp_path / "explain/files") == ["digest"]


def test_a_large_selection_is_listed_in_part(tmp_path: Path) -> None:
    tree = _StageTree(union(folder("d"), *(file_(f"d/{n:05}") for n in range(MAX_FILES + 5))))
    store = ListingStore(str(tmp_path))
    store.keep("digest", tree, select(tree, Request(("d",))), owners=False)
    kept = store.load("digest")
    assert kept is not None
    assert not kept.complete
    assert len(kept.rows) == MAX_FILES


@pytest.mark.parametrize("damage", [b"", b"not compressed", b"x\x9c\xabV*\x03\x00\x00\xff"])
def test_a_damaged_listing_is_none(tmp_path: Path, damage: bytes) -> None:
    store = ListingStore(str(tmp_path))
    (tmp_path / "explain/files").mkdir(parents=True)
    (tmp_path / "explain/files/digest").write_bytes(damage)
    assert store.load("digest") is None


def test_old_listings_make_room(tmp_path: Path) -> None:
    tree = _StageTree(union(file_("a")))
    store = ListingStore(str(tmp_path))
    for number in range(520):
        store.keep(f"d{number}", tree, (), owners=False)
        os.utime(tmp_path / f"explain/files/d{number}", (number, number))
    store.trim()
    assert store.load("d519") is not None
    assert store.load("d0") is None
    assert len(os.listdir(tmp_path / "explain/files")) == 256


def note(vertex: str, text: str, stage: str = "s") -> StepNote:
    return StepNote(vertex, stage, text, "key", True, {"command": text})


def test_notes_are_kept_by_what_was_built(tmp_path: Path) -> None:
    store = NoteStore(str(tmp_path))
    notes = BuildNotes({"step 0.1": note("step 0.1", "RUN a")}, complete=False)
    store.save(("context", "Dockerfile", ""), notes)
    assert store.load(("context", "Dockerfile", "")) == notes
    assert store.load(("context", "Dockerfile", "target")) is None


@pytest.mark.parametrize("damage", [b"", b"[]", b"{}", b'{"format":1,"complete":true,"steps":[[1]]}', b"\xff"])
def test_damaged_notes_are_none(tmp_path: Path, damage: bytes) -> None:
    store = NoteStore(str(tmp_path))
    store.save(("a",), BuildNotes())
    (path,) = (tmp_path / "explain/builds").iterdir()
    path.write_bytes(damage)
    assert store.load(("a",)) is None


def counterpart(notes: BuildNotes, vertex: str, text: str, *present: str) -> str | None:
    found = notes.counterpart(vertex, "s", text, frozenset(("s", item) for item in (*present, text)))
    return None if found is None else found.text


def test_the_counterpart_of_a_step() -> None:
    notes = BuildNotes({f"step 0.{n}": note(f"step 0.{n}", text) for n, text in enumerate(("a", "b", "c"))})
    assert counterpart(notes, "step 0.1", "b", "a", "c") == "b"
    assert counterpart(notes, "step 0.2", "b", "a", "new", "c") == "b"  # a line was put in above
    assert counterpart(notes, "step 0.1", "new", "a", "b", "c") is None  # that line
    assert counterpart(notes, "step 0.1", "B", "a", "c") == "b"  # the line was changed
    assert counterpart(notes, "step 0.3", "d", "a", "b", "c") is None  # a line was added at the end
    assert notes.counterpart("step 0.1", "other", "b", frozenset()) is None
