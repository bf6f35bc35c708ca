"""What an image weighs, layer by layer and stage by stage."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

from castoff.inspect.history import instructions
from castoff.inspect.layerfiles import scan_layer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from castoff.image.image import StoredImage
    from castoff.oci.digest import Digest

DEFAULT_LARGEST = 10


@dataclass(frozen=True, slots=True)
class Weight:
    """Bytes, uncompressed (as a tar stream) and compressed; `compressed` is None where nothing was compressed."""

    uncompressed: int = 0
    compressed: int | None = 0

    def __add__(self, other: Weight) -> Weight:
        """Return the sum; what is not known of a part is not known of the whole."""
        known = self.compressed is not None and other.compressed is not None
        return Weight(
            self.uncompressed + other.uncompressed,
            (self.compressed or 0) + (other.compressed or 0) if known else None,
        )


@dataclass(frozen=True, slots=True)
class LayerSize:
    """One layer of an image.

    Attributes:
        digest: of the blob.
        diff_id: of the tar.
        created_by: the instruction that made it, as the history has it; "" where the history says nothing.
        weight: its bytes.
        files: entries in it, folders and deletions included.
        content: bytes of the regular files in it.
    """

    digest: Digest
    diff_id: Digest
    created_by: str
    weight: Weight
    files: int
    content: int


@dataclass(frozen=True, slots=True)
class LargeFile:
    """A regular file of a layer.

    Attributes:
        path: where it is in the image.
        size: bytes.
        layer: the number of its layer, from 0 for the lowest.
    """

    path: bytes
    size: int
    layer: int


@dataclass(frozen=True, slots=True)
class ImageSize:
    """What an image weighs; `layers` are bottom first, `largest` files biggest first."""

    layers: tuple[LayerSize, ...]
    total: Weight
    largest: tuple[LargeFile, ...]


def image_size(image: StoredImage, largest: int = DEFAULT_LARGEST) -> ImageSize:
    """Weigh an image. All its layers are read.

    Args:
        image: the image.
        largest: how many of the largest files are named; a file that a later layer replaces or removes counts too,
            since it is in the image all the same.

    Raises:
        StoreError: a blob is missing or damaged.
        InvalidImageError: a layer is no valid archive.
    """
    layers: list[LayerSize] = []
    files: list[tuple[int, int, bytes]] = []
    made_by = instructions(image.config())
    for number, layer in enumerate(image.layers()):
        scan = scan_layer(image.blobs, layer.descriptor, largest)
        layers.append(
            LayerSize(
                layer.descriptor.digest,
                layer.diff_id,
                made_by[number],
                Weight(scan.size, layer.descriptor.size),
                scan.files,
                scan.content,
            )
        )
        files += [(size, -number, path) for size, path in scan.largest]
    best = heapq.nlargest(largest, files)
    return ImageSize(
        tuple(layers),
        total_weight(layer.weight for layer in layers),
        tuple(LargeFile(path, size, -number) for size, number, path in best),
    )


def total_weight(weights: Iterable[Weight]) -> Weight:
    """Return the sum of weights."""
    total = Weight()
    for weight in weights:
        total += weight
    return total


@dataclass(frozen=True, slots=True)
class StageData:
    """What is known of a stage before it is weighed.

    Attributes:
        name: the stage's name, or its number.
        base: what it stands on: a reference, ``scratch``, or the name of an earlier stage.
        base_layers: the layers of that, bottom first.
        own_layers: the layers that its own instructions made.
        final: whether it is the stage that became the image.
    """

    name: str
    base: str
    base_layers: tuple[Weight, ...] = ()
    own_layers: tuple[Weight, ...] = ()
    final: bool = False


@dataclass(frozen=True, slots=True)
class StageSize:
    """One row of the table of stages."""

    name: str
    base: str
    base_weight: Weight
    own: Weight
    total: Weight
    final: bool = False


@dataclass(frozen=True, slots=True)
class StageTable:
    """All stages, and how many times heavier the heaviest of the others is than the final one.

    A ratio is None where there is one stage only, where the final one is empty, or where bytes are not known.
    """

    rows: tuple[StageSize, ...]
    ratio: float | None
    compressed_ratio: float | None


def weigh_stages(stages: Sequence[StageData]) -> StageTable:
    """Return the table of stages, in the order given."""
    rows = tuple(_weigh(stage) for stage in stages)
    final = next((row.total for row in rows if row.final), None)
    others = [row.total for row in rows if not row.final]
    if final is None or not others:
        return StageTable(rows, None, None)
    compressed = [weight.compressed for weight in others if weight.compressed is not None]
    return StageTable(
        rows,
        _ratio(max(weight.uncompressed for weight in others), final.uncompressed),
        _ratio(max(compressed), final.compressed) if len(compressed) == len(others) else None,
    )


def _weigh(stage: StageData) -> StageSize:
    base, own = total_weight(stage.base_layers), total_weight(stage.own_layers)
    return StageSize(stage.name, stage.base, base, own, base + own, stage.final)


def _ratio(large: int, small: int | None) -> float | None:
    return large / small if small else None
