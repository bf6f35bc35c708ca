"""How two images differ in weight: their layers, and the files that a container of each would see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from castoff.image.validate import MAX_UNCOMPRESSED
from castoff.layer.decompression import open_decompressed
from castoff.layer.tarreader import TarReader
from castoff.layer.tarwriter import OPAQUE_NAME, WHITEOUT_PREFIX

if TYPE_CHECKING:
    from castoff.image.image import StoredImage
    from castoff.inspect.size import ImageSize


@dataclass(frozen=True, slots=True)
class FileChange:
    """A regular file whose size is not the same in both images; None where an image does not have it."""

    path: bytes
    before: int | None
    after: int | None

    @property
    def difference(self) -> int:
        """Bytes that the second image has more."""
        return (self.after or 0) - (self.before or 0)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two images side by side.

    Attributes:
        before: what the first weighs.
        after: what the second weighs.
        shared: the number of layers that both have.
        shared_compressed: bytes of these as they are stored: what the second needs no transfer of beside the first.
        changes: the files whose sizes differ most, the largest difference first.
        changed: how many files differ in size, or are in one image only.
    """

    before: ImageSize
    after: ImageSize
    shared: int
    shared_compressed: int
    changes: tuple[FileChange, ...]
    changed: int


def compare(before: StoredImage, after: StoredImage, largest: int) -> Comparison:
    """Compare two images. All their layers are read.

    Args:
        before: the first.
        after: the second.
        largest: how many files are named.

    Raises:
        StoreError: a blob is missing or damaged.
        InvalidImageError: a layer is no valid archive.
    """
    from castoff.inspect.size import image_size

    old, new = file_sizes(before), file_sizes(after)
    changes = [FileChange(path, old.get(path), new.get(path)) for path in old.keys() | new.keys()]
    changes = [change for change in changes if change.before != change.after]
    changes.sort(key=lambda change: (-abs(change.difference), change.path))
    own = {layer.diff_id for layer in before.layers()}
    shared = [layer for layer in after.layers() if layer.diff_id in own]
    return Comparison(
        image_size(before, 0),
        image_size(after, 0),
        len(shared),
        sum(layer.descriptor.size for layer in shared),
        tuple(changes[:largest]),
        len(changes),
    )


def file_sizes(image: StoredImage) -> dict[bytes, int]:
    """Return the bytes of each regular file that a container would see; a hard link has none of its own.

    Layers are read from the top: what one of them has, or removes, hides what is below.
    """
    sizes: dict[bytes, int] = {}
    taken: set[bytes] = set()  # paths that an upper layer has as no folder, or removes: hidden, and all below them
    opaque: set[bytes] = set()  # folders of which lower layers show nothing
    for layer in reversed(image.layers()):
        own_taken: set[bytes] = set()
        own_opaque: set[bytes] = set()
        blob = image.blobs.open_(layer.descriptor.digest)
        with open_decompressed(blob, limit=MAX_UNCOMPRESSED, close=True) as stream:
            for member in TarReader(stream):
                entry = member.entry
                parent, name = entry.parent, entry.name
                if name == OPAQUE_NAME:
                    own_opaque.add(parent)
                elif name.startswith(WHITEOUT_PREFIX):
                    hidden = name.removeprefix(WHITEOUT_PREFIX)
                    own_taken.add(parent + b"/" + hidden if parent else hidden)
                elif entry.path not in taken and not _is_below(entry.path, taken, opaque) and not entry.is_dir:
                    own_taken.add(entry.path)
                    if entry.is_file:
                        sizes[entry.path] = entry.size if entry.hardlink is None else 0
        taken |= own_taken
        opaque |= own_opaque
    return sizes


def _is_below(path: bytes, taken: set[bytes], opaque: set[bytes]) -> bool:
    """Tell whether an upper layer hides a path by what it does to a folder above."""
    while path:
        path = path.rpartition(b"/")[0]
        if path in opaque or path in taken:
            return True
    return False
