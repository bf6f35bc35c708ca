"""castoff size --stages: what the stages of a build weigh, and what of the builder did not come along."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

from castoff.cli.imagefs import filesystem_of, open_workspace
from castoff.cli.progress.state import printable
from castoff.cli.session import enter_namespace, open_store
from castoff.cli.size import find_image, weight_cells
from castoff.cli.sizes import human_size
from castoff.cli.table import table
from castoff.errors import StoreError
from castoff.fs.changes import iter_changes
from castoff.inspect.history import uncompressed_size
from castoff.inspect.leftbehind import left_behind
from castoff.inspect.size import StageData, Weight, weigh_stages
from castoff.layer.create import LayerOptions, write_layer
from castoff.oci.descriptor import Descriptor
from castoff.oci.digest import Digest
from castoff.ops.stagerecord import read_stage_record

if TYPE_CHECKING:
    from argparse import Namespace

    from castoff.inspect.leftbehind import LeftBehind
    from castoff.inspect.size import StageTable
    from castoff.ops.stagerecord import StageRecord, StepRecord
    from castoff.ops.workspace import Workspace
    from castoff.solve.cache import LayerRecord


def run_stages(args: Namespace) -> int:
    """Print the table of stages, and return the exit code."""
    store = open_store(args, create=False)
    tier = enter_namespace(os.environ)
    with store, open_workspace(store, tier) as workspace:
        image, name = find_image(store, args)
        stages = read_stage_record(store, image.config_digest())
        if stages is None:
            raise StoreError(
                f"nothing is known of the stages of {name}", hint="only an image that was built in this store has them"
            )
        weighed = weigh_stages([_weigh(stage, stage is stages[-1], workspace) for stage in stages])
        left = None
        others = [(row.total.uncompressed, stage) for row, stage in zip(weighed.rows, stages, strict=True)][:-1]
        if others:
            heaviest = max(others, key=lambda pair: pair[0])[1]
            top = _top_snapshot(heaviest)
            if top:
                final = filesystem_of(image, workspace).tree()
                left = left_behind(workspace.snapshotter.tree(top), final)
    if args.format == "json":
        sys.stdout.write(json.dumps(stage_document(name, weighed, left), ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(stage_table(weighed, left))
    return 0


def _top_snapshot(stage: StageRecord) -> str:
    """Return the highest snapshot of a stage that is known; "" for none."""
    return next((step.snapshot for step in reversed(stage.steps) if step.snapshot), stage.base_snapshot)


def _weigh(stage: StageRecord, final: bool, workspace: Workspace) -> StageData:
    base = tuple(_layer_weight(layer, workspace) for layer in stage.base_layers)
    own = tuple(_step_weight(step, workspace) for step in stage.steps)
    return StageData(stage.name, stage.base, base, own, final=final)


def _layer_weight(layer: LayerRecord, workspace: Workspace) -> Weight:
    size = layer.uncompressed
    if not size:
        blob = Descriptor(layer.media_type, Digest.parse(layer.digest), layer.size)
        size = uncompressed_size(workspace.store.blobs, blob)
    return Weight(size, layer.size)


def _step_weight(step: StepRecord, workspace: Workspace) -> Weight:
    """Return what a step weighs. One that never became a layer is made one now, and thrown away."""
    if step.layer is not None:
        return _layer_weight(step.layer, workspace)
    snapshotter = workspace.snapshotter
    if not step.snapshot or not snapshotter.exists(step.snapshot):
        return Weight(0, None)
    folder = os.path.join(workspace.store.snapshots, step.snapshot, "fs")
    lower = snapshotter.tree(snapshotter.parent(step.snapshot))
    changes = list(iter_changes(folder, lower, workspace.ownership(folder), workspace.userxattr))
    info = write_layer(changes, _Nowhere(), LayerOptions())
    return Weight(info.size, info.compressed_size)


class _Nowhere:
    """Takes a layer and keeps nothing."""

    def write(self, data: bytes, /) -> int:
        """Return the number of bytes."""
        return len(data)


def stage_table(stages: StageTable, left: LeftBehind | None = None) -> str:
    """Return the table of a build's stages, the ratio of the heaviest to the final one, and what stayed behind."""
    rows: list[tuple[str, ...]] = [("STAGE", "BASE", "BASE SIZE", "OWN", "TOTAL", "COMPRESSED")]
    for row in stages.rows:
        base, own = human_size(row.base_weight.uncompressed), human_size(row.own.uncompressed)
        name = row.name + (" (final)" if row.final else "")
        rows.append((printable(name), printable(row.base), base, own, *weight_cells(row.total)))
    text = table(rows, right=(2, 3, 4, 5))
    if stages.ratio is not None:
        compressed = "" if stages.compressed_ratio is None else f", compressed {_times(stages.compressed_ratio)}"
        text += f"\nThe heaviest other stage weighs {_times(stages.ratio)} what the final one does{compressed}.\n"
    if left is not None and left.groups:
        groups = [(human_size(group.size), str(group.files), printable(group.name)) for group in left.groups]
        if left.rest.files:
            groups.append((human_size(left.rest.size), str(left.rest.files), "the rest"))
        groups.append((human_size(left.size), str(left.files), "total"))
        text += "\n" + table([("SIZE", "FILES", "LEFT BEHIND IN THE BUILDER"), *groups], right=(0, 1))
    return text


def _times(ratio: float) -> str:
    return f"{ratio:.1f} times" if ratio < 10 else f"{ratio:.0f} times"


def stage_document(name: str, stages: StageTable, left: LeftBehind | None) -> dict[str, Any]:
    """Return what ``--format json`` prints."""
    value: dict[str, Any] = {
        "Name": name,
        "Stages": [
            {
                "Name": row.name,
                "Base": row.base,
                "BaseSize": row.base_weight.uncompressed,
                "BaseCompressedSize": row.base_weight.compressed,
                "OwnSize": row.own.uncompressed,
                "OwnCompressedSize": row.own.compressed,
                "Size": row.total.uncompressed,
                "CompressedSize": row.total.compressed,
                "Final": row.final,
            }
            for row in stages.rows
        ],
        "Ratio": stages.ratio,
        "CompressedRatio": stages.compressed_ratio,
    }
    if left is not None:
        value["LeftBehind"] = {
            "Size": left.size,
            "Files": left.files,
            "Groups": [
                {"Name": group.name, "Kind": group.kind, "Size": group.size, "Files": group.files}
                for group in left.groups
            ],
        }
    return value
