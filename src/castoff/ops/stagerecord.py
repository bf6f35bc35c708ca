"""What the stages of a build were, kept beside the image so that `castoff size --stages` can weigh them later."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from castoff.ops.compose import stage_chain
from castoff.ops.filesystem import FileSystem
from castoff.plan.stage import ImageBase, ScratchBase
from castoff.solve.cache import LayerRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from castoff.oci.digest import Digest
    from castoff.ops.sources import Result
    from castoff.ops.vertices import GraphVertices
    from castoff.ops.workspace import Workspace
    from castoff.plan.graph import StageGraph
    from castoff.plan.stage import Stage
    from castoff.solve.vertex import Vertex
    from castoff.store.directory import DirectoryStore

_FOLDER = "builds"
_LIMIT = 16 << 20


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One step of a stage: its line of history, the name of its snapshot, and its layer where one was made."""

    created_by: str
    snapshot: str
    layer: LayerRecord | None


@dataclass(frozen=True, slots=True)
class StageRecord:
    """One stage of a build.

    Attributes:
        name: as progress shows it.
        base: what it starts from, as a reference; "scratch" for nothing.
        base_snapshot: name of the snapshot of its base; "" for nothing.
        base_layers: the layers of its base, bottom first.
        steps: its steps that changed files, and those of the stages that it stands on.
    """

    name: str
    base: str
    base_snapshot: str
    base_layers: tuple[LayerRecord, ...]
    steps: tuple[StepRecord, ...]


def write_stage_record(
    workspace: Workspace,
    graph: StageGraph,
    vertices: GraphVertices,
    result: Callable[[Vertex[Result]], Result],
    image_id: Digest,
) -> None:
    """Write down the stages of a build. It is lost without harm, so that an error writing it is none of the build's."""
    stages = [_record(graph, stage, vertices, result) for stage in graph.stages]
    known = read_stage_record(workspace.store, image_id)
    if known is not None and len(known) > len(stages):
        return  # ``FROM image`` and nothing else gives the same image again; how it was made tells more.
    data = json.dumps([_to_json(stage) for stage in stages], separators=(",", ":")).encode()
    folder = os.path.join(workspace.store.cache, _FOLDER)
    path = os.path.join(folder, image_id.hex)
    with contextlib.suppress(OSError):
        os.makedirs(folder, exist_ok=True)
        temporary = f"{path}.{os.getpid()}"
        with open(temporary, "wb") as file:
            file.write(data)
        os.rename(temporary, path)


def read_stage_record(store: DirectoryStore, image_id: Digest) -> tuple[StageRecord, ...] | None:
    """Return the stages of the build that made an image, the target last; None where nothing is known of them."""
    try:
        with open(os.path.join(store.cache, _FOLDER, image_id.hex), "rb") as file:
            value = json.loads(file.read(_LIMIT))
        return tuple(_from_json(item) for item in value)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _record(
    graph: StageGraph, stage: Stage, vertices: GraphVertices, result: Callable[[Vertex[Result]], Result]
) -> StageRecord:
    chain = stage_chain(graph, stage)
    bottom = result(vertices.base(chain[0]))
    assert isinstance(bottom, FileSystem)
    base_layers = [item.known_layer() for item in bottom.own_chain()]
    steps: list[StepRecord] = []
    for part in chain:
        for step in part.steps:
            vertex = vertices.step(part, step)
            if vertex is not None:
                filesystem = result(vertex)
                assert isinstance(filesystem, FileSystem)
                name = filesystem.name if filesystem.has_snapshot() else ""
                steps.append(StepRecord(step.created_by, name, filesystem.known_layer()))
    base = chain[0].base
    reference = "scratch"
    if isinstance(base, ImageBase):
        reference = base.resolved.reference
    elif not isinstance(base, ScratchBase):
        reference = ""
    return StageRecord(
        stage.display_name or stage.name or f"stage-{stage.index}",
        reference,
        bottom.name,
        tuple(layer for layer in reversed(base_layers) if layer is not None),
        tuple(steps),
    )


def _layer_to_json(layer: LayerRecord | None) -> list[object] | None:
    if layer is None:
        return None
    return [layer.diff_id, layer.digest, layer.size, layer.uncompressed, layer.media_type, layer.files]


def _to_json(stage: StageRecord) -> dict[str, object]:
    return {
        "name": stage.name,
        "base": stage.base,
        "base_snapshot": stage.base_snapshot,
        "base_layers": [_layer_to_json(layer) for layer in stage.base_layers],
        "steps": [[step.created_by, step.snapshot, _layer_to_json(step.layer)] for step in stage.steps],
    }


def _from_json(value: dict[str, object]) -> StageRecord:
    base_layers, steps = value["base_layers"], value["steps"]
    assert isinstance(base_layers, list)
    assert isinstance(steps, list)
    return StageRecord(
        str(value["name"]),
        str(value["base"]),
        str(value["base_snapshot"]),
        tuple(LayerRecord(*layer) for layer in base_layers),
        tuple(
            StepRecord(created_by, snapshot, LayerRecord(*layer) if layer else None)
            for created_by, snapshot, layer in steps
        ),
    )
