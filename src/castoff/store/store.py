"""What a store has, whether in a folder or in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from castoff.store.blobs import BlobStore
    from castoff.store.images import Images


class Store(Protocol):
    """Blobs, and the images that they make up."""

    @property
    def blobs(self) -> BlobStore:
        """The blobs."""

    @property
    def images(self) -> Images:
        """The tags."""

    def generation(self) -> int:
        """Return the number of times that something was removed."""

    def bump_generation(self) -> int:
        """Count a removal, before it is done, and return the new number. Atomic."""
