"""Gathers what a build leaves for a cache that travels: records under names that hold on every machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from castoff.buildcache.document import CacheDocument
from castoff.ops.compose import stage_chain
from castoff.ops.filesystem import ANEW, FileSystem, content_name, snapshot_name
from castoff.ops.run import RunOp
from castoff.ops.sources import LoadedContext, selection_key
from castoff.solve.cache import CacheRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from castoff.ops.sources import Result
    from castoff.ops.vertices import GraphVertices
    from castoff.ops.workspace import LayerVariant, Workspace
    from castoff.plan.graph import StageGraph
    from castoff.solve.cache import LayerRecord
    from castoff.solve.solver import Solver
    from castoff.solve.vertex import Vertex

    Part = tuple[StageGraph, GraphVertices]


class CacheCollector:
    """Gathers the records of one build that was solved, and whose images were put together.

    A RUN's snapshot has a name that is random here; there it has one that follows from the layer that was made of it,
    and what stands on it is recorded so. What can be had anew from the build context needs no layer outside of the
    image. What steps selected of a file system travels too, so that nothing is unpacked to find it out again.
    """

    def __init__(self, workspace: Workspace, parts: Sequence[Part], solver: Solver[Result]) -> None:
        self._workspace = workspace
        self._solver = solver
        self._image = {vertex.id for graph, vertices in parts for vertex in _image_steps(graph, vertices)}

    def collect(self, mode: Literal["min", "max"], variant: LayerVariant) -> CacheDocument:
        """Return the records; layers that the cache needs and nobody made are made now.

        Args:
            mode: ``min`` for the steps of the image, ``max`` for all.
            variant: how layers are made that are in no image.

        Raises:
            CastoffError: a layer can't be made.
        """
        return CacheDocument(_Collection(self._workspace, self._solver, self._image, variant).records(mode))

    def mounts(self) -> dict[str, str]:
        """Return the ids of the cache mounts that steps of the build have, by the names of their folders."""
        found: dict[str, str] = {}
        for _key, vertex in self._solver.keyed():
            if isinstance(vertex.op, RunOp):
                inputs = [self._solver.result(item) for item in vertex.inputs]
                found |= vertex.op.cache_mounts(inputs)
        return found


def _image_steps(graph: StageGraph, vertices: GraphVertices) -> Iterable[Vertex[Result]]:
    for stage in stage_chain(graph, graph.target):
        for step in stage.steps:
            vertex = vertices.step(stage, step)
            if vertex is not None:
                yield vertex


class _Collection:
    """The records of one target."""

    def __init__(self, workspace: Workspace, solver: Solver[Result], image: set[str], variant: LayerVariant) -> None:
        self._workspace = workspace
        self._solver = solver
        self._image = image
        self._variant = variant
        self._layers: dict[FileSystem, LayerRecord] = {}
        self._left_out: set[FileSystem] = set()
        self._names: dict[FileSystem, str | None] = {}

    def records(self, mode: Literal["min", "max"]) -> dict[str, CacheRecord]:
        """Return the records by key."""
        wanted: list[tuple[str, Vertex[Result], FileSystem]] = []
        for key, vertex in self._solver.keyed():
            result = self._solver.result(vertex)
            if not isinstance(result, FileSystem):
                continue
            if mode == "max" or vertex.id in self._image:
                wanted.append((key, vertex, result))
            elif not result.own_changes:
                self._left_out.add(result)
        # An equal step of another platform, or of a stage that the image does not stand on, is the same step.
        self._left_out -= {result for _key, _vertex, result in wanted}
        records: dict[str, CacheRecord] = {}
        for key, vertex, result in wanted:
            record = self._record(vertex, result)
            if record is not None:
                records[key] = record
        for (source, request, owners), content in list(self._workspace.selections.items()):
            name = self._name(source)
            if name is not None:
                records[selection_key(name, request, owners)] = CacheRecord(facts={"content": content})
        return records

    def _record(self, vertex: Vertex[Result], result: FileSystem) -> CacheRecord | None:
        parent = self._name(result.parent) if result.parent is not None else ""
        if parent is None:
            return None
        in_image = vertex.id in self._image
        if result.own_changes and not in_image and self._is_anew(vertex):
            return CacheRecord("", parent, facts={ANEW: "1"})
        variant = self._workspace.variant if in_image else self._variant
        layer = self._layer(result, variant)
        name = self._name(result) if not result.own_changes else ""
        return None if name is None else CacheRecord(name, parent, {str(variant): layer})

    def _is_anew(self, vertex: Vertex[Result]) -> bool:
        """Tell whether all that a step reads is in the build context, or in the Dockerfile itself."""
        return all(isinstance(self._solver.result(item), LoadedContext) for item in vertex.inputs[1:])

    def _layer(self, filesystem: FileSystem, variant: LayerVariant) -> LayerRecord:
        layer = self._layers.get(filesystem)
        if layer is None:
            layer = self._layers[filesystem] = filesystem.layer_in(variant)
        return layer

    def _name(self, filesystem: FileSystem) -> str | None:
        """Return the name that a snapshot has on every machine; None where a layer below it is left out."""
        if filesystem.is_empty_root:
            return ""
        if filesystem not in self._names:
            self._names[filesystem] = self._new_name(filesystem)
        return self._names[filesystem]

    def _new_name(self, filesystem: FileSystem) -> str | None:
        parent = self._name(filesystem.parent) if filesystem.parent is not None else ""
        if parent is None or filesystem in self._left_out:
            return None
        if filesystem.own_changes:
            return snapshot_name(parent, filesystem.key)
        return content_name(parent, self._layer(filesystem, self._variant))
