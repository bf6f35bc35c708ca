"""Descriptors, as in the OCI image specification, section "Content Descriptors"."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field, replace
from typing import Any

from castoff.errors import InvalidImageError, InvalidReferenceError
from castoff.oci.digest import Digest
from castoff.oci.jsontext import Fields
from castoff.oci.platform import Platform

REF_NAME = "org.opencontainers.image.ref.name"
"""The annotation that names a manifest inside a layout."""
FULL_NAME = "io.containerd.image.name"
"""The annotation in which BuildKit and containerd put the whole reference."""

_MEDIA_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}")


_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s\\<>\"{}|^`]*")


def check_media_type(media_type: str, what: str) -> None:
    """Refuse a media type that is not well formed (RFC 6838, section 4.2).

    Raises:
        InvalidImageError: it is not.
    """
    if not _MEDIA_TYPE.fullmatch(media_type):
        raise InvalidImageError(f"the media type {media_type!r} of a {what} is not well formed")


def media_type_field(fields: Fields, key: str, what: str) -> str:
    """Return a field that holds a media type; "" where it is absent.

    Raises:
        InvalidImageError: it is not well formed.
    """
    media_type = fields.text(key)
    if media_type:
        check_media_type(media_type, what)
    return media_type


def _urls(fields: Fields, what: str) -> tuple[str, ...]:
    urls = fields.texts("urls") or ()
    for url in urls:
        if not _URI.fullmatch(url):
            raise InvalidImageError(f"the URL {url!r} of a {what} is not absolute")
    return urls


def _check_data(data: str, what: str) -> None:
    """Refuse embedded content that is not base64; the content itself is not used."""
    if not data:
        return
    try:
        base64.b64decode(data, validate=True)
    except ValueError as error:
        raise InvalidImageError(f"the data of a {what} is not base64") from error


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What some content is: media type, digest, size in bytes.

    `annotations` is a tuple of sorted pairs so that descriptors can be hashed and compared.
    """

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None
    annotations: tuple[tuple[str, str], ...] = field(default=())
    urls: tuple[str, ...] = ()
    artifact_type: str = ""

    @classmethod
    def from_json(cls, value: object, what: str = "descriptor") -> Descriptor:
        """Read a descriptor object.

        Raises:
            InvalidImageError: a field is missing, of another type, or out of range.
        """
        if not isinstance(value, dict):
            raise InvalidImageError(f"a {what} is not a JSON object")
        fields = Fields(value, what)
        media_type = fields.text("mediaType", required=True)
        check_media_type(media_type, what)
        size = fields.integer("size", required=True)
        if not 0 <= size < 1 << 63:
            raise InvalidImageError(f"the size {size} of a {what} is out of range")
        try:
            digest = Digest.parse(fields.text("digest", required=True), registered=False)
        except InvalidReferenceError as error:
            raise InvalidImageError(f"a {what} has a bad digest: {error}") from error
        platform = fields.object_("platform")
        _check_data(fields.text("data"), what)
        return cls(
            media_type,
            digest,
            size,
            Platform.from_json(platform) if platform else None,
            tuple(sorted((fields.text_map("annotations") or {}).items())),
            _urls(fields, what),
            media_type_field(fields, "artifactType", what),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the descriptor object."""
        value: dict[str, Any] = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}
        if self.urls:
            value["urls"] = list(self.urls)
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        if self.platform:
            value["platform"] = self.platform.to_json()
        if self.artifact_type:
            value["artifactType"] = self.artifact_type
        return value

    def annotation(self, name: str) -> str:
        """Return the value of an annotation; "" where there is none."""
        return dict(self.annotations).get(name, "")

    def with_annotations(self, annotations: dict[str, str]) -> Descriptor:
        """Return a copy with these annotations and no others."""
        return replace(self, annotations=tuple(sorted(annotations.items())))
