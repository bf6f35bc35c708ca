"""Builds a Dockerfile: the only place where the parts of the engine are put together."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from castoff.checks import dockerfile_path, ignore_files, plan_request
from castoff.context.digests import DigestCache
from castoff.context.ignore import IgnorePatterns
from castoff.context.local import LocalContext
from castoff.dockerfile.parser import read
from castoff.errors import CastoffError, ContextError, UnsupportedError, UsageError
from castoff.events import NullObserver, VertexState, WarningEvent
from castoff.export.annotate import Annotations
from castoff.export.dispatch import Product, check_output, write_output
from castoff.export.exporter import ImageResult
from castoff.export.platforms import folder_name, joined_tree, store_index
from castoff.fetching import Fetcher, Secrets, gather, is_fetched
from castoff.image.image import StoredImage, read_document
from castoff.oci.config import ImageConfig
from castoff.oci.digest import Digest
from castoff.oci.manifest import Index
from castoff.oci.platform import Platform
from castoff.oci.reference import Reference
from castoff.ops.buildnotes import NoteStore
from castoff.ops.compose import compose, timestamp
from castoff.ops.explain import Explainer
from castoff.ops.filesystem import FileSystem
from castoff.ops.inputs import InputRecorder
from castoff.ops.lazyblobs import LazyBlobs
from castoff.ops.resolver import Elsewhere, StoreResolver
from castoff.ops.run import RunOptions
from castoff.ops.stagerecord import write_stage_record
from castoff.ops.tierparts import open_storage, start_executor
from castoff.ops.vertices import GraphVertices, VertexOptions
from castoff.ops.workspace import DEFAULT_EPOCH, LayerVariant, Storage, Workspace
from castoff.plan.linting import check
from castoff.plan.lock import SUFFIX, Lock
from castoff.plan.planner import plan
from castoff.request import PROXIES, BuildRequest, SecretSource
from castoff.sandbox.userns import current_tier
from castoff.solve.progress import VertexProgress
from castoff.solve.solver import Solver
from castoff.store.directory import DirectoryStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from castoff.caching import BuildCaches
    from castoff.dockerfile.parser import Dockerfile, DockerfileWarning, Reading
    from castoff.events import Observer
    from castoff.export.exporter import Exporter
    from castoff.fetching import Gathered
    from castoff.fs.union import UnionTree
    from castoff.image.mutate import DraftImage
    from castoff.oci.descriptor import Descriptor
    from castoff.ops.inputs import BuildInputs
    from castoff.ops.sources import Result
    from castoff.plan.graph import PlanRequest, PlanWarning, StageGraph
    from castoff.sandbox.executor import Executor
    from castoff.sandbox.userns import Tier
    from castoff.solve.explain import Explanation
    from castoff.store.session import Session

__all__ = ["PROXIES", "BuildRequest", "BuildResult", "SecretSource", "build"]


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
    request: BuildRequest,
    observer: Observer | None = None,
    no_sandbox: UnsupportedError | None = None,
    explain: Callable[[Explanation], None] | None = None,
    tier: Tier | None = None,
) -> BuildResult:
    """Build an image, put it into the store, and write it to the request's outputs.

    Blocks until it is done. Several builds may run at once, in threads or processes, on the same store. On Linux an
    ordinary user must have entered a user namespace before (`castoff.sandbox.userns.enter_user_namespace`).

    Args:
        request: what to build.
        observer: told of what happens.
        no_sandbox: why this process can't make sandboxes; a RUN that is not cached raises it.
        explain: given, for every step, why it will run or that it is cached, as soon as that is known; called from
            several threads, one at a time. It must return soon and raise nothing.
        tier: what `enter_user_namespace` returned; None for what the process is.

    Raises:
        CastoffError: the first error; the store is as it was, but for steps that had succeeded.
        KeyboardInterrupt: the process was interrupted; all that ran was ended.
    """
    return _Build(request, observer or NullObserver(), (tier or current_tier(), no_sandbox), explain).run()


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


def _subject(request: BuildRequest) -> tuple[str, str, str]:
    """Return what tells this build from others whose steps are not to be compared with its own."""
    if is_fetched(request) or not request.context:
        return request.context, request.dockerfile, request.target
    lone = request.dockerfile_data is not None
    dockerfile = "-" if lone else os.path.abspath(dockerfile_path(request))
    return os.path.abspath(request.context), dockerfile, request.target


class _Build:
    """One build, from the Dockerfile to the image."""

    def __init__(
        self,
        request: BuildRequest,
        observer: Observer,
        tier: tuple[Tier, UnsupportedError | None],
        explain: Callable[[Explanation], None] | None,
    ) -> None:
        self._tier, self._no_sandbox = tier
        self._limits: tuple[str, ...] = ()
        self._explain = explain
        self._subject = _subject(request)
        self._request = request
        self._observer = observer
        self._inputs = InputRecorder(time.time_ns())
        self._contexts: list[LocalContext] = []
        self._gathered: Gathered | None = None
        self._ignore: IgnorePatterns | None = None
        self._caches: BuildCaches | None = None
        self._lock: Lock | None = None
        self._references = tuple(Reference.parse(tag) for tag in request.tags)
        for output in request.outputs:
            check_output(output, request.tags)
        self._platforms = tuple(dict.fromkeys(map(Platform.parse, request.platforms))) or (Platform.host(),)
        self._annotations = Annotations(
            (*request.annotations, *(item for output in request.outputs for item in output.annotations)),
            has_index=len(self._platforms) > 1,
        )
        if len(self._platforms) > 1 and any(output.type == "docker" and output.dest for output in request.outputs):
            raise UsageError(
                "type=docker holds an image for one platform, and several are to be built",
                hint="write type=oci, or build one --platform at a time",
            )

    def run(self) -> BuildResult:
        """Build."""
        with DirectoryStore.open_(self._request.store) as store, contextlib.ExitStack() as stack:
            session = store.session()
            generation = store.generation()
            self._sources = Fetcher(self._request, store, self._observer, stack)
            self._lazy = LazyBlobs(store.blobs, self._observer, self._sources.cancel)
            self._gather()
            reading = self._load_dockerfile(store)
            plans = self._plan_all(reading, store)
            self._warn(warning for _resolver, graph in plans for warning in graph.warnings)
            self._load_ignore_file()
            self._lint(reading, plans[0][0])
            storage = self._with_caches(replace(open_storage(store, self._tier), lazy=self._lazy))
            self._limits = storage.limits
            variant = self._variant(plans[0][1].epoch)
            workspace = Workspace(storage, variant, lambda: self._start_executor(session))
            try:
                parts = [self._part(workspace, *plan) for plan in zip(self._platforms, plans, strict=True)]
                result = self._solve(workspace, parts)
            finally:
                workspace.close()
            return replace(result, inputs=self._consulted(store, plans, result, generation))

    def _with_caches(self, storage: Storage) -> Storage:
        """Return where things are kept, with the caches that the request names."""
        if not self._request.cache_from and not self._request.cache_to:
            return storage
        from castoff.caching import BuildCaches

        self._caches = BuildCaches(self._request, self._platforms[0], self._observer, self._sources.registry)
        return self._caches.opened(storage)

    def _plan_all(self, reading: Reading, store: DirectoryStore) -> list[tuple[StoreResolver, StageGraph]]:
        """Plan for each platform; where that fails, what the checks find is told first."""
        try:
            return [self._plan(platform, reading.dockerfile, store) for platform in self._platforms]
        except CastoffError:
            self._lint(reading, self._resolver(self._platforms[0], store), look_up=False)
            raise

    def _gather(self) -> None:
        """Turn a context that has to be fetched or unpacked into a folder."""
        if is_fetched(self._request):
            self._gathered = gather(self._request, self._sources.remotes())
            self._request = self._gathered.request

    def _resolver(self, platform: Platform, store: DirectoryStore) -> StoreResolver:
        contexts = self._request.build_contexts
        elsewhere = Elsewhere(self._sources.folder, self._sources.bases(self._lazy))
        resolver = StoreResolver(store, contexts, ImageConfig(platform), self._observer, elsewhere)
        if self._lock is not None:
            resolver.pin = self._lock.image
        return resolver

    def _checksum(self, source: str, is_git: bool) -> str:
        return self._lock.checksum(source, is_git=is_git) if self._lock is not None else ""

    def _lint(self, reading: Reading, resolver: StoreResolver, *, look_up: bool = True) -> None:
        """Check the Dockerfile and tell what was found.

        Raises:
            DockerfileError: the options of checks can't be read; something was found where ``error=true`` is set.
        """
        self._warn(reading.dockerfile.warnings)
        request = self._plan_request(self._platforms[0])
        result = check(reading, request, resolver, self._ignore, look_up=look_up)
        for finding in result.findings:
            self._observer.warning(WarningEvent(finding.detail, finding.rule.name, finding.location))
        if look_up and (violation := result.violation()) is not None:
            raise violation

    def _plan(
        self, platform: Platform, dockerfile: Dockerfile, store: DirectoryStore
    ) -> tuple[StoreResolver, StageGraph]:
        resolver = self._resolver(platform, store)
        return resolver, plan(dockerfile, self._plan_request(platform), resolver)

    def _part(self, workspace: Workspace, platform: Platform, planned: tuple[StoreResolver, StageGraph]) -> _Part:
        resolver, graph = planned
        options = VertexOptions(
            self._run_options(platform),
            self._request.no_cache,
            self._opener(workspace.store, resolver),
            f"{platform} " if len(self._platforms) > 1 else "",
            self._sources.remotes,
            self._checksum,
        )
        return _Part(platform, graph, GraphVertices(workspace, graph, resolver, options))

    def _start_executor(self, session: Session) -> Executor:
        if self._no_sandbox is not None:
            raise self._no_sandbox
        for sentence in self._limits:
            self._observer.warning(WarningEvent(sentence))
        return start_executor(session.new_dir(), self._tier)

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
        explainer = self._explainer(workspace, parts)
        solver: Solver[Result] = Solver(workspace.cache, self._observer, lambda: self._give_up(workspace), explainer)
        try:
            solver.solve([part.vertices.target() for part in parts])
        except BaseException:
            solver.flush()  # What succeeded before is cached for the next try.
            explainer.save(solver.has_result, complete=False)
            raise
        explainer.save(solver.has_result, complete=True)
        export = self._progress("export", "exporting to image")
        try:
            drafts = [self._compose(workspace, part.graph, part.vertices, solver) for part in parts]
            graphs = [(part.graph, part.vertices) for part in parts]
            if self._caches is not None:
                drafts = self._caches.annotated(workspace, graphs, solver, drafts)
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
        if self._caches is not None:
            self._caches.export(workspace, graphs, solver)
        return result

    def _give_up(self, workspace: Workspace) -> None:
        """End what runs and what is transferred, so that the build can end."""
        self._sources.cancel()
        workspace.close()

    def _explainer(self, workspace: Workspace, parts: Sequence[_Part]) -> Explainer:
        notes, graphs = NoteStore(workspace.store.cache), [(part.graph, part.vertices) for part in parts]
        return Explainer(notes, workspace.listings, self._subject, graphs, self._explain)

    def _consulted(
        self,
        store: DirectoryStore,
        plans: Sequence[tuple[StoreResolver, StageGraph]],
        result: BuildResult,
        generation: int,
    ) -> BuildInputs | None:
        """Return all that decided the build; None where the next run must look for itself."""
        request = self._request
        if request.dockerfile_data is not None or request.outputs or request.secrets:
            return None
        if request.no_cache or request.no_cache_filter or request.cache_to or request.pull == "always":
            return None
        if any(self._sources.must_ask(graph, locked=self._lock is not None) for _resolver, graph in plans):
            return None
        for layout in dict.fromkeys(layout for resolver, _graph in plans for layout in resolver.layouts):
            self._inputs.read(layout)
        self._inputs.read(f"{store.root}/index.json")
        # The list of images was read just now: what it says must still be what the build went by.
        names = [item for resolver, _graph in plans for item in resolver.consulted.items()]
        names += [(reference, result.manifest) for reference in result.references]
        for reference, descriptor in names:
            found = store.images.get(reference)
            if found is None or found.digest != descriptor.digest:
                return None
        manifests: tuple[Descriptor, ...] = (result.manifest,)
        if len(plans) > 1:
            manifests = Index.parse(read_document(store.blobs, result.manifest)).manifests
        digests = {result.manifest.digest: None}
        for descriptor in manifests:
            manifest = StoredImage(store.blobs, descriptor).manifest()
            digests |= dict.fromkeys((descriptor.digest, manifest.config.digest))
            digests |= dict.fromkeys(layer.digest for layer in manifest.layers)
        blobs = [store.blobs.path(digest) for digest in digests]
        return self._inputs.finish(self._contexts, blobs, generation)

    def _progress(self, vertex: str, name: str) -> VertexProgress:
        progress = VertexProgress(self._observer, vertex, name)
        progress.state(VertexState.STARTED)
        return progress

    def _warn(self, warnings: Iterable[DockerfileWarning | PlanWarning]) -> None:
        for warning in warnings:
            if not warning.rule:  # those with a rule are findings of the checks
                self._observer.warning(WarningEvent(warning.message, "", warning.location))

    def _load_dockerfile(self, store: DirectoryStore) -> Reading:
        """Read the Dockerfile and parse it."""
        data, name = self._request.dockerfile_data, "Dockerfile"
        if data is None:
            path = dockerfile_path(self._request)
            name = os.path.basename(path)
            try:
                data = self._inputs.read(path)
            except OSError as error:
                raise ContextError(f"{path} can't be read: {error.strerror}") from error
            if data is None:
                raise ContextError(f"there is no Dockerfile at {path}", hint="name it with -f")
            locked = self._inputs.read(path + SUFFIX)
            self._lock = Lock.parse(locked, name + SUFFIX) if locked is not None else None
        progress = self._progress("definition", f"[internal] load build definition from {name}")
        reading = read(data, name)
        if reading.error is not None:
            progress.state(VertexState.FAILED, reading.error.message)
            self._lint(reading, self._resolver(self._platforms[0], store), look_up=False)
            raise reading.error
        progress.status("transferring dockerfile:", current=len(data), total=len(data), done=True)
        progress.state(VertexState.DONE)
        return reading

    def _load_ignore_file(self) -> None:
        """Read the Dockerfile's own ignore file, or else the context's."""
        progress = self._progress("ignore", "[internal] load .dockerignore")
        data = b""
        if self._gathered is not None:
            data = self._gathered.ignore or b""
        for path in ignore_files(self._request) if self._gathered is None else ():
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
        made = plan_request(self._request, platform, show_platform=len(self._platforms) > 1)
        return replace(made, source_time=self._source_time)

    def _source_time(self, name: str) -> int | None:
        if name == "context":
            return self._gathered.modified if self._gathered is not None else None
        return self._sources.time(name)

    def _run_options(self, platform: Platform) -> RunOptions:
        request = self._request
        return RunOptions(
            network="none" if request.network == "none" else "host",
            hosts=request.add_hosts,
            rlimits=request.ulimits,
            shm_size=request.shm_size,
            secrets=Secrets(request.secrets),
            agents=self._sources.agents(),
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
            # What was unpacked for this build alone will never be looked at again.
            passing = root.startswith(f"{store.session().path}/")
            digests = DigestCache(None if passing else f"{store.cache}/contexts/{key}")
            ignore = self._ignore if not name else self._named_ignore(root)
            context = LocalContext(root, ignore, digests)
            self._contexts.append(context)
            return context

        return open_context

    def _named_ignore(self, root: str) -> IgnorePatterns | None:
        data = self._sources.read(root, ".dockerignore")
        if data is None and not self._sources.has(root):
            data = self._inputs.read(os.path.join(root, ".dockerignore"))
        return IgnorePatterns.parse(data) if data else None

    def _compose(
        self, workspace: Workspace, graph: StageGraph, vertices: GraphVertices, solver: Solver[Result]
    ) -> DraftImage:
        created = timestamp(workspace.variant.epoch)
        annotations = self._annotations.of("manifest", graph.target.platform)
        return compose(graph, vertices, solver.result, created, annotations)

    def _store_image(self, workspace: Workspace, drafts: Sequence[DraftImage], export: VertexProgress) -> BuildResult:
        """Write the documents and the tags; of several platforms' images an index, whose digest stands for all."""
        store = workspace.store
        manifests = []
        for draft in drafts:
            stored = draft.store(store.blobs, draft.config.platform)
            own = self._annotations.of("manifest-descriptor", draft.config.platform)
            manifests.append(replace(stored, annotations=own))
        image_id = Digest.of(drafts[0].config.to_bytes())
        manifest = manifests[0]
        if len(manifests) > 1:
            index = store_index(store.blobs, manifests, self._annotations.of("index"))
            manifest = replace(index, annotations=self._annotations.of("index-descriptor"))
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

    def _pusher(self, store: DirectoryStore) -> Exporter:
        from castoff.export.push import RegistryExporter

        return RegistryExporter(self._sources.registry(), store)

    def _write_outputs(
        self, workspace: Workspace, result: BuildResult, tree: Callable[[], UnionTree], export: VertexProgress
    ) -> None:
        image = ImageResult(result.manifest, result.references, workspace.store.blobs, result.config.created)
        product = Product(
            image, tree, workspace.variant.epoch, self._request.stdout, lambda: self._pusher(workspace.store)
        )
        for output in self._request.outputs:
            report = write_output(output, product, self._observer, export.vertex)
            for phrase in report.skipped if report is not None else ():
                self._observer.warning(WarningEvent(f"{output.dest}: {phrase}"))
