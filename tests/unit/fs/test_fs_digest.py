"""Digests of files' content."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from castoff.errors import ContextError
from castoff.fs.digest import FileHasher
from castoff.fs.entry import FileEntry

REG = stat.S_IFREG | 0o644


def test_content_on_disk_and_in_memory(tmp_path: Path) -> None:
    hasher = FileHasher()
    for size in (0, 1, 700_000, 5):
        data = os.urandom(size)
        (tmp_path / "f").write_bytes(data)
        wanted = hashlib.sha256(data).digest()
        assert hasher.digest(FileEntry(b"f", REG, size=size, source=os.fsencode(tmp_path / "f"))) == wanted
        assert hasher.digest(FileEntry(b"f", REG, size=size, data=data)) == wanted


def test_what_has_no_content_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12")
    entry = FileEntry(b"f", REG, size=2, source=os.fsencode(tmp_path / "f"))
    for bad, words in (
        (replace(entry, mode=stat.S_IFIFO), "not a regular file"),
        (replace(entry, size=3), "changed"),
        (replace(entry, source=None), "not at hand"),
        (replace(entry, source=os.fsencode(tmp_path / "none")), "can't read"),
    ):
        with pytest.raises(ContextError, match=words):
            FileHasher().digest(bad)
