"""Cache records of this store and of others, as one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from castoff.buildcache.document import CacheDocument, CarriedMount
    from castoff.solve.cache import CacheRecord, CacheStore
    from castoff.solve.cachekey import CacheKey


class ImportedCacheStore:
    """The store's own records first, then those of imported caches in their order. New ones go to the store's own.

    Safe for several threads.
    """

    def __init__(self, own: CacheStore, imported: Sequence[CacheDocument]) -> None:
        self._own = own
        self._imported = tuple(imported)

    def load(self, key: CacheKey) -> CacheRecord | None:
        """Return the store's own record of a key; else, where it is one of facts alone, an imported one."""
        record = self._own.load(key)
        if record is None:
            record = next((other for other in self.others(key) if not other.layers and not other.parent), None)
        return record

    def others(self, key: CacheKey) -> tuple[CacheRecord, ...]:
        """Return the imported records of a key."""
        found = (document.records.get(key) for document in self._imported)
        return tuple(record for record in found if record is not None)

    def save(self, key: CacheKey, record: CacheRecord) -> None:
        """Keep a record in the store."""
        self._own.save(key, record)

    def remove(self, key: CacheKey) -> None:
        """Forget the store's record of a key."""
        self._own.remove(key)


def carried_mounts(documents: Sequence[CacheDocument]) -> dict[str, CarriedMount]:
    """Return the cache mounts of imported caches by the names of their folders; the first of a name counts."""
    found: dict[str, CarriedMount] = {}
    for document in documents:
        for mount in document.mounts:
            found.setdefault(mount.name, mount)
    return found
