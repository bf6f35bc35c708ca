"""Stores of older formats are brought to the present one, whatever happens in between."""

from __future__ import annotations

import os

import pytest

from castoff.errors import StoreError
from castoff.store import directory
from castoff.store.directory import DirectoryStore
from castoff.store.migration import migrate, write_version


def rename_cache(root: str) -> None:
    """Turn a made-up format, in which the cache had another name, into the next one."""
    if os.path.isdir(f"{root}/old-cache"):
        os.rmdir(f"{root}/cache")
        os.rename(f"{root}/old-cache", f"{root}/cache")


def old_store(root: str) -> None:
    """Make a store of the made-up format 1."""
    DirectoryStore.open_(root)
    os.rename(f"{root}/cache", f"{root}/old-cache")
    os.mkdir(f"{root}/cache")
    with open(f"{root}/old-cache/kept", "w", encoding="ascii") as file:
        file.write("kept")
    write_version(root, 1)


def test_opening_migrates(store_dir: str, monkeypatch: pytest.MonkeyPatch) -> None:
    old_store(store_dir)
    done: list[int] = []
    steps = {1: rename_cache, 2: lambda root: done.append(2)}
    monkeypatch.setattr(directory, "FORMAT", 3)
    monkeypatch.setattr(directory, "migrate", lambda root, read, target: migrate(root, read, target, steps))
    DirectoryStore.open_(store_dir)
    assert os.listdir(f"{store_dir}/cache") == ["kept"]
    assert (directory._version(store_dir), done) == (3, [2])
    DirectoryStore.open_(store_dir)
    assert done == [2], "a store of the present format is left alone"


def test_a_stop_in_between_is_made_good(store_dir: str) -> None:
    old_store(store_dir)
    broken = True

    def step(root: str) -> None:
        rename_cache(root)
        if broken:
            raise OSError(28, "No space left on device")

    with pytest.raises(StoreError, match="no space left"):
        migrate(store_dir, lambda: directory._version(store_dir) or 0, 2, {1: step})
    assert directory._version(store_dir) == 1
    broken = False
    migrate(store_dir, lambda: directory._version(store_dir) or 0, 2, {1: step})
    assert directory._version(store_dir) == 2
    assert os.listdir(f"{store_dir}/cache") == ["kept"]


def test_a_format_that_nothing_leads_on_from(store_dir: str, monkeypatch: pytest.MonkeyPatch) -> None:
    DirectoryStore.open_(store_dir)
    monkeypatch.setattr(directory, "FORMAT", 2)
    with pytest.raises(StoreError, match="format 1"):
        DirectoryStore.open_(store_dir)
    assert directory._version(store_dir) == 1
