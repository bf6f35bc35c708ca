"""Locks recipes, and assembles base images from recipes and locks: what the command line calls."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from castoff import __version__
from castoff.base import distroless
from castoff.base.archive import KEYRING, Archive
from castoff.base.bytecode import compile_modules, interpreter
from castoff.base.download import DownloadCache
from castoff.base.lockfile import ARCHIVES, Lock, LockedSuite, LockedWheel, locked_path
from castoff.base.mirrors import SNAPSHOT_HOST, Mirrors, read_apt_sources
from castoff.base.progress import Phases
from castoff.base.recipe import FULL, Recipe
from castoff.base.roottree import RootTree
from castoff.base.wheels import fetch_wheel, find_wheel, unpack_wheel
from castoff.errors import CastoffError, UsageError
from castoff.fs.changes import Added
from castoff.layer.create import LayerOptions, write_layer
from castoff.oci import mediatypes
from castoff.oci.config import ContainerConfig, History, ImageConfig
from castoff.oci.descriptor import Descriptor
from castoff.oci.digest import Digest
from castoff.oci.manifest import Manifest
from castoff.oci.platform import Platform
from castoff.store.removal import remove_tree
from castoff.store.replacement import replace_file

if TYPE_CHECKING:
    from castoff.base.archive import SuiteIndex
    from castoff.base.rootfolder import RootFolder
    from castoff.events import Observer
    from castoff.oci.reference import Reference
    from castoff.sandbox.executor import Executor
    from castoff.store.directory import DirectoryStore

DEFAULT_EPOCH = 315532800
_CONNECTIONS = 4
_ARCHITECTURES = {"386": "i386", "ppc64le": "ppc64el", "arm": "armhf", "mips64le": "mips64el"}


@dataclass(frozen=True, slots=True)
class Sources:
    """Where packages may come from.

    Attributes:
        mirrors: (archive, URL) pairs that take the place of the machine's apt settings; see `parse_mirror`.
        snapshot: URL of Debian's snapshot archive; "" never to ask it.
        keyring: host path of the OpenPGP keys that are trusted.
        apt: host path of apt's folder of settings.
    """

    mirrors: tuple[tuple[str, str], ...] = ()
    snapshot: str = SNAPSHOT_HOST
    keyring: str = KEYRING
    apt: str = "/etc/apt"


@dataclass(frozen=True, slots=True)
class LockRequest:
    """Asks for a lock.

    Attributes:
        recipe: host path of the recipe.
        architecture: Debian's name of the architecture where the recipe names none; "" for this machine's.
        sources: where packages may come from.
    """

    recipe: str
    architecture: str = ""
    sources: Sources = field(default_factory=Sources)


@dataclass(frozen=True, slots=True)
class AssembleRequest:
    """Asks for a base image.

    Attributes:
        recipe: host path of the recipe.
        lock: host path of its lock; "" for the one beside it, and where there is none the newest packages are taken.
        references: what to name the image.
        epoch: seconds since 1970 that no file of the image is newer than; None for castoff's default.
        userxattr: whether overlay's attributes are in the ``user.`` namespace, as in a user namespace.
        fresh: assemble anew even if the store has the result of the same recipe and lock.
        sources: where packages may come from.
        architecture: Debian's name of the architecture; "" for that of the lock, or this machine's.
    """

    recipe: str
    lock: str = ""
    references: tuple[Reference, ...] = ()
    epoch: int | None = None
    userxattr: bool = False
    fresh: bool = False
    sources: Sources = field(default_factory=Sources)
    architecture: str = ""


def lock(request: LockRequest, store: DirectoryStore, observer: Observer) -> Lock:
    """Return the newest packages and wheels that fulfil a recipe. Nothing but the store's downloads is written.

    Raises:
        UsageError: the recipe is not valid, or can't be fulfilled.
        RegistryError: the archive can't be reached, or is not signed.
        DigestMismatchError: an index is not the one that was signed.
        UnsupportedError: gpgv, the keyring or pip is missing.
    """
    recipe = Recipe.read(request.recipe)
    return _Assembler(request.sources, store, observer).lock(recipe, request.architecture)


def assemble(
    request: AssembleRequest, store: DirectoryStore, executor: Executor | None, observer: Observer
) -> Descriptor:
    """Assemble a base image into the store and return its manifest's descriptor.

    With a lock, the same recipe gives the same image on any machine and any day.

    Args:
        request: what to assemble.
        store: takes the image, and keeps downloads.
        executor: runs maintainer scripts, and Python's compiler; a ``distroless`` base without Python needs none.
        observer: is told of the progress.

    Raises:
        UsageError: the recipe or the lock is not valid, or they don't belong together.
        RegistryError: a package can't be had; it and its version are named.
        DigestMismatchError: a package is not the one that was locked.
        InvalidImageError: a package is damaged or hostile.
        RunError: a maintainer script failed.
        SandboxError: nothing can be run on this machine.
        StoreError: the store can't be written.
    """
    recipe = Recipe.read(request.recipe)
    assembler = _Assembler(request.sources, store, observer)
    pinned = _pinned(request, recipe) or assembler.lock(recipe, request.architecture)
    epoch = DEFAULT_EPOCH if request.epoch is None else request.epoch
    key = _key(request.recipe, pinned, epoch)
    known = None if request.fresh else _recall(store, key)
    if known:
        assembler.phases.cached("assemble", f"assemble {os.path.basename(request.recipe)}")
    else:
        known = assembler.assemble(recipe, pinned, epoch, executor, request.userxattr)
        _remember(store, key, known)
    for reference in request.references:
        store.images.set_(reference, known, time.time())
    return known


def _pinned(request: AssembleRequest, recipe: Recipe) -> Lock | None:
    """Return the lock to go by: the given one, or one beside the recipe that is for the architecture; None for none."""
    wanted = request.architecture
    paths = [request.lock] if request.lock else [locked_path(request.recipe, wanted), locked_path(request.recipe)]
    for path in paths:
        if not request.lock and not os.path.exists(path):
            continue
        pinned = Lock.read(path)
        if wanted and pinned.architecture != wanted:
            if request.lock:
                raise UsageError(f"{path} is for {pinned.architecture}, and the base is to be for {wanted}")
            continue
        pinned.check(recipe, path)
        return pinned
    return None


class _Assembler:
    """One run: where things come from and go to."""

    def __init__(self, sources: Sources, store: DirectoryStore, observer: Observer) -> None:
        self.phases = Phases(observer)
        self._observer = observer
        self._store = store
        self._stopped = threading.Event()
        self._scratch: list[str] = []
        self._downloads = DownloadCache(os.path.join(store.cache, "downloads"), self._note_download)
        mirrors = Mirrors(sources.mirrors, read_apt_sources(sources.apt), sources.snapshot)
        self._archive = Archive(mirrors, self._downloads, sources.keyring)

    def lock(self, recipe: Recipe, architecture: str) -> Lock:
        """Resolve a recipe against the archive as it is now."""
        from castoff.base.resolve import Universe, resolve

        architecture = recipe.architecture or architecture or host_architecture()
        with self.phases.phase("indexes", f"load package indexes of {recipe.suite}"):
            indexes = self._indexes(recipe, architecture)
        with self.phases.phase("resolve", f"resolve {len(recipe.packages)} packages"):
            universe = Universe(indexes)
            wanted = list(recipe.packages)
            if recipe.variant == FULL:
                wanted = [*sorted(set(universe.required()) - set(recipe.exclude)), "apt", *wanted]
            chosen = resolve(universe, wanted, dependencies=recipe.dependencies, exclude=frozenset(recipe.exclude))
        wheels = self._find_wheels(recipe, architecture)
        suites = {LockedSuite(index.archive, index.suite, index.time) for index in indexes}
        packages = tuple(sorted(candidate.locked() for candidate in chosen))
        return Lock(recipe.selection, architecture, tuple(sorted(suites)), packages, wheels)

    def _indexes(self, recipe: Recipe, architecture: str) -> list[SuiteIndex]:
        main, security = ARCHIVES
        suites = [(main, recipe.suite)]
        if "updates" in recipe.pockets:
            suites.append((main, f"{recipe.suite}-updates"))
        if "security" in recipe.pockets:
            suites.append((security, f"{recipe.suite}-security"))
        indexes = []
        for archive, suite in suites:
            indexes += self._archive.indexes(archive, suite, recipe.components, architecture)
        return indexes

    def _find_wheels(self, recipe: Recipe, architecture: str) -> tuple[LockedWheel, ...]:
        found = []
        for wheel in recipe.wheels:
            with self.phases.phase(f"wheel {wheel.name}", f"find wheel {wheel.name} {wheel.version}"):
                found.append(find_wheel(wheel, architecture, self._downloads))
        return tuple(sorted(found))

    def assemble(
        self, recipe: Recipe, pinned: Lock, epoch: int, executor: Executor | None, userxattr: bool
    ) -> Descriptor:
        """Make the image of a recipe and its lock."""
        try:
            return self._assemble(recipe, pinned, epoch, executor, userxattr)
        finally:
            for folder in self._scratch:
                remove_tree(folder)

    def _assemble(
        self, recipe: Recipe, pinned: Lock, epoch: int, executor: Executor | None, userxattr: bool
    ) -> Descriptor:
        with self.phases.phase("packages", f"load {len(pinned.packages)} packages"):
            debs = self._fetch_packages(pinned)
        wheels = self._fetch_wheels(recipe, pinned)
        tree = RootTree(self._new_dir(), mtime_ns=epoch * 10**9)
        if recipe.variant == FULL:
            self._configure(tree, recipe, pinned, debs, self._root(recipe, executor, userxattr))
        else:
            with self.phases.phase("unpack", f"unpack {len(debs)} packages"):
                distroless.unpack(tree, debs, recipe, pinned.architecture)
            python = interpreter(tree)
            if python:
                with self.phases.phase("bytecode", f"compile modules of {python}"):
                    root = self._root(recipe, executor, userxattr)
                    tree = compile_modules(tree, python, root, self._new_dir())
        if wheels:
            with self.phases.phase("wheels", f"unpack {len(wheels)} wheels"):
                for wheel, path in zip(recipe.wheels, wheels, strict=True):
                    unpack_wheel(tree, wheel, path)
                distroless.drop(tree, recipe)
        distroless.apply_additions(tree, recipe)
        with self.phases.phase("export", "write layer and manifest"):
            return self._write(tree, recipe, pinned, epoch)

    def _fetch_packages(self, pinned: Lock) -> list[str]:
        """Return the host paths of the lock's packages, in its order."""
        with ThreadPoolExecutor(_CONNECTIONS) as pool:
            try:
                return list(pool.map(lambda package: self._archive.package(package, pinned), pinned.packages))
            except BaseException:
                self._stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _note_download(self, name: str, current: int, total: int | None) -> None:
        """Pass on the progress of a download, or end its thread if another one failed."""
        if self._stopped.is_set():
            raise KeyboardInterrupt
        self.phases.download(name, current, total)

    def _new_dir(self) -> str:
        """Return an empty folder that goes at the end of the assembly."""
        self._scratch.append(self._store.session().new_dir())
        return self._scratch[-1]

    def _fetch_wheels(self, recipe: Recipe, pinned: Lock) -> list[str]:
        """Return the host paths of the recipe's wheels, in its order."""
        by_name = {(wheel.name, wheel.version): wheel for wheel in pinned.wheels}
        paths = []
        for wheel in recipe.wheels:
            locked = by_name.get((wheel.name, wheel.version))
            if locked is None:
                raise UsageError(f"the lock of {recipe.file} lacks the wheel {wheel.name} {wheel.version}")
            with self.phases.phase(f"wheel {wheel.name}", f"load wheel {locked.filename}"):
                paths.append(fetch_wheel(wheel, locked, pinned.architecture, self._downloads))
        return paths

    def _root(self, recipe: Recipe, executor: Executor | None, userxattr: bool) -> RootFolder:
        """Return an empty root in which programs can be run."""
        from castoff.base.rootfolder import RootFolder
        from castoff.linux import namespaces

        if executor is None:
            raise UsageError(f"{recipe.file} needs programs to be run in the sandbox, and no executor was given")
        folder = os.path.join(self._new_dir(), "root")  # a table of its owners may have to lie beside it
        os.mkdir(folder, 0o755)
        emulated = namespaces.has_single_id()
        return RootFolder(folder, self._new_dir, executor, self._observer, userxattr, emulated)

    def _configure(self, tree: RootTree, recipe: Recipe, pinned: Lock, debs: Sequence[str], root: RootFolder) -> None:
        """Install the packages of the variant ``full`` in a root, and put the result into an empty tree."""
        from castoff.base import full

        with self.phases.phase("configure", f"install {len(debs)} packages"):
            packages = full.read_packages(pinned, debs)
            full.bootstrap(root, packages, self._new_dir(), pinned)
        root.load(tree)
        full.finish(tree, recipe, pinned)

    def _write(self, tree: RootTree, recipe: Recipe, pinned: Lock, epoch: int) -> Descriptor:
        """Write the tree as one layer, with config and manifest, and return the manifest's descriptor."""
        blobs = self._store.blobs
        with blobs.writer() as out:
            changes = [Added(entry) for entry in tree.entries()]
            info = write_layer(changes, out, LayerOptions(epoch=epoch))
            digest, size = out.commit()
        layer = Descriptor(info.media_type, digest, size)
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch))
        config = ImageConfig(
            platform=_platform(pinned.architecture),
            config=_container_config(recipe),
            diff_ids=(info.diff_id,),
            history=(History(created, f"castoff base assemble {os.path.basename(recipe.file)}"),),
            created=created,
        ).to_bytes()
        manifest = Manifest(Descriptor(mediatypes.OCI_CONFIG, blobs.add(config), len(config)), (layer,)).to_bytes()
        return Descriptor(mediatypes.OCI_MANIFEST, blobs.add(manifest), len(manifest))


def _container_config(recipe: Recipe) -> ContainerConfig:
    config = recipe.config
    return ContainerConfig(
        user=config.user,
        env=tuple(f"{name}={value}" for name, value in config.env),
        entrypoint=config.entrypoint,
        cmd=config.cmd,
        working_dir=config.workdir,
        labels=config.labels,
        stop_signal=config.stop_signal,
    )


def architecture_of(platform: Platform) -> str:
    """Return Debian's name of the architecture that a platform's machines have.

    Raises:
        UsageError: Debian has none for it.
    """
    if platform.os != "linux" or (platform.architecture == "arm" and platform.variant not in ("v7", "v6")):
        raise UsageError(f"there are no Debian packages for {platform}", hint="such as linux/amd64 or linux/arm64")
    if platform.architecture == "arm" and platform.variant == "v6":
        return "armel"
    return _ARCHITECTURES.get(platform.architecture, platform.architecture)


def _platform(architecture: str) -> Platform:
    """Return the platform of a Debian architecture."""
    names = {debian: go for go, debian in _ARCHITECTURES.items()}
    return Platform.normalised("linux", names.get(architecture, architecture))


def host_architecture() -> str:
    """Return Debian's name of this machine's architecture."""
    return architecture_of(Platform.host())


def _key(recipe: str, pinned: Lock, epoch: int) -> str:
    """Return what identifies a result: everything that goes into it."""
    with open(recipe, "rb") as stream:
        text = stream.read()
    name = os.path.basename(recipe)
    return Digest.of(json.dumps([__version__, name, text.hex(), pinned.to_text(), epoch]).encode()).hex


def _recall(store: DirectoryStore, key: str) -> Descriptor | None:
    """Return the manifest that was assembled before, if all its blobs are still in the store."""
    try:
        with open(os.path.join(store.cache, "bases", key), "rb") as stream:
            descriptor = Descriptor.from_json(json.loads(stream.read(1 << 16)))
        manifest = Manifest.parse(store.blobs.read(descriptor.digest))
    except (OSError, ValueError, CastoffError):
        return None
    blobs = (manifest.config, *manifest.layers)
    return descriptor if all(store.blobs.size(blob.digest) == blob.size for blob in blobs) else None


def _remember(store: DirectoryStore, key: str, descriptor: Descriptor) -> None:
    folder = os.path.join(store.cache, "bases")
    os.makedirs(folder, exist_ok=True)
    replace_file(os.path.join(folder, key), json.dumps(descriptor.to_json()).encode())
