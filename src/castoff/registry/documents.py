"""Manifests and indexes as they come from a registry, before anything in them is believed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from castoff.errors import InvalidReferenceError, RegistryError
from castoff.oci import mediatypes
from castoff.oci.descriptor import Descriptor, check_media_type
from castoff.oci.digest import Digest
from castoff.oci.jsontext import load_object

MAX_MANIFEST = 4 << 20
"""The most bytes that a manifest or an index may have; registries take no more either."""
ACCEPT = ", ".join((mediatypes.OCI_INDEX, mediatypes.OCI_MANIFEST, mediatypes.DOCKER_INDEX, mediatypes.DOCKER_MANIFEST))
_OLD = tuple(f"application/vnd.docker.distribution.manifest.v1+{form}" for form in ("prettyjws", "json"))


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest or an index, its bytes as the registry has them.

    Attributes:
        descriptor: media type, digest and size; the digest is that of the bytes.
        data: the bytes.
    """

    descriptor: Descriptor
    data: bytes = field(repr=False)


def read_document(data: bytes, content_type: str, digests: tuple[str, str], doing: str) -> Document:
    """Return a document whose bytes are what they should be.

    Args:
        data: its bytes.
        content_type: the header of the answer.
        digests: what was asked for, and what the registry says that it is; "" where neither is said.
        doing: what it was for, in messages.

    Raises:
        RegistryError: the bytes are not those of a digest, are too many, or of a kind that is no image.
        InvalidImageError: they are no JSON object.
    """
    if len(data) > MAX_MANIFEST:
        raise RegistryError(f"can't {doing}: it has more than the {MAX_MANIFEST >> 20} MiB that a manifest may have")
    asked, said = digests
    if said and said != asked:
        _checked(data, said, doing)
    digest = _checked(data, asked, doing) if asked else Digest.of(data)
    media_type = _media_type(data, content_type, doing)
    return Document(Descriptor(media_type, digest, len(data)), data)


def _checked(data: bytes, text: str, doing: str) -> Digest:
    try:
        wanted = Digest.parse(text)
    except InvalidReferenceError as error:
        raise RegistryError(f"can't {doing}: the registry names it {text[:80]!r}, which is no digest") from error
    actual = hashlib.new(wanted.algorithm, data).hexdigest()
    if actual != wanted.hex:
        raise RegistryError(
            f"can't {doing}: its bytes have the digest {wanted.algorithm}:{actual} and not {wanted}",
            hint="it was damaged on the way, or the registry is not to be trusted",
        )
    return wanted


def _media_type(data: bytes, content_type: str, doing: str) -> str:
    """Return the kind of a document: what the answer and the document say of it must not differ."""
    value = load_object(data, "manifest")
    said = content_type.partition(";")[0].strip()
    own = value.get("mediaType")
    if said in _OLD or value.get("schemaVersion") == 1:
        raise RegistryError(
            f"can't {doing}: the registry has it as an image of Docker's schema 1, which nobody makes since 2017",
            hint="push it again with a newer Docker, or ask for another tag",
        )
    if "manifests" in value and ("layers" in value or "config" in value):
        raise RegistryError(f"can't {doing}: it is both a manifest and an index", hint="nobody makes such in earnest")
    known = mediatypes.MANIFESTS | mediatypes.INDEXES
    found = own if isinstance(own, str) and own else said
    if found not in known and "manifests" in value:
        found = mediatypes.OCI_INDEX if not own else found
    elif found not in known and "layers" in value:
        found = mediatypes.OCI_MANIFEST if not own else found
    if said in known and found != said:
        raise RegistryError(f"can't {doing}: the registry calls it {said}, and it calls itself {found}")
    if (found in mediatypes.INDEXES) != ("manifests" in value):
        raise RegistryError(f"can't {doing}: it says that it is {found or 'nothing'}, and looks like another thing")
    check_media_type(found, "document")
    return found
