"""Cache keys and records."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castoff.errors import StoreError
from castoff.solve.cache import CacheRecord, DirectoryCacheStore, LayerRecord
from castoff.solve.cachekey import cache_key

atoms = st.one_of(st.text(max_size=5), st.binary(max_size=5), st.integers(), st.booleans(), st.none())
values = st.recursive(atoms, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=8)


def _same(one: object, other: object) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(_same(a, b) for a, b in zip(one, other, strict=True))
    return one == other


@given(values, values)
def test_keys_are_equal_only_for_equal_parts(one: object, other: object) -> None:
    assert (cache_key("k", one) == cache_key("k", other)) == _same(one, other)


def test_the_kind_is_part_of_the_key() -> None:
    assert cache_key("run", "x") != cache_key("copy", "x")
    assert cache_key("a", "b", "c") != cache_key("a", ("b", "c"))


def test_text_that_is_not_utf8_has_a_key() -> None:
    assert cache_key("k", "\udcff") != cache_key("k", "\udcfe")


def test_a_key_refuses_what_it_can_not_tell_apart() -> None:
    with pytest.raises(TypeError, match="list"):
        cache_key("k", ["a"])


LAYER = LayerRecord("sha256:a", "sha256:b", 3, 4, "application/x", 1)


def test_records_survive_the_disk(tmp_path: Path) -> None:
    store = DirectoryCacheStore(str(tmp_path / "cache"))
    record = CacheRecord("snap", "below", {"v": LAYER}, {"content": "x"})
    assert store.load("ab" * 32) is None
    store.save("ab" * 32, record)
    assert store.load("ab" * 32) == record
    store.remove("ab" * 32)
    store.remove("ab" * 32)
    assert store.load("ab" * 32) is None


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"{}", b'{"snapshot":"a"}', b'{"snapshot":"a","parent":"","layers":3}']
)
def test_a_torn_record_counts_as_none(tmp_path: Path, data: bytes) -> None:
    store = DirectoryCacheStore(str(tmp_path))
    store.save("cd" * 32, CacheRecord())
    (tmp_path / "cd" / ("cd" * 31)).write_bytes(data)
    assert store.load("cd" * 32) is None


def test_many_writers_leave_a_whole_record_and_nothing_else(tmp_path: Path) -> None:
    store = DirectoryCacheStore(str(tmp_path))
    records = [CacheRecord(f"s{n}") for n in range(8)]
    threads = [threading.Thread(target=store.save, args=("ef" * 32, record)) for record in records]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.load("ef" * 32) in records
    assert [path.name for path in (tmp_path / "ef").iterdir()] == ["ef" * 31]


def test_a_store_that_can_not_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="can't be written"):
        DirectoryCacheStore(str(tmp_path / "file")).save("ab" * 32, CacheRecord())
