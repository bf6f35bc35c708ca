"""What a registry must know of the manifests that are pushed: their type, and what they refer to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from castoff.errors import InvalidImageError
from castoff.oci import mediatypes
from castoff.oci.descriptor import Descriptor
from castoff.oci.jsontext import Fields, load_object
from castoff.registry.server.failures import RefusalError

if TYPE_CHECKING:
    from castoff.oci.digest import Digest


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest or an index.

    Attributes:
        media_type: its own.
        blobs: the digests of the blobs that must be there: the config, and the layers that are not from elsewhere.
        manifests: the digests of the manifests that must be there.
        subject: the manifest that it refers to; that one need not be there.
        descriptor: what a list of referrers says of it.
    """

    media_type: str
    blobs: tuple[Digest, ...]
    manifests: tuple[Digest, ...]
    subject: Digest | None
    descriptor: Descriptor


def read_document(data: bytes, content_type: str, digest: Digest) -> Document:
    """Read a manifest or an index.

    Args:
        data: its bytes.
        content_type: what the client says that it is.
        digest: of the bytes.

    Raises:
        RefusalError: it is neither, is not well formed, or is not what the client says.
    """
    try:
        return _read(data, content_type.partition(";")[0].strip().lower(), digest)
    except InvalidImageError as error:
        raise RefusalError("MANIFEST_INVALID", error.message[:1024]) from error


def _read(data: bytes, content_type: str, digest: Digest) -> Document:
    fields = Fields(load_object(data, "manifest"), "manifest")
    own = fields.text("mediaType")
    media_type = own or content_type
    if fields.integer("schemaVersion", required=True) != 2 or (
        media_type not in mediatypes.MANIFESTS and media_type not in mediatypes.INDEXES
    ):
        raise RefusalError("MANIFEST_INVALID", f"documents of type {media_type[:128] or '(none)'} are not taken")
    if content_type and content_type != media_type:
        raise RefusalError("MANIFEST_INVALID", f"a document of type {media_type} came as {content_type[:128]}")
    subject = fields.object_("subject")
    artifact_type = fields.text("artifactType")
    blobs: list[Digest] = []
    manifests: list[Digest] = []
    if media_type in mediatypes.MANIFESTS:
        config = Descriptor.from_json(fields.object_("config", required=True), "config descriptor")
        layers = [
            Descriptor.from_json(item, "layer descriptor") for item in fields.array("layers", required=True) or ()
        ]
        blobs = [config.digest, *(layer.digest for layer in layers if not layer.urls)]
        artifact_type = artifact_type or config.media_type
    else:
        items = fields.array("manifests", required=True) or ()
        manifests = [Descriptor.from_json(item, "manifest descriptor").digest for item in items]
    target = None if subject is None else Descriptor.from_json(subject, "subject descriptor").digest
    if any(not known.is_registered for known in (*blobs, *manifests, *([target] if target else []))):
        raise RefusalError("MANIFEST_INVALID", "a digest of the document is of an algorithm that is not known here")
    annotations = tuple(sorted((fields.text_map("annotations") or {}).items()))
    return Document(
        media_type,
        tuple(dict.fromkeys(blobs)),
        tuple(dict.fromkeys(manifests)),
        target,
        Descriptor(media_type, digest, len(data), annotations=annotations, artifact_type=artifact_type),
    )
