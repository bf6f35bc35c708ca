"""Manifests and indexes, as in the OCI image specification and Docker's schema 2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from castoff.errors import InvalidImageError
from castoff.oci import mediatypes
from castoff.oci.descriptor import Descriptor, media_type_field
from castoff.oci.jsontext import Fields, dump, load_object


def _check_version(fields: Fields, what: str) -> None:
    if fields.integer("schemaVersion", required=True) != 2:
        raise InvalidImageError(f"the {what} has a schemaVersion other than 2")


def _descriptors(fields: Fields, key: str, what: str) -> tuple[Descriptor, ...]:
    return tuple(Descriptor.from_json(item, what) for item in fields.array(key, required=True) or ())


def _annotations(fields: Fields) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((fields.text_map("annotations") or {}).items()))


def _subject(fields: Fields) -> Descriptor | None:
    subject = fields.object_("subject")
    return None if subject is None else Descriptor.from_json(subject, "subject descriptor")


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image manifest: the config and the layers of one image for one platform, bottom layer first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    media_type: str = mediatypes.OCI_MANIFEST
    annotations: tuple[tuple[str, str], ...] = ()
    artifact_type: str = ""
    subject: Descriptor | None = None

    @classmethod
    def parse(cls, data: bytes) -> Manifest:
        """Read a manifest.

        Raises:
            InvalidImageError: it is not a valid manifest.
        """
        fields = Fields(load_object(data, "manifest"), "manifest")
        _check_version(fields, "manifest")
        media_type = fields.text("mediaType") or mediatypes.OCI_MANIFEST
        if media_type not in mediatypes.MANIFESTS:
            raise InvalidImageError(f"a document of type {media_type} is not an image manifest")
        layers = _descriptors(fields, "layers", "layer descriptor")
        if not layers:
            raise InvalidImageError("the manifest has no layer", hint="an image without files has one empty layer")
        return cls(
            Descriptor.from_json(fields.object_("config", required=True), "config descriptor"),
            layers,
            media_type,
            _annotations(fields),
            media_type_field(fields, "artifactType", "manifest"),
            _subject(fields),
        )

    def to_bytes(self) -> bytes:
        """Return the manifest as castoff writes it."""
        value: dict[str, Any] = {"schemaVersion": 2, "mediaType": self.media_type}
        if self.artifact_type:
            value["artifactType"] = self.artifact_type
        value["config"] = self.config.to_json()
        value["layers"] = [layer.to_json() for layer in self.layers]
        if self.subject:
            value["subject"] = self.subject.to_json()
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        return dump(value)


@dataclass(frozen=True, slots=True)
class Index:
    """An image index: manifests (or further indexes), one for each platform."""

    manifests: tuple[Descriptor, ...]
    media_type: str = mediatypes.OCI_INDEX
    annotations: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> Index:
        """Read an index.

        Raises:
            InvalidImageError: it is not a valid index.
        """
        fields = Fields(load_object(data, "index"), "index")
        _check_version(fields, "index")
        media_type = fields.text("mediaType") or mediatypes.OCI_INDEX
        if media_type not in mediatypes.INDEXES:
            raise InvalidImageError(f"a document of type {media_type} is not an image index")
        _subject(fields)
        media_type_field(fields, "artifactType", "index")
        return cls(_descriptors(fields, "manifests", "manifest descriptor"), media_type, _annotations(fields))

    def to_bytes(self) -> bytes:
        """Return the index as castoff writes it."""
        value: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "manifests": [manifest.to_json() for manifest in self.manifests],
        }
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        return dump(value)
