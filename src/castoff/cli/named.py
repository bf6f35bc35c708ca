"""Whether a word on the command line named an image by a reference or by an id."""

from __future__ import annotations

from typing import TYPE_CHECKING

from castoff.errors import InvalidReferenceError

if TYPE_CHECKING:
    from castoff.store.images import ImageRecord


def names_reference(word: str, record: ImageRecord) -> bool:
    """Tell whether a word is the reference of the record that was found for it, rather than its id."""
    from castoff.oci.reference import Reference

    own = record.reference
    if own is None:
        return False
    try:
        reference = Reference.parse(word)
    except InvalidReferenceError:
        return False
    if (reference.registry, reference.repository) != (own.registry, own.repository):
        return False
    return reference.digest is not None or reference.tag == own.tag
