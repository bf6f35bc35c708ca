"""Cache records: what a step with a given key left behind."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from castoff.errors import StoreError

if TYPE_CHECKING:
    from castoff.solve.cachekey import CacheKey


@dataclass(frozen=True, slots=True)
class LayerRecord:
    """A layer that was made of a step: digests, sizes in bytes, media type."""

    diff_id: str
    digest: str
    size: int
    uncompressed: int
    media_type: str
    files: int = 0


@dataclass(frozen=True, slots=True)
class CacheRecord:
    """What a step left behind.

    Attributes:
        snapshot: name of its snapshot; "" where none was needed.
        parent: name of the snapshot below; "" for none.
        layers: the layers that were made of it, by variant (times and compression decide the variant).
        facts: further facts of the operation's own, such as the digest of a selection.
    """

    snapshot: str = ""
    parent: str = ""
    layers: dict[str, LayerRecord] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the record as a JSON object."""
        value: dict[str, Any] = {"snapshot": self.snapshot, "parent": self.parent}
        if self.layers:
            value["layers"] = {
                name: [layer.diff_id, layer.digest, layer.size, layer.uncompressed, layer.media_type, layer.files]
                for name, layer in self.layers.items()
            }
        if self.facts:
            value["facts"] = self.facts
        return value

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> CacheRecord:
        """Read a record that `to_json` made; raises KeyError, TypeError or ValueError for anything else."""
        layers = {str(name): LayerRecord(*fields) for name, fields in value.get("layers", {}).items()}
        return cls(str(value["snapshot"]), str(value["parent"]), layers, dict(value.get("facts", {})))


class CacheStore(Protocol):
    """Cache records by key. Safe for several threads and processes."""

    def load(self, key: CacheKey) -> CacheRecord | None:
        """Return the record of a key; None where there is none, or where it can't be read."""

    def others(self, key: CacheKey) -> tuple[CacheRecord, ...]:
        """Return further records of a key, made elsewhere, for where what the first one needs is gone."""

    def save(self, key: CacheKey, record: CacheRecord) -> None:
        """Keep a record in place of an earlier one. Atomic, idempotent."""

    def remove(self, key: CacheKey) -> None:
        """Forget a key. Idempotent."""


class MemoryCacheStore:
    """Cache records that end with the process."""

    def __init__(self) -> None:
        self._records: dict[CacheKey, CacheRecord] = {}

    def load(self, key: CacheKey) -> CacheRecord | None:
        """Return the record of a key."""
        return self._records.get(key)

    def others(self, key: CacheKey) -> tuple[CacheRecord, ...]:
        """Return none."""
        del key
        return ()

    def save(self, key: CacheKey, record: CacheRecord) -> None:
        """Keep a record."""
        self._records[key] = record

    def remove(self, key: CacheKey) -> None:
        """Forget a key."""
        self._records.pop(key, None)


class DirectoryCacheStore:
    """Cache records as small files below a folder.

    A record that is lost or torn by a power cut is only a step that runs once more, so nothing is fsync'ed.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._serial = 0

    def _path(self, key: CacheKey) -> str:
        return f"{self._folder}/{key[:2]}/{key[2:]}"

    def load(self, key: CacheKey) -> CacheRecord | None:
        """Return the record of a key."""
        try:
            with open(self._path(key), "rb") as file:
                record = CacheRecord.from_json(json.loads(file.read()))
                with contextlib.suppress(OSError):
                    os.utime(file.fileno())  # pruning begins with what was not used for longest
                return record
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def others(self, key: CacheKey) -> tuple[CacheRecord, ...]:
        """Return none: a folder has one record of a key."""
        del key
        return ()

    def save(self, key: CacheKey, record: CacheRecord) -> None:
        """Keep a record."""
        path = self._path(key)
        self._serial += 1
        temporary = f"{path}.{os.getpid()}.{id(record):x}.{self._serial}"
        data = json.dumps(record.to_json(), separators=(",", ":")).encode()
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            try:
                with open(temporary, "wb") as file:
                    file.write(data)
                os.rename(temporary, path)
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise
        except OSError as error:
            raise StoreError(
                f"the cache record {path} can't be written: {error.strerror}",
                hint="free some space, or name another store with --root",
            ) from error

    def remove(self, key: CacheKey) -> None:
        """Forget a key."""
        with contextlib.suppress(OSError):
            os.unlink(self._path(key))
