from __future__ import annotations

import errno
import json
import os
import resource
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from castoff.errors import BlobNotFoundError, DigestMismatchError, StoreError
from castoff.oci.digest import Digest
from castoff.store.directory import DirectoryStore
from castoff.store.failure import store_error


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore.open_(str(tmp_path / "store"))


def test_a_new_store_is_an_oci_layout(store: DirectoryStore) -> None:
    root = Path(store.root)
    assert json.loads((root / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((root / "index.json").read_bytes())
    assert index["schemaVersion"] == 2
    assert index["manifests"] == []
    assert json.loads((root / "castoff.json").read_bytes()) == {"version": 1}
    assert all((root / name).is_dir() for name in ("blobs/sha256", "snapshots", "cache", "tmp"))
    assert stat.S_IMODE(root.stat().st_mode) == 0o700


def test_opening_again_keeps_what_is_there(store: DirectoryStore) -> None:
    digest = store.blobs.add(b"x")
    again = DirectoryStore.open_(store.root, create=False)
    assert again.blobs.read(digest) == b"x"


def test_an_absent_store_is_made_only_if_asked_for(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no store in"):
        DirectoryStore.open_(str(tmp_path / "none"), create=False)
    assert not (tmp_path / "none").exists()


def test_a_newer_format_is_refused(store: DirectoryStore) -> None:
    Path(store.root, "castoff.json").write_text('{"version":2}')
    with pytest.raises(StoreError, match="has format 2") as caught:
        DirectoryStore.open_(store.root)
    assert "upgrade" in str(caught.value.hint)


@pytest.mark.parametrize("text", ["", "[]", '{"version":"1"}', "{}", '{"version":0}', "\x00"])
def test_a_broken_mark_is_one_clear_error(store: DirectoryStore, text: str) -> None:
    Path(store.root, "castoff.json").write_text(text)
    with pytest.raises(StoreError, match="can't be read"):
        DirectoryStore.open_(store.root)


def test_a_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError):
        DirectoryStore.open_(str(tmp_path / "file"))


def test_a_folder_with_something_else_in_it_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(StoreError, match="not empty and is no store"):
        DirectoryStore.open_(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize("missing", ["index.json", "oci-layout", "blobs/sha256", "tmp"])
def test_a_store_that_was_killed_while_it_was_made_is_completed(store: DirectoryStore, missing: str) -> None:
    path = Path(store.root, missing)
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink()
    Path(store.root, "index.json").unlink(missing_ok=True)  # written last of all
    again = DirectoryStore.open_(store.root)
    assert path.exists()
    assert again.blobs.read(again.blobs.add(b"x")) == b"x"


def test_blobs_are_named_by_their_digest_and_readable_by_all(store: DirectoryStore) -> None:
    old = os.umask(0o077)
    try:
        with store.blobs.writer() as writer:
            writer.write(b"hello, ")
            writer.write(memoryview(b"world"))
            digest, size = writer.commit()
    finally:
        os.umask(old)
    assert digest == Digest.of(b"hello, world")
    assert size == 12
    path = Path(store.root, "blobs/sha256", digest.hex)
    assert path.read_bytes() == b"hello, world"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert store.blobs.size(digest) == 12
    assert list(store.blobs) == [digest]
    assert os.listdir(store.session().path) == []


def test_a_blob_under_another_algorithm(store: DirectoryStore) -> None:
    import hashlib

    expected = Digest("sha512", hashlib.sha512(b"abc").hexdigest())
    with store.blobs.writer() as writer:
        writer.write(b"abc")
        assert writer.commit(expected) == (expected, 3)
    assert store.blobs.read(expected) == b"abc"
    store.sync()


def test_a_writer_that_is_left_stores_nothing(store: DirectoryStore) -> None:
    with store.blobs.writer() as writer:
        writer.write(b"x")
    assert list(store.blobs) == []
    assert os.listdir(store.session().path) == []


def test_other_bytes_than_expected_are_not_stored(store: DirectoryStore) -> None:
    expected = Digest.of(b"good")
    with pytest.raises(DigestMismatchError) as caught, store.blobs.writer() as writer:
        writer.write(b"evil")
        writer.commit(expected)
    assert caught.value.expected == str(expected)
    assert caught.value.actual == str(Digest.of(b"evil"))
    assert list(store.blobs) == []


def test_reading_verifies(store: DirectoryStore) -> None:
    digest = store.blobs.add(b"12345678")
    Path(store.blobs.path(digest)).write_bytes(b"1234567X")
    with pytest.raises(DigestMismatchError, match="is damaged"):
        store.blobs.read(digest)


def test_reading_is_bounded(store: DirectoryStore) -> None:
    digest = store.blobs.add(b"123456789")
    with pytest.raises(StoreError, match="larger than"):
        store.blobs.read(digest, limit=8)


def test_a_missing_blob(store: DirectoryStore) -> None:
    digest = Digest.of(b"nowhere")
    assert store.blobs.size(digest) is None
    with pytest.raises(BlobNotFoundError):
        store.blobs.open_(digest)
    with pytest.raises(BlobNotFoundError):
        store.blobs.read(digest)


def test_a_blob_of_the_wrong_size_is_replaced(store: DirectoryStore) -> None:
    digest = store.blobs.add(b"whole")
    Path(store.blobs.path(digest)).write_bytes(b"")
    assert store.blobs.add(b"whole") == digest
    assert store.blobs.read(digest) == b"whole"


def test_removing_counts_a_generation(store: DirectoryStore) -> None:
    assert store.generation() == 0
    digest = store.blobs.add(b"x")
    assert store.generation() == 0
    store.blobs.delete(digest)
    assert store.generation() == 1
    store.blobs.delete(digest)
    assert store.generation() == 1
    assert store.bump_generation() == 2


def test_files_that_are_no_blobs_are_not_listed(store: DirectoryStore) -> None:
    Path(store.root, "blobs/sha256/README").write_text("x")
    Path(store.root, "blobs/other").mkdir()
    assert list(store.blobs) == []


def test_syncing_clears_the_list_of_unsynced_blobs(store: DirectoryStore) -> None:
    store.blobs.add(b"1")
    store.blobs.add(b"2")
    (unsynced,) = Path(store.root, "tmp").glob("unsynced-*")
    assert len(unsynced.read_text().split()) == 2
    store.sync()
    assert unsynced.read_text() == ""


def test_blobs_that_a_power_failure_broke_are_removed(store: DirectoryStore) -> None:
    good, bad, cut = (store.blobs.add(data) for data in (b"good", b"bad!", b"cut"))
    store.close()
    (unsynced,) = Path(store.root, "tmp").glob("unsynced-*")
    unsynced.rename(unsynced.with_name("unsynced-an-earlier-boot"))
    Path(store.blobs.path(bad)).write_bytes(b"\0\0\0\0")
    Path(store.blobs.path(cut)).write_bytes(b"")
    with open(unsynced.with_name("unsynced-an-earlier-boot"), "a") as file:
        file.write("../../etc\nsha256/half")
    again = DirectoryStore.open_(store.root)
    generation = again.generation()
    again.session()
    assert set(again.blobs) == {good}
    assert again.generation() > generation
    assert not unsynced.with_name("unsynced-an-earlier-boot").exists()


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no space left"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission"),
        (errno.EDQUOT, "quota"),
    ],
)
def test_errors_of_the_system_say_what_to_do(number: int, words: str) -> None:
    error = store_error(OSError(number, os.strerror(number), "/x/y"), "write a blob")
    assert words in error.message
    assert "/x/y" in error.message
    assert error.hint
    assert error.exit_code == 6


def test_a_full_disk_is_one_sentence_and_leaves_nothing(store: DirectoryStore) -> None:
    # A limit on the size of files fails a write halfway, as a full disk does.
    program = f"""
import os, resource, signal, sys
from castoff.errors import StoreError
from castoff.store.directory import DirectoryStore
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = DirectoryStore.open_({store.root!r})
store.session()
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
try:
    with store.blobs.writer() as writer:
        for _ in range(10):
            writer.write(bytes(50_000))
except StoreError as error:
    print(error.message)
print(os.listdir(store.session().path), list(store.blobs))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert "can't write a blob to the store" in first
    assert second == "[] []"
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY


def test_a_digest_that_can_not_be_computed(store: DirectoryStore) -> None:
    strange = Digest("shake_128", "abc")
    with pytest.raises(StoreError, match="can't be verified"), store.blobs.writer() as writer:
        writer.write(b"x")
        writer.commit(strange)
    assert store.blobs.size(strange) is None
    Path(store.root, "blobs/shake_128").mkdir()
    Path(store.root, "blobs/shake_128/abc").write_bytes(b"x")
    with pytest.raises(StoreError, match="can't be verified"):
        store.blobs.read(strange)
    assert os.listdir(store.session().path) == []
