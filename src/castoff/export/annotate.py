"""Which annotations each document of an image gets.

References: OCI image specification, "Annotations".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from castoff.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from castoff.export.parse import Annotation, AnnotationLevel
    from castoff.oci.platform import Platform

_OF_INDEX = ("index", "index-descriptor")


class Annotations:
    """The annotations that a request asks for, by document. Immutable."""

    def __init__(self, items: Iterable[Annotation], *, has_index: bool) -> None:
        """Take annotations, of which the last of a key counts, and whether the image will have an index.

        Raises:
            UsageError: an index is to be annotated that there will not be.
        """
        self._items = tuple(items)
        for item in self._items:
            if item.level in _OF_INDEX and not has_index:
                raise UsageError(
                    f"the annotation {item.key} is for an index, and an image for one platform has none",
                    hint=f"annotate the manifest ({item.key}={item.value}), or build for several platforms",
                )

    def of(self, level: AnnotationLevel, platform: Platform | None = None) -> tuple[tuple[str, str], ...]:
        """Return the annotations of a document, as sorted pairs.

        Args:
            level: which document.
            platform: the image's, for its manifest and the descriptor of that.
        """
        found = {
            item.key: item.value
            for item in self._items
            if item.level == level and (item.platform is None or item.platform == platform)
        }
        return tuple(sorted(found.items()))
