"""Finds the images and named contexts that a Dockerfile names: in the request, then the store, then a registry."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from castoff.errors import (
    BlobNotFoundError,
    CastoffError,
    DigestMismatchError,
    InvalidReferenceError,
    PlanError,
    RegistryError,
    UsageError,
)
from castoff.events import VertexState
from castoff.image.image import StoredImage
from castoff.image.layoutfolder import LayoutFolder
from castoff.oci.reference import Reference
from castoff.plan.paths import source_kind
from castoff.plan.resolver import ResolvedBase
from castoff.solve.cache import LayerRecord
from castoff.solve.progress import VertexProgress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from castoff.events import Observer
    from castoff.location import SourceRange
    from castoff.oci.config import ImageConfig
    from castoff.oci.descriptor import Descriptor
    from castoff.oci.digest import Digest
    from castoff.oci.platform import Platform
    from castoff.ops.registrybases import RegistryBases
    from castoff.plan.resolver import ContextKind
    from castoff.store.directory import DirectoryStore

_IMAGE = "docker-image://"
_LAYOUT = "oci-layout://"
_FOLDERS = ("folder", "remote")


@dataclass(frozen=True, slots=True)
class NamedContext:
    """One ``--build-context``.

    Attributes:
        kind: an image of the store, an image of a layout folder, a folder, or one that has to be fetched.
        value: reference, layout (``PATH[:TAG][@DIGEST]``), the folder's absolute path, or the URL of an archive, a file
            or a git repository.
    """

    kind: Literal["image", "layout", "folder", "remote"]
    value: str

    @classmethod
    def parse(cls, name: str, text: str) -> NamedContext:
        """Read the value of ``--build-context name=text``.

        Raises:
            UsageError: it is of a kind that castoff does not know, or the folder does not exist.
        """
        if text.startswith(_IMAGE):
            return cls("image", text.removeprefix(_IMAGE))
        if text.startswith(_LAYOUT):
            return cls("layout", text.removeprefix(_LAYOUT))
        if text.startswith("target:"):
            raise UsageError(
                f"--build-context {name}={text} names a target of a bake file, and castoff reads none",
                hint=f"build that target first with -t, and give --build-context {name}=docker-image://REFERENCE",
            )
        if text.startswith("github.com/") or source_kind(text) != "local":
            return cls("remote", text)
        if "://" in text:
            raise UsageError(
                f"--build-context {name}={text} is of a kind that castoff can't read",
                hint="give a folder, a URL, a git repository, docker-image://REFERENCE (from the store) or "
                "oci-layout://FOLDER",
            )
        if not os.path.isdir(text):
            raise UsageError(f"--build-context {name}={text}: there is no such folder")
        return cls("folder", os.path.abspath(text))


def _normal(name: str) -> str:
    """Return the form in which names are compared: a reference in its full form, anything else in lower case."""
    try:
        return str(Reference.parse(name.lower()))
    except InvalidReferenceError:
        return name.lower()


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What gives a resolver what is not on this machine.

    Attributes:
        folder: gives the folder of a remote context by its value and name; None where none may be asked for.
        bases: asks registries for bases; None where only the store is looked into.
    """

    folder: Callable[[str, str], str] | None = None
    bases: RegistryBases | None = None


class StoreResolver:
    """Implements `castoff.plan.resolver.ImageResolver` on a store and the named contexts of a request.

    Attributes:
        layouts: host paths of the indexes of layout folders that were read.
        consulted: the references that were looked up in the store, with what was found.
        pin: gives the digest that a reference without one has to have; None for none.
    """

    def __init__(
        self,
        store: DirectoryStore,
        contexts: Iterable[tuple[str, str]],
        config: ImageConfig,
        observer: Observer,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        """Take the store, the ``--build-context`` pairs, the config that a folder stands for, and who is told.

        `elsewhere` gives what is not on this machine; without it nothing is fetched.

        Raises:
            UsageError: a named context is not valid.
        """
        self._store = store
        self._contexts = {_normal(name): NamedContext.parse(name, text) for name, text in contexts}
        self._folder_config = config
        self._observer = observer
        self._elsewhere = elsewhere or Elsewhere()
        self._known: dict[tuple[str, str], tuple[ResolvedBase, StoredImage | None]] = {}
        self.layouts: list[str] = []
        self.consulted: dict[Reference, Descriptor] = {}
        self.pin: Callable[[Reference], Digest | None] = lambda _reference: None

    def context_kind(self, name: str) -> ContextKind:
        """Say whether the request has a named context `name`."""
        context = self._contexts.get(_normal(name))
        if context is None:
            return "none"
        return "local" if context.kind in _FOLDERS else "image"

    def folder(self, name: str) -> str:
        """Return the host path of the named context `name`, which is a folder; it is fetched where it has to be.

        Raises:
            CastoffError: it can't be fetched.
        """
        context = self._contexts[_normal(name)]
        if context.kind == "folder":
            return context.value
        assert self._elsewhere.folder is not None
        return self._elsewhere.folder(context.value, name)

    def resolve(self, name: str, platform: Platform, location: SourceRange | None) -> ResolvedBase:
        """Return what `name` stands for on `platform`."""
        key = (_normal(name), str(platform))
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._resolve(name, platform, location)
        return known[0]

    def layers(self, base: ResolvedBase) -> tuple[LayerRecord, ...]:
        """Return the layers of an image that was resolved, bottom first."""
        image = next(image for resolved, image in self._known.values() if resolved == base)
        if image is None:
            return ()
        return tuple(
            LayerRecord(
                str(layer.diff_id),
                str(layer.descriptor.digest),
                layer.descriptor.size,
                0,
                layer.descriptor.media_type,
            )
            for layer in image.layers()
        )

    def _resolve(
        self, name: str, platform: Platform, location: SourceRange | None
    ) -> tuple[ResolvedBase, StoredImage | None]:
        context = self._contexts.get(_normal(name))
        if context is not None and context.kind in _FOLDERS:
            return ResolvedBase(name, name, self._folder_config, "context-local"), None
        text = name if context is None else context.value
        progress: VertexProgress | None = None
        try:
            shown = text if context is not None and context.kind == "layout" else str(Reference.parse(text))
            progress = VertexProgress(self._observer, f"metadata {shown}", f"[internal] load metadata for {shown}")
            progress.state(VertexState.STARTED)
            if context is not None and context.kind == "layout":
                found, image = self._layout_image(text, platform)
            else:
                found, image = self._find(text, platform, pinned=context is None)
            if context is not None:
                self._check_pin(name, text, {found.digest, image.descriptor.digest})
            config = image.config()
            image.layers()
        except CastoffError as error:
            if progress is not None:
                progress.state(VertexState.FAILED, error.message)
            if context is None and isinstance(error, InvalidReferenceError):
                # It stands in the Dockerfile, and not on the command line.
                raise PlanError(error.message, hint=error.hint, location=location) from error
            if error.location is None:
                error.location = location
            raise
        progress.state(VertexState.DONE)
        kind = "image" if context is None else "context-image"
        return ResolvedBase(name, shown, config, kind, image.descriptor.digest), image  # type: ignore[arg-type]

    def _find(self, text: str, platform: Platform, *, pinned: bool) -> tuple[Descriptor, StoredImage]:
        """Return what a reference names, and the image of it for a platform; a stand-in is pinned to nothing."""
        reference = Reference.parse(text)
        if pinned:
            reference = self._pinned(reference)
        descriptor, failure = self._store.images.get(reference), None
        bases = self._elsewhere.bases
        if bases is not None:
            try:
                descriptor = bases.find(reference, descriptor, platform)
            except RegistryError as error:
                if descriptor is not None:
                    raise
                failure = error
        if descriptor is None:
            raise self._missing(reference, text, failure)
        self.consulted[reference] = descriptor
        if bases is not None:
            return descriptor, bases.image(reference, descriptor, platform)
        return descriptor, StoredImage.open_(self._store.blobs, descriptor, platform)

    def _missing(self, reference: Reference, text: str, failure: RegistryError | None) -> CastoffError:
        names = [record.name for record in self._store.images if record.reference is not None]
        close = difflib.get_close_matches(reference.familiar, names, n=1)
        near = f"did you mean {close[0]}? Else " if close else ""
        message = f"the image {reference.familiar} is not in the store"
        hint = (
            f"{near}load it (castoff load -i FILE), assemble it (castoff base assemble RECIPE -t {text}),"
            f" or name what stands for it (--build-context {text}=docker-image://REFERENCE or oci-layout://FOLDER)"
        )
        if failure is None:
            return BlobNotFoundError(message, hint=hint)
        failure.message = f"{message}, and {_because(failure.message)}"
        failure.hint = near.removesuffix(" Else ") or failure.hint or hint
        return failure

    def _pinned(self, reference: Reference) -> Reference:
        """Return a reference with the digest that it has to have."""
        return reference if reference.digest is not None else replace(reference, digest=self.pin(reference))

    def _check_pin(self, name: str, context: str, digests: set[Digest]) -> None:
        """Refuse a stand-in for a name that has a digest, or is locked to one, unless it is that very image.

        Raises:
            DigestMismatchError: it is another one.
        """
        try:
            pinned = self._pinned(Reference.parse(name)).digest
        except (InvalidReferenceError, PlanError):
            return  # no reference; or one that the lock does not know, since it always had a stand-in
        if pinned is not None and pinned not in digests:
            raise DigestMismatchError(
                f"{name} is pinned to its digest, and --build-context {context} is another image",
                expected=str(pinned),
                actual=", ".join(sorted(map(str, digests))),
                hint="name the base without a digest, give the image that has it, or lock anew (castoff lock --update)",
            )

    def _layout_image(self, text: str, platform: Platform) -> tuple[Descriptor, StoredImage]:
        """Return an image of a layout folder, its blobs taken into the store, and what the folder calls it."""
        path, tag, digest = _split_layout(text)
        layout = LayoutFolder(path)
        found = layout.choose(tag, digest)
        image = layout.take(found, self._store.blobs, platform)
        self.layouts.append(os.path.abspath(layout.index_path))
        return found, image


def _because(message: str) -> str:
    """Return the words of a refusal as the second half of a sentence."""
    return message if message[:5] == "can't" else f"it can't be pulled: {message}"


def _split_layout(text: str) -> tuple[str, str, str]:
    """Split ``FOLDER[:NAME][@DIGEST]``, where the folder is the longest one that exists; names may hold colons."""
    text, _, digest = text.partition("@")
    path, tag = text, ""
    while not os.path.isdir(path):
        path, colon, more = path.rpartition(":")
        if not colon:
            return text, "", digest
        tag = f"{more}:{tag}" if tag else more
    return path, tag, digest
