"""Builds a Dockerfile: the only place where the parts of the engine are put together."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from castoff.context.digests import DigestCache
from castoff.context.ignore import IgnorePatterns
from castoff.context.local import LocalContext
from castoff.dockerfile.parser import parse
from castoff.errors import CastoffError, ContextError, UnsupportedError, UsageError
from castoff.events import NullObserver, VertexState, WarningEvent
from castoff.export.dispatch import Product, check_output, write_output
from castoff.export.exporter import ImageResult
from castoff.export.platforms import folder_name, joined_tree, store_index
from castoff.image.image import StoredImage
from castoff.oci.config import ImageConfig
from castoff.oci.digest import Digest
from castoff.oci.platform import Platform
from castoff.oci.reference import Reference
from castoff.ops.compose import compose, timestamp
from castoff.ops.filesystem import FileSystem
from castoff.ops.inputs import InputRecorder
from castoff.ops.resolver import StoreResolver
from castoff.ops.run import RunOptions
from castoff.ops.stagerecord import write_stage_record
from castoff.ops.vertices import GraphVertices, VertexOptions
from castoff.ops.workspace import DEFAULT_EPOCH, LayerVariant, Storage, Workspace
from castoff.plan.graph import PlanRequest
from castoff.plan.planner import plan
from castoff.request import PROXIES, BuildRequest, SecretSource
from castoff.sandbox.userns import current_tier
from castoff.sandbox.zygote_executor import ZygoteExecutor
from castoff.snapshot.overlay import OverlaySnapshotter
from castoff.solve.cache import DirectoryCacheStore
from castoff.solve.progress import VertexProgress
from castoff.solve.solver import Solver
from castoff.store.directory import DirectoryStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from castoff.dockerfile.parser import Dockerfile, DockerfileWarning
    from castoff.events import Observer
    from castoff.fs.union import UnionTree
    from castoff.image.mutate import DraftImage
    from castoff.oci.descriptor import Descriptor
    from castoff.ops.inputs import BuildInputs
    from castoff.ops.sources import Result
    from castoff.plan.graph import PlanWarning, StageGraph
    from castoff.sandbox.executor import Executor
    from castoff.store.session import Session

__all__ = ["PROXIES", "BuildRequest", "BuildResult", "SecretSource", "build"]

_MAX_SECRET = 500 << 10


@dataclass(frozen=True, slots=True)
class BuildResult:
    """What a build made.

    Attributes:
        image_id: digest of the config: what ``-q``, ``--iidfile`` and ``writing image`` show; for several platforms
            that of the index.
        manifest: descriptor of the manifest in the store, or of the index for several platforms.
        config: the image's config; that of the first platform.
        references: the references that it was given.
        inputs: what decided it; None where the next run must look for itself.
    """

    image_id: Digest
    manifest: Descriptor
    config: ImageConfig
    references: tuple[Reference, ...]
    inputs: BuildInputs | None = field(default=None, repr=False)


def build(
    request: BuildRequest, observer: Observer | None = None, no_sandbox: UnsupportedError | None = None
) -> BuildResult:
    """Build an image, put it into the store, and write it to the request's outputs.

    Blocks until it is done. Several builds may run at once, in threads or processes, on the same store. On Linux an
    ordinary user must have entered a user namespace before (`castoff.sandbox.userns.enter_user_namespace`).

    Args:
        request: what to build.
        observer: told of what happens.
        no_sandbox: why this process can't make sandboxes; a RUN that is not cached raises it.

    Raises:
        CastoffError: the first error; the store is as it was, but for steps that had succeeded.
        KeyboardInterrupt: the process was interrupted; all that ran was ended.
    """
    return _Build(request, observer or NullObserver(), no_sandbox).run()


@dataclass(frozen=True, slots=True)
class _Part:
    """What a build does for one platform."""

    platform: Platform
    graph: StageGraph
    vertices: GraphVertices


def _merged(parts: Sequence[_Part], solver: Solver[Result]) -> UnionTree:
    """Return the file system that was built; for several platforms one with a folder for each."""
    trees = []
    for part in parts:
        filesystem = solver.result(part.vertices.target())
        assert isinstance(filesystem, FileSystem)
        trees.append((folder_name(part.platform), filesystem.tree()))
    return joined_tree(trees) if len(trees) > 1 else trees[0][1]


class _Build:
    """One build, from the Dockerfile to the image."""

    def __init__(self, request: BuildRequest, observer: Observer, no_sandbox: UnsupportedError | None) -> None:
        self._no_sandbox = no_sandbox
        self._request = request
        self._observer = observer
        self._inputs = InputRecorder(time.time_ns())
        self._contexts: dict[str, LocalContext] = {}
        self._references = tuple(Reference.parse(tag) for tag in request.tags)
        for output in request.outputs:
            check_output(output)
        self._platforms = tuple(dict.fromkeys(map(Platform.parse, request.platforms))) or (Platform.host(),)
        if len(self._platforms) > 1 and any(output.type == "docker" and output.dest for output in request.outputs):
            raise UsageError(
                "type=docker holds an image for one platform, and several are to be built",
                hint="write type=oci, or build one --platform at a time",
            )

    def run(self) -> BuildResult:
        """Build."""
        request = self._request
        with DirectoryStore.open_(request.store) as store:
            session = store.session()
            generation = store.generation()
            dockerfile = self._load_dockerfile()
            plans = [self._plan(platform, dockerfile, store) for platform in self._platforms]
            self._warn((*dockerfile.warnings, *(warning for _resolver, graph in plans for warning in graph.warnings)))
            self._load_ignore_file()
            userxattr = current_tier().userxattr
            snapshotter = OverlaySnapshotter(store.snapshots, session, userxattr=userxattr)
            cache = DirectoryCacheStore(f"{store.cache}/records")
            storage = Storage(store, session, snapshotter, cache, userxattr)
            variant = self._variant(plans[0][1].epoch)
            workspace = Workspace(storage, variant, lambda: self._start_executor(session))
            try:
                parts = [self._part(workspace, *plan) for plan in zip(self._platforms, plans, strict=True)]
                result = self._solve(workspace, parts)
            finally:
                workspace.close()
            if len(parts) > 1:
                return result
            return replace(result, inputs=self._consulted(store, plans[0][0], result, generation))

    def _plan(
        self, platform: Platform, dockerfile: Dockerfile, store: DirectoryStore
    ) -> tuple[StoreResolver, StageGraph]:
        resolver = StoreResolver(store, self._request.build_contexts, ImageConfig(platform), self._observer)
        return resolver, plan(dockerfile, self._plan_request(platform), resolver)

    def _part(self, workspace: Workspace, platform: Platform, planned: tuple[StoreResolver, StageGraph]) -> _Part:
        resolver, graph = planned
        options = VertexOptions(
            self._run_options(platform),
            self._request.no_cache,
            self._opener(workspace.store, resolver),
            f"{platform} " if len(self._platforms) > 1 else "",
        )
        return _Part(platform, graph, GraphVertices(workspace, graph, resolver, options))

    def _start_executor(self, session: Session) -> Executor:
        if self._no_sandbox is not None:
            raise self._no_sandbox
        return ZygoteExecutor(session.new_dir())

    def _variant(self, epoch: int | None) -> LayerVariant:
        """Return how layers are made; `epoch` is what the request or the Dockerfile gives."""
        if not self._request.reproducible:
            epoch = None
        elif epoch is None:
            epoch = DEFAULT_EPOCH
        compressions = {output.compression for output in self._request.outputs if output.compression is not None}
        if len(compressions) > 1:
            raise UsageError("two outputs ask for different compressions", hint="build twice: the second is cached")
        return LayerVariant(epoch, compressions.pop() if compressions else None)

    def _solve(self, workspace: Workspace, parts: Sequence[_Part]) -> BuildResult:
        """Run what is not cached, put the image together, store it, and write the outputs."""
        solver: Solver[Result] = Solver(workspace.cache, self._observer, workspace.close)
        try:
            solver.solve([part.vertices.target() for part in parts])
        except BaseException:
            solver.flush()  # What succeeded before is cached for the next try.
            raise
        export = self._progress("export", "exporting to image")
        try:
            drafts = [self._compose(workspace, part.graph, part.vertices, solver) for part in parts]
            export.status("exporting layers", done=True)
            result = self._store_image(workspace, drafts, export)
            solver.flush()
            for part, draft in zip(parts, drafts, strict=True):
                image_id = Digest.of(draft.config.to_bytes())
                write_stage_record(workspace, part.graph, part.vertices, solver.result, image_id)
            self._write_outputs(workspace, result, lambda: _merged(parts, solver), export)
        except CastoffError as error:
            export.state(VertexState.FAILED, error.message)
            raise
        export.state(VertexState.DONE)
        return result

    def _consulted(
        self, store: DirectoryStore, resolver: StoreResolver, result: BuildResult, generation: int
    ) -> BuildInputs | None:
        """Return all that decided the build; None where the next run must look for itself."""
        request = self._request
        if request.dockerfile_data is not None or request.outputs or request.secrets:
            return None
        if request.no_cache or request.no_cache_filter:
            return None
        for layout in resolver.layouts:
            self._inputs.read(layout)
        self._inputs.read(f"{store.root}/index.json")
        # The list of images was read just now: what it says must still be what the build went by.
        names = (*resolver.consulted.items(), *((reference, result.manifest) for reference in result.references))
        for reference, descriptor in names:
            found = store.images.get(reference)
            if found is None or found.digest != descriptor.digest:
                return None
        layers = StoredImage(store.blobs, result.manifest).manifest().layers
        digests = (*(layer.digest for layer in layers), result.manifest.digest, result.image_id)
        blobs = [store.blobs.path(digest) for digest in digests]
        return self._inputs.finish(self._contexts.values(), blobs, generation)

    def _progress(self, vertex: str, name: str) -> VertexProgress:
        progress = VertexProgress(self._observer, vertex, name)
        progress.state(VertexState.STARTED)
        return progress

    def _warn(self, warnings: Iterable[DockerfileWarning | PlanWarning]) -> None:
        for warning in warnings:
            self._observer.warning(WarningEvent(warning.message, warning.rule, warning.location))

    def _dockerfile_path(self) -> str:
        return self._request.dockerfile or os.path.join(self._request.context, "Dockerfile")

    def _load_dockerfile(self) -> Dockerfile:
        """Read the Dockerfile and parse it."""
        data, name = self._request.dockerfile_data, "Dockerfile"
        if data is None:
            path = self._dockerfile_path()
            name = os.path.basename(path)
            try:
                data = self._inputs.read(path)
            except OSError as error:
                raise ContextError(f"{path} can't be read: {error.strerror}") from error
            if data is None:
                raise ContextError(f"there is no Dockerfile at {path}", hint="name it with -f")
        progress = self._progress("definition", f"[internal] load build definition from {name}")
        try:
            dockerfile = parse(data, name)
        except CastoffError as error:
            progress.state(VertexState.FAILED, error.message)
            raise
        progress.status("transferring dockerfile:", current=len(data), total=len(data), done=True)
        progress.state(VertexState.DONE)
        return dockerfile

    def _load_ignore_file(self) -> None:
        """Read the Dockerfile's own ignore file, or else the context's."""
        progress = self._progress("ignore", "[internal] load .dockerignore")
        data = b""
        if self._request.context:
            candidates = [os.path.join(self._request.context, ".dockerignore")]
            if self._request.dockerfile_data is None:
                candidates.insert(0, self._dockerfile_path() + ".dockerignore")
            for path in candidates:
                try:
                    found = self._inputs.read(path)
                except OSError as error:
                    raise ContextError(f"{path} can't be read: {error.strerror}") from error
                if found is not None:
                    data = found
                    break
        self._ignore = IgnorePatterns.parse(data) if data else None
        progress.status("transferring context:", current=len(data), total=len(data), done=True)
        progress.state(VertexState.DONE)

    def _plan_request(self, platform: Platform) -> PlanRequest:
        request = self._request
        environment = dict(request.environment)
        build_args: list[tuple[str, str]] = []
        for key, value in request.build_args:
            taken = environment.get(key) if value is None else value
            if taken is not None:
                build_args.append((key, taken))
        given = {key for key, _value in build_args}
        build_args += [(name, environment[name]) for name in PROXIES if name in environment and name not in given]
        return PlanRequest(
            target=request.target,
            build_args=tuple(build_args),
            labels=request.labels,
            target_platform=platform if request.platforms else None,
            show_platform=len(self._platforms) > 1,
            epoch=request.epoch,
            no_cache_filter=request.no_cache_filter,
        )

    def _run_options(self, platform: Platform) -> RunOptions:
        request = self._request
        return RunOptions(
            network="none" if request.network == "none" else "host",
            hosts=request.add_hosts,
            rlimits=request.ulimits,
            shm_size=request.shm_size,
            secrets=_Secrets(request.secrets),
            allowed=frozenset(request.allow),
            platform=str(platform),
        )

    def _opener(self, store: DirectoryStore, resolver: StoreResolver) -> Callable[[str], LocalContext]:
        def open_context(name: str) -> LocalContext:
            root = resolver.folder(name) if name else self._request.context
            if not root:
                raise ContextError(
                    "the Dockerfile copies from the build context, and there is none",
                    hint="name a folder instead of -, and the Dockerfile with -f -",
                )
            root = os.path.abspath(root)
            key = hashlib.sha256(os.fsencode(root)).hexdigest()[:32]
            digests = DigestCache(f"{store.cache}/contexts/{key}")
            ignore = self._ignore if not name else self._named_ignore(root)
            context = self._contexts[name] = LocalContext(root, ignore, digests)
            return context

        return open_context

    def _named_ignore(self, root: str) -> IgnorePatterns | None:
        data = self._inputs.read(os.path.join(root, ".dockerignore"))
        return IgnorePatterns.parse(data) if data else None

    def _compose(
        self, workspace: Workspace, graph: StageGraph, vertices: GraphVertices, solver: Solver[Result]
    ) -> DraftImage:
        outputs = self._request.outputs
        annotations = {item.key: item.value for output in outputs for item in output.annotations}
        created = timestamp(workspace.variant.epoch)
        return compose(graph, vertices, solver.result, created, tuple(sorted(annotations.items())))

    def _store_image(self, workspace: Workspace, drafts: Sequence[DraftImage], export: VertexProgress) -> BuildResult:
        """Write the documents and the tags; of several platforms' images an index, whose digest stands for all."""
        store = workspace.store
        manifests = [draft.store(store.blobs, draft.config.platform) for draft in drafts]
        image_id = Digest.of(drafts[0].config.to_bytes())
        manifest = manifests[0]
        if len(manifests) > 1:
            manifest = store_index(store.blobs, manifests)
            image_id = manifest.digest
        export.status(f"writing image {image_id}", done=True)
        names = [Reference.parse(name) for output in self._request.outputs for name in output.names]
        references = tuple(dict.fromkeys((*self._references, *names)))
        now = time.time()
        if not references:
            store.images.keep(manifest, now)
        for reference in references:
            store.images.set_(reference, manifest, now)
            export.status(f"naming to {self._shown(reference)}", done=True)
        return BuildResult(image_id, manifest, drafts[0].config, references)

    def _shown(self, reference: Reference) -> str:
        """Return a reference as progress shows it: whole, with a tag where one was given."""
        text = str(reference)
        given = any(tag.endswith(":latest") for tag in self._request.tags)
        return text if given else text.removesuffix(":latest")

    def _write_outputs(
        self, workspace: Workspace, result: BuildResult, tree: Callable[[], UnionTree], export: VertexProgress
    ) -> None:
        image = ImageResult(result.manifest, result.references, workspace.store.blobs, result.config.created)
        product = Product(image, tree, workspace.variant.epoch, self._request.stdout)
        for output in self._request.outputs:
            report = write_output(output, product, self._observer, export.vertex)
            for phrase in report.skipped if report is not None else ():
                self._observer.warning(WarningEvent(f"{output.dest}: {phrase}"))


class _Secrets:
    """The secrets of a request by id, each read when a step asks for it."""

    def __init__(self, sources: Iterable[SecretSource]) -> None:
        self._sources = {source.id: source for source in sources}

    def get(self, name: str) -> bytes | None:
        """Return the content of a secret; None where it was not given.

        Raises:
            ContextError: its file can't be read, or is larger than 500 KiB.
        """
        source = self._sources.get(name)
        if source is None:
            return None
        if source.path is None:
            return source.value
        try:
            with open(source.path, "rb") as file:
                data = file.read(_MAX_SECRET + 1)
        except OSError as error:
            raise ContextError(f"the secret {name} can't be read from {source.path}: {error.strerror}") from error
        if len(data) > _MAX_SECRET:
            raise ContextError(f"the secret {name} has more than {_MAX_SECRET >> 10} KiB")
        return data
