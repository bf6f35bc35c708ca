"""From a plan to vertices: which operation each step is, and whose results it needs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from castoff.errors import CastoffError
from castoff.ops.copy import CopyOp, WorkdirOp
from castoff.ops.filesystem import FileSystem, base_chain
from castoff.ops.parts import source_parts
from castoff.ops.run import RunOp
from castoff.ops.runmounts import mount_sources
from castoff.ops.select import Request
from castoff.ops.sources import BaseOp, ContextBaseOp, ContextOp
from castoff.plan.stage import ImageBase, ScratchBase, StageBase
from castoff.plan.step import (
    BindMount,
    CacheMount,
    ContextSource,
    CopyStep,
    ImageSource,
    RunStep,
    StageSource,
    WorkdirStep,
)
from castoff.solve.cachekey import cache_key
from castoff.solve.vertex import Vertex

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from castoff.context.local import LocalContext
    from castoff.ops.remote import Remotes
    from castoff.ops.resolver import StoreResolver
    from castoff.ops.run import RunOptions
    from castoff.ops.sources import Result
    from castoff.ops.workspace import Workspace
    from castoff.plan.graph import StageGraph
    from castoff.plan.resolver import ResolvedBase
    from castoff.plan.stage import Stage
    from castoff.plan.step import Source, Step


@dataclass(frozen=True, slots=True)
class VertexOptions:
    """What the request says of all vertices.

    Attributes:
        run: options of RUN steps.
        no_cache: whether every step runs anew.
        open_context: gives a context by name; "" is the main one.
        prefix: of the vertices' ids, where one build has several graphs.
        remotes: gives what fetches the remote sources of ADD.
        checksum: gives the checksum of a remote source that has none itself; "" for none.
    """

    run: RunOptions
    no_cache: bool
    open_context: Callable[[str], LocalContext]
    prefix: str = ""
    remotes: Callable[[], Remotes] | None = None
    checksum: Callable[[str, bool], str] = lambda _source, _is_git: ""


class GraphVertices:
    """The vertices of a plan. What several steps need is one vertex."""

    def __init__(
        self, workspace: Workspace, graph: StageGraph, resolver: StoreResolver, options: VertexOptions
    ) -> None:
        self._workspace = workspace
        self._graph = graph
        self._resolver = resolver
        self._options = options
        self._shared: dict[object, Vertex[Result]] = {}
        self._steps: dict[tuple[int, int], Vertex[Result]] = {}
        self._last: dict[int, Vertex[Result]] = {}
        self._base: dict[int, Vertex[Result]] = {}
        for stage in graph.stages:
            self._add_stage(stage)

    def target(self) -> Vertex[Result]:
        """Return the vertex whose result is that of the target stage."""
        return self._last[self._graph.target.index]

    def base(self, stage: Stage) -> Vertex[Result]:
        """Return the vertex of what a stage starts from."""
        return self._base[stage.index]

    def step(self, stage: Stage, step: Step) -> Vertex[Result] | None:
        """Return the vertex of a step; None for one that only sets config."""
        return self._steps.get((stage.index, step.index))

    def _add_stage(self, stage: Stage) -> None:
        here = self._base[stage.index] = self._base_vertex(stage)
        for step in stage.steps:
            payload = step.payload
            inputs = [here]
            match payload:
                case RunStep():
                    options = replace(self._options.run, platform=str(stage.platform))
                    op: RunOp | CopyOp | WorkdirOp = RunOp(self._workspace, payload, options)
                    inputs += [self._source(source) for source in mount_sources(payload)]
                case CopyStep():
                    op = CopyOp(self._workspace, payload)
                    for part in source_parts(payload):
                        own = self._remote(step, payload, part.remote) if part.remote else None
                        inputs.append(own or self._source(payload.source))
                case WorkdirStep():
                    op = WorkdirOp(self._workspace, payload)
                case _:
                    continue
            here = self._steps[stage.index, step.index] = Vertex(
                f"{self._options.prefix}step {stage.index}.{step.index}",
                step.name or step.created_by,
                op,
                tuple(inputs),
                ignore_cache=self._options.no_cache or stage.no_cache,
                visible=step.shown,
                location=step.location,
            )
        self._last[stage.index] = here

    def _base_vertex(self, stage: Stage) -> Vertex[Result]:
        match stage.base:
            case StageBase(index):
                return self._last[index]
            case ScratchBase():
                return self._empty()
            case ImageBase(resolved=resolved, step_name=name):
                return self._image(resolved, name)

    def _empty(self) -> Vertex[Result]:
        vertex = self._shared.get("scratch")
        if vertex is None:
            op = BaseOp(FileSystem.empty(self._workspace, cache_key("scratch")))
            vertex = self._shared["scratch"] = Vertex(
                f"{self._options.prefix}scratch", "FROM scratch", op, visible=False
            )
        return vertex

    def _image(self, base: ResolvedBase, name: str) -> Vertex[Result]:
        vertex = self._shared.get(base)
        if vertex is None:
            if base.kind == "context-local":
                context = self._context(base.name)
                vertex = Vertex(
                    f"{self._options.prefix}base {base.reference}", name, ContextBaseOp(), (context,), visible=False
                )
            else:
                bottom = FileSystem.empty(self._workspace, cache_key("scratch"))
                chain = base_chain(
                    self._workspace, bottom, self._resolver.layers(base), lambda text: cache_key("image", text)
                )
                vertex = Vertex(
                    f"{self._options.prefix}base {base.reference} {base.config.platform}", name, BaseOp(chain)
                )
            self._shared[base] = vertex
        return vertex

    def _source(self, source: Source) -> Vertex[Result]:
        match source:
            case StageSource(index):
                return self._last[index]
            case ImageSource(base=base):
                return self._image(base, f"FROM {base.reference}")
            case ContextSource(name):
                return self._context(name)
            case _:
                return self._empty()

    def _remote(self, step: Step, payload: CopyStep, source: str) -> Vertex[Result]:
        """Return the vertex of a remote source of ADD.

        Raises:
            CastoffError: the source is not well formed.
        """
        from castoff.context.gitsource import hide_password
        from castoff.ops.remote import RemoteOp, unpinned

        assert self._options.remotes is not None
        for other, shown, is_git in unpinned(payload):
            if other == source and (checksum := self._options.checksum(shown, is_git)):
                payload = replace(payload, checksum=checksum)
                break
        key = ("remote", source, payload.checksum, payload.keep_git_dir)
        vertex = self._shared.get(key)
        if vertex is None:
            try:
                op = RemoteOp(self._workspace, self._options.remotes(), payload, source)
            except CastoffError as error:
                error.location = error.location or step.location
                raise
            number = sum(isinstance(other, tuple) and other[0] == "remote" for other in self._shared)
            vertex = self._shared[key] = Vertex(
                f"{self._options.prefix}remote {number}", hide_password(source), op, location=step.location
            )
        return vertex

    def _context(self, name: str) -> Vertex[Result]:
        key = ("context", name)
        vertex = self._shared.get(key)
        if vertex is None:
            title = f"[context {name}] load from client" if name else "[internal] load build context"
            requests = tuple(dict.fromkeys(self._requests(name)))
            op = ContextOp(self._workspace, self._options.open_context(name), requests)
            vertex = self._shared[key] = Vertex(f"{self._options.prefix}context {name}", title, op)
        return vertex

    def _requests(self, name: str) -> Iterator[Request]:
        """Yield what the steps of all needed stages ask of a context."""
        wanted = ContextSource(name)
        for stage in self._graph.stages:
            base = stage.base
            if isinstance(base, ImageBase) and base.resolved.kind == "context-local" and base.name == name:
                yield Request(("/",))
            for step in stage.steps:
                payload = step.payload
                if isinstance(payload, CopyStep) and payload.source == wanted:
                    yield from (part.request for part in source_parts(payload) if not part.remote)
                elif isinstance(payload, RunStep):
                    for mount in payload.mounts:
                        if isinstance(mount, BindMount | CacheMount) and mount.source == wanted:
                            yield Request((mount.source_path,))
