"""The document of a cache that travels: cache records, and the cache mounts that come with them.

A cache is an image manifest whose config is this document and whose layers are the blobs that it names. Names of
snapshots in it follow from content: a layer that is unpacked has the name of what lies below and of its diff_id, so
that a record is valid on every machine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from castoff.errors import InvalidImageError, InvalidReferenceError
from castoff.oci import mediatypes
from castoff.oci.descriptor import Descriptor
from castoff.oci.digest import Digest
from castoff.oci.jsontext import Fields, dump
from castoff.oci.manifest import Manifest
from castoff.solve.cache import CacheRecord, LayerRecord

CONFIG_TYPE = "application/vnd.castoff.buildcache.config.v1+json"
"""The media type of the document."""
ARTIFACT_TYPE = "application/vnd.castoff.buildcache.v1"
"""The artefact type of a cache's manifest."""
MAX_CONFIG = 32 << 20
"""The largest document that is read, in bytes."""
VERSION = 1

_KEY = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[0-9a-z]{0,64}")
_MOUNT = re.compile(r"[0-9a-f]{32}")
_MAX_RECORDS = 200_000
_MAX_MOUNTS = 1000
_MAX_TEXT = 4096


@dataclass(frozen=True, slots=True)
class CarriedMount:
    """A cache mount that travels.

    Attributes:
        name: of its folder, which follows from its id and from what it is born of.
        id: as the Dockerfile gives it.
        layer: what is in it, as a layer.
        mode: permissions of the folder itself.
        uid: its owner.
        gid: its group.
    """

    name: str
    id: str
    layer: LayerRecord
    mode: int = 0o755
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True)
class CacheDocument:
    """What one cache has.

    Attributes:
        records: by cache key.
        mounts: cache mounts.
    """

    records: Mapping[str, CacheRecord] = field(default_factory=dict)
    mounts: tuple[CarriedMount, ...] = ()

    def descriptors(self) -> tuple[Descriptor, ...]:
        """Return the blobs that it names, each once, in an order that follows from what it has."""
        layers = [layer for key in sorted(self.records) for layer in self.records[key].layers.values()]
        layers += [mount.layer for mount in self.mounts]
        return tuple(dict.fromkeys(descriptor_of(layer) for layer in layers))

    def to_bytes(self) -> bytes:
        """Return the document; the same for the same content."""
        value: dict[str, Any] = {
            "version": VERSION,
            "records": {key: self.records[key].to_json() for key in sorted(self.records)},
        }
        if self.mounts:
            value["mounts"] = [
                [mount.name, mount.id, _plain(mount.layer), mount.mode, mount.uid, mount.gid] for mount in self.mounts
            ]
        return dump(value)

    @classmethod
    def parse(cls, data: bytes) -> CacheDocument:
        """Read a document. Nothing in it is believed but for its form: paths and keys can be made of its names.

        Raises:
            InvalidImageError: it is not well formed, too large, or of a newer version.
        """
        fields = Fields(_load(data), "build cache")
        version = fields.integer("version", required=True)
        if version != VERSION:
            raise InvalidImageError(f"the build cache has version {version}, and this castoff reads version {VERSION}")
        records = fields.object_("records", required=True) or {}
        mounts = fields.array("mounts") or []
        if len(records) > _MAX_RECORDS or len(mounts) > _MAX_MOUNTS:
            raise InvalidImageError("the build cache has more records or mounts than are read")
        return cls(
            {_matching(_KEY, key): _record(value) for key, value in records.items()},
            tuple(_mount(value) for value in mounts),
        )


def manifest_of(document: CacheDocument, config: bytes) -> Manifest:
    """Return the manifest of a cache; `config` is the document's bytes."""
    layers = document.descriptors() or (Descriptor(mediatypes.OCI_EMPTY, Digest.of(EMPTY), len(EMPTY)),)
    return Manifest(Descriptor(CONFIG_TYPE, Digest.of(config), len(config)), layers, artifact_type=ARTIFACT_TYPE)


EMPTY = b"{}"
"""The blob that stands where a manifest would have no layer."""


def descriptor_of(layer: LayerRecord) -> Descriptor:
    """Return the descriptor of a layer."""
    return Descriptor(layer.media_type, Digest.parse(layer.digest), layer.size)


def _load(data: bytes) -> dict[str, Any]:
    import json

    if len(data) > MAX_CONFIG:
        raise InvalidImageError(f"the build cache's document has more than {MAX_CONFIG >> 20} MiB")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidImageError(f"the build cache's document is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidImageError("the build cache's document is not a JSON object")
    return value


def _matching(pattern: re.Pattern[str], value: object) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise InvalidImageError(f"{str(value)[:80]!r} in the build cache is no name of a key, a snapshot or a mount")
    return value


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 62:
        raise InvalidImageError(f"{str(value)[:80]!r} in the build cache is no number of bytes or files")
    return value


def _digest(value: object) -> str:
    try:
        return str(Digest.parse(value if isinstance(value, str) else ""))
    except InvalidReferenceError as error:
        raise InvalidImageError(f"the build cache has a bad digest: {error.message}") from error


def _layer(value: object) -> LayerRecord:
    if not isinstance(value, list) or len(value) != 6 or value[4] not in mediatypes.LAYERS:
        raise InvalidImageError("a layer in the build cache is not well formed")
    diff_id, digest, size, uncompressed, media_type, files = value
    return LayerRecord(
        _digest(diff_id), _digest(digest), _number(size), _number(uncompressed), str(media_type), _number(files)
    )


def _plain(layer: LayerRecord) -> list[object]:
    return [layer.diff_id, layer.digest, layer.size, layer.uncompressed, layer.media_type, layer.files]


def _record(value: object) -> CacheRecord:
    if not isinstance(value, dict):
        raise InvalidImageError("a record in the build cache is not well formed")
    fields = Fields(value, "record of the build cache")
    layers = fields.object_("layers") or {}
    facts = fields.text_map("facts") or {}
    if any(len(text) > _MAX_TEXT for pair in (*facts.items(), *((name, "") for name in layers)) for text in pair):
        raise InvalidImageError("a record in the build cache has a name or a fact that is too long")
    return CacheRecord(
        _matching(_NAME, fields.text("snapshot")),
        _matching(_NAME, fields.text("parent")),
        {name: _layer(layer) for name, layer in layers.items() if name},
        facts,
    )


def _mount(value: object) -> CarriedMount:
    if not isinstance(value, list) or len(value) != 6:
        raise InvalidImageError("a mount in the build cache is not well formed")
    name, ident, layer, mode, uid, gid = value
    if not isinstance(ident, str) or len(ident) > _MAX_TEXT:
        raise InvalidImageError("a mount in the build cache has a bad id")
    return CarriedMount(
        _matching(_MOUNT, name),
        ident,
        _layer(layer),
        _number(mode) & 0o7777,
        _number(uid) & 0xFFFFFFFF,
        _number(gid) & 0xFFFFFFFF,
    )
