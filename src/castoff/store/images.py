"""The images of a store: which references name which manifests, and when they came there."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from castoff.errors import BlobNotFoundError, CastoffError, InvalidReferenceError, StoreError
from castoff.oci import mediatypes
from castoff.oci.descriptor import FULL_NAME, REF_NAME, Descriptor
from castoff.oci.manifest import Index, Manifest
from castoff.oci.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from castoff.oci.digest import Digest
    from castoff.store.blobs import BlobStore

CREATED = "dev.castoff.created"
"""The annotation with the time at which a tag was written, RFC 3339; the store's own."""

NONE = "<none>"
_PREFIX = re.compile(r"(?:(?P<algorithm>sha256|sha384|sha512):)?(?P<hex>[0-9a-f]{4,128})")
_OWN = frozenset({REF_NAME, FULL_NAME, CREATED})


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One line of the list of images.

    Attributes:
        reference: what names it; None for an image without a tag.
        descriptor: its manifest or index, without the annotations that the store adds.
        created: when the tag was written, in seconds since the epoch; 0 where the store does not know.
    """

    reference: Reference | None
    descriptor: Descriptor
    created: float = 0.0

    @property
    def name(self) -> str:
        """The reference as people write it; ``<none>`` where there is none."""
        return self.reference.familiar if self.reference else NONE

    @classmethod
    def from_descriptor(cls, descriptor: Descriptor) -> ImageRecord:
        """Read an entry of a layout's index; a name that is no reference counts as none."""
        annotations = dict(descriptor.annotations)
        reference = reference_of(annotations)
        kept = descriptor.with_annotations({key: value for key, value in annotations.items() if key not in _OWN})
        return cls(reference, kept, parse_time(annotations.get(CREATED, "")))

    def to_descriptor(self) -> Descriptor:
        """Return the entry of a layout's index."""
        annotations = dict(self.descriptor.annotations)
        if self.reference:
            annotations[REF_NAME] = self.reference.familiar
            annotations[FULL_NAME] = str(self.reference)
        if self.created:
            annotations[CREATED] = format_time(self.created)
        return self.descriptor.with_annotations(annotations)


def reference_of(annotations: dict[str, str], *, bare: bool = True) -> Reference | None:
    """Return the reference in the annotations of a layout's entry; None where there is none that can be read.

    BuildKit and containerd write the whole reference and, in the layout's own annotation, its tag; castoff's store,
    podman and skopeo write a whole reference there. A program that knows only the layout's own annotation, such as
    umoci, may have changed that one alone: it then wins.

    Args:
        annotations: those of the entry.
        bare: whether a word without ":" and "/" alone is a repository; off, it is a tag of something unknown.
    """
    own, full = annotations.get(REF_NAME, ""), _parsed(annotations.get(FULL_NAME, ""))
    whole = _parsed(own) if ":" in own or "/" in own else None
    if whole is not None or full is None:
        return whole or (_parsed(own) if bare else None)
    if own and own not in (full.tag, str(full.digest), full.familiar):
        return _parsed(f"{replace(full, tag='latest', digest=None).familiar.removesuffix(':latest')}:{own}") or full
    return full


def _parsed(text: str) -> Reference | None:
    try:
        return Reference.parse(text) if text else None
    except InvalidReferenceError:
        return None


def format_time(seconds: float) -> str:
    """Return a time as RFC 3339 in UTC, to the microsecond."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def parse_time(text: str) -> float:
    """Read an RFC 3339 time into seconds since the epoch; 0 for what is none."""
    from datetime import UTC, datetime

    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def _key(reference: Reference) -> Reference:
    """Return what a tag is looked up by: where there is a digest, the tag says nothing."""
    return replace(reference, tag="") if reference.digest else reference


class ImageTable:
    """The list of images as a value: what the stores in a folder and in memory have in common."""

    def __init__(self, records: Iterable[ImageRecord] = ()) -> None:
        self.records = tuple(records)

    def get(self, reference: Reference) -> Descriptor | None:
        """Return what a reference names; one with a digest finds that image of the repository under any tag."""
        wanted = _key(reference)
        for record in self.records:
            own = record.reference
            if own is None:
                continue
            if wanted.digest is None:
                if own == wanted:
                    return record.descriptor
            elif record.descriptor.digest == wanted.digest and (own.registry, own.repository) == (
                wanted.registry,
                wanted.repository,
            ):
                return record.descriptor
        return None

    def with_tag(self, reference: Reference, descriptor: Descriptor, created: float) -> ImageTable:
        """Return a copy with a tag set. An image that loses its last name so stays, without one.

        A tag that names that image already keeps its time.

        Raises:
            StoreError: the reference has another digest than the image.
        """
        if reference.digest and reference.digest != descriptor.digest:
            raise StoreError(f"the image {descriptor.digest} can't be named {reference}: the digests differ")
        key = _key(reference)
        plain = _plain(descriptor)
        if any(record.reference == key and record.descriptor == plain for record in self.records):
            return self
        kept = [
            record
            for record in self.records
            if record.reference != key and not (record.reference is None and _same(record.descriptor, descriptor))
        ]
        named = {record.descriptor.digest for record in kept} | {descriptor.digest}
        kept += [
            replace(record, reference=None)
            for record in self.records
            if record.reference == key and record.descriptor.digest not in named
        ]
        return ImageTable([*kept, ImageRecord(key, plain, created)])

    def with_untagged(self, descriptor: Descriptor, created: float) -> ImageTable:
        """Return a copy that lists an image, without a name if it has none yet."""
        if any(_same(record.descriptor, descriptor) for record in self.records):
            return self
        return ImageTable([*self.records, ImageRecord(None, _plain(descriptor), created)])

    def without_tag(self, reference: Reference) -> ImageTable:
        """Return a copy without a tag."""
        key = _key(reference)
        return ImageTable([record for record in self.records if record.reference != key])

    def without_digest(self, digest: Digest) -> ImageTable:
        """Return a copy without the image of that manifest, whatever its names."""
        return ImageTable([record for record in self.records if record.descriptor.digest != digest])

    def find(self, text: str, blobs: BlobStore) -> ImageRecord:
        """Return the image that a reference, a digest, or the unique beginning of a digest means.

        Digests are those of manifests and of configs (Docker's image id).

        Raises:
            BlobNotFoundError: there is none.
            StoreError: several images are meant.
            InvalidReferenceError: it is neither a reference nor a digest.
        """
        match = _PREFIX.fullmatch(text)
        invalid: InvalidReferenceError | None = None
        try:
            reference = Reference.parse(text)
        except InvalidReferenceError as error:
            if match is None:
                raise
            invalid = error
        else:
            wanted = self.get(reference)
            if wanted is not None:
                return next(
                    record
                    for record in self.records
                    if record.reference is not None
                    and record.descriptor == wanted
                    and (reference.digest is not None or record.reference == reference)
                )
        found = self._by_digest(match["algorithm"] or "", match["hex"], blobs) if match else {}
        if len(found) > 1:
            raise StoreError(
                f"{text!r} is the beginning of the ids of {len(found)} images", hint="give more of the digits"
            )
        if not found:
            raise BlobNotFoundError(
                f"no image in the store is {text!r}",
                hint="castoff images lists them; build, load or assemble it first",
            ) from invalid
        return next(iter(found.values()))

    def _by_digest(self, algorithm: str, prefix: str, blobs: BlobStore) -> dict[Digest, ImageRecord]:
        found: dict[Digest, ImageRecord] = {}
        for record in self.records:
            for digest in _digests(record.descriptor, blobs):
                if digest.hex.startswith(prefix) and algorithm in ("", digest.algorithm):
                    previous = found.get(record.descriptor.digest)
                    if previous is None or previous.reference is None:
                        found[record.descriptor.digest] = record
                    break
        return found


def _same(one: Descriptor, other: Descriptor) -> bool:
    return one.digest == other.digest


def _plain(descriptor: Descriptor) -> Descriptor:
    return descriptor.with_annotations({k: v for k, v in descriptor.annotations if k not in _OWN})


def _digests(descriptor: Descriptor, blobs: BlobStore) -> Iterator[Digest]:
    """Yield the digests by which an image can be meant: of its manifest, and of its config; of an index, of all."""
    yield descriptor.digest
    try:
        if descriptor.media_type in mediatypes.MANIFESTS:
            yield Manifest.parse(blobs.read(descriptor.digest)).config.digest
        elif descriptor.media_type in mediatypes.INDEXES:
            for child in Index.parse(blobs.read(descriptor.digest)).manifests:
                if child.media_type in mediatypes.MANIFESTS:
                    yield from _digests(child, blobs)
    except CastoffError:
        return  # an image that can't be read is still found by its manifest's digest


class Images(Protocol):
    """The images of a store. Safe for several threads and processes."""

    def get(self, reference: Reference) -> Descriptor | None:
        """Return the manifest or index that a reference names, or None.

        Raises:
            StoreError: the list can't be read.
        """

    def set_(self, reference: Reference, descriptor: Descriptor, created: float) -> None:
        """Make a reference name a manifest or index whose blobs are in the store. Atomic, idempotent, durable.

        An image that loses its last name so stays in the list without one.

        Args:
            reference: the name; one with a digest must be of that digest.
            descriptor: the manifest or index.
            created: now, in seconds since the epoch.

        Raises:
            StoreError: the store can't be written.
        """

    def keep(self, descriptor: Descriptor, created: float) -> None:
        """List an image without a name, unless it is listed. Atomic, idempotent, durable.

        Raises:
            StoreError: the store can't be written.
        """

    def remove(self, reference: Reference) -> bool:
        """Remove a tag and tell whether there was one; blobs stay until they are collected. Atomic, idempotent.

        Raises:
            StoreError: the store can't be written.
        """

    def remove_digest(self, digest: Digest) -> bool:
        """Remove all names and entries of one manifest, and tell whether there were any. Atomic, idempotent.

        Raises:
            StoreError: the store can't be written.
        """

    def find(self, text: str) -> ImageRecord:
        """Return the image that a reference, a digest, or a unique beginning (4 digits or more) of one means.

        Raises:
            BlobNotFoundError: there is none.
            StoreError: several images are meant.
            InvalidReferenceError: it is neither a reference nor a digest.
        """

    def __iter__(self) -> Iterator[ImageRecord]:
        """Yield all images, oldest entry first."""
