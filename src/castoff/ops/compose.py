"""Puts an image together: the layers of a target, its config and its history."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from castoff.image.mutate import DraftImage
from castoff.oci import mediatypes
from castoff.oci.config import History, ImageConfig
from castoff.oci.descriptor import Descriptor
from castoff.oci.digest import Digest
from castoff.ops.filesystem import FileSystem
from castoff.plan.stage import ImageBase, StageBase

if TYPE_CHECKING:
    from collections.abc import Callable

    from castoff.oci.config import ContainerConfig
    from castoff.ops.sources import Result
    from castoff.ops.vertices import GraphVertices
    from castoff.plan.graph import StageGraph
    from castoff.plan.stage import Stage
    from castoff.solve.vertex import Vertex

_OCI_TYPES = {
    mediatypes.DOCKER_LAYER: mediatypes.OCI_LAYER,
    mediatypes.DOCKER_LAYER_GZIP: mediatypes.OCI_LAYER_GZIP,
}


def timestamp(epoch: int | None) -> str:
    """Return RFC 3339 of seconds since 1970, or of now."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch))


def stage_chain(graph: StageGraph, stage: Stage) -> list[Stage]:
    """Return a stage and the stages that it starts from, the lowest first."""
    chain = [stage]
    while isinstance(chain[-1].base, StageBase):
        chain.append(graph.stage(chain[-1].base.index))
    chain.reverse()
    return chain


def _native(stage: Stage) -> ContainerConfig:
    """Return the config of a stage with paths as its operating system writes them."""
    if stage.platform.os != "windows":
        return stage.config
    return replace(stage.config, working_dir=stage.config.working_dir.replace("/", "\\"))


def compose(
    graph: StageGraph,
    vertices: GraphVertices,
    result: Callable[[Vertex[Result]], Result],
    created: str,
    annotations: tuple[tuple[str, str], ...] = (),
) -> DraftImage:
    """Return the image of the target stage; layers that were not made yet are made now.

    Args:
        graph: the plan.
        vertices: its vertices.
        result: gives the result of a vertex.
        created: RFC 3339 time of the image and of the new entries of its history.
        annotations: of the manifest.
    """
    chain = stage_chain(graph, graph.target)
    layers: list[FileSystem] = []
    history: list[History] = []
    bottom = chain[0]
    base = result(vertices.base(bottom))
    assert isinstance(base, FileSystem)
    layers.extend(reversed(list(base.own_chain())))
    if isinstance(bottom.base, ImageBase):
        history.extend(bottom.base.resolved.config.history)
        if bottom.base.resolved.kind == "context-local":
            history.append(History(created, f"FROM {bottom.base.name}"))
    for stage in chain:
        for step in stage.steps:
            vertex = vertices.step(stage, step)
            history.append(History(created, step.created_by, empty_layer=vertex is None))
            if vertex is not None:
                filesystem = result(vertex)
                assert isinstance(filesystem, FileSystem)
                layers.append(filesystem)
    if not layers:
        layers.append(_empty_layer(history, created, base))
    descriptors: list[Descriptor] = []
    diff_ids: list[Digest] = []
    for filesystem in layers:
        record = filesystem.layer()
        media_type = _OCI_TYPES.get(record.media_type, record.media_type)
        descriptors.append(Descriptor(media_type, Digest.parse(record.digest), record.size))
        diff_ids.append(Digest.parse(record.diff_id))
    config = ImageConfig(
        platform=graph.target.platform,
        config=_native(graph.target),
        diff_ids=tuple(diff_ids),
        history=tuple(history),
        created=created,
        author=graph.target.author,
    )
    return DraftImage(config, tuple(descriptors), annotations)


def _empty_layer(history: list[History], created: str, base: FileSystem) -> FileSystem:
    """Return a layer without files, for an image that would have none: a manifest must have one.

    The last line of the history becomes the one that made it.
    """
    last = history.pop() if history else History(created, "FROM scratch")
    history.append(replace(last, empty_layer=False))
    return base.with_nothing()
