"""Looks a whole store over: every byte of its blobs, and that images, snapshots and records agree with one another.

What a killed castoff leaves is no damage: it is told apart as left over, and the next castoff, or a repair, removes it.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from castoff.errors import CastoffError, StoreError
from castoff.image.image import StoredImage, iter_manifests
from castoff.oci.jsontext import MAX_DOCUMENT, load_object
from castoff.snapshot.overlay import OverlaySnapshotter
from castoff.solve.cache import CacheRecord
from castoff.store.blobfolder import holds
from castoff.store.locking import try_lock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from castoff.oci.digest import Digest
    from castoff.store.directory import DirectoryStore
    from castoff.store.images import ImageRecord

Part = Literal["store", "blob", "image", "snapshot", "record", "container"]

_RECORD = re.compile(r"[0-9a-zA-Z_-]+")
_TEMPORARY = re.compile(r".+\.[0-9]+(?:\.[0-9a-f]+)?")
_REPLACEMENT = re.compile(r"\..+\.[0-9a-f]{12}")
_LOCK = ".lock"
_GET = "build, load or pull it again"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong in a store.

    Attributes:
        part: what kind of thing it is.
        name: its digest, reference, name or path.
        text: what is wrong, as the end of a sentence that begins with the name.
        remedy: what to do about it; "" where a repair does all.
        path: host path of what a repair removes; "" where removing would not help.
    """

    part: Part
    name: str
    text: str
    remedy: str = ""
    path: str = ""


@dataclass(slots=True)
class StoreReport:
    """What was found in a store.

    Attributes:
        blobs: number of blobs that were read.
        size: their bytes.
        images: number of entries in the list of images.
        snapshots: number of whole snapshots.
        records: number of cache records.
        problems: what is wrong.
        leftovers: host paths of what killed processes have left.
    """

    blobs: int = 0
    size: int = 0
    images: int = 0
    snapshots: int = 0
    records: int = 0
    problems: list[Problem] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)


def check_store(store: DirectoryStore, *, alone: bool = False) -> StoreReport:
    """Look a store over and return what was found. Writes nothing; idempotent.

    Other processes may use the store meanwhile; while this reads, none collects blobs.

    Args:
        store: the store.
        alone: whether the caller has the store to itself already.

    Raises:
        StoreError: a folder of the store can't be listed.
    """
    report = StoreReport()
    with nullcontext(True) if alone else _holding(store.root) as ours:
        damaged = _check_blobs(store, report)
        _check_documents(store, report)
        _check_images(store, report, damaged)
        _check_snapshots(store, OverlaySnapshotter(store.snapshots, _Nowhere(), userxattr=False), report)
        _check_records(store, report)
        _check_containers(store, report)
        _find_leftovers(store, report, alone=ours)
    return report


class _Nowhere:
    """Gives no folders to a snapshotter that only looks."""

    def new_dir(self) -> str:
        raise StoreError("a check writes nothing")


@contextmanager
def _holding(root: str) -> Iterator[bool]:
    """Keep others from collecting blobs; yields whether nobody else uses any.

    A store in which nobody can lock is read as it is.
    """
    try:
        fd = os.open(f"{root}/use.lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield True
        return
    try:
        alone = try_lock(fd)
        fcntl.flock(fd, fcntl.LOCK_SH)
        yield alone
    finally:
        os.close(fd)


def _check_blobs(store: DirectoryStore, report: StoreReport) -> set[Digest]:
    """Read every blob, and return the digests of those that are damaged."""
    damaged: set[Digest] = set()
    for digest in store.blobs:
        path = store.blobs.path(digest)
        size = store.blobs.size(digest)
        if size is None:
            continue  # removed meanwhile
        report.blobs += 1
        report.size += size
        if not digest.is_registered:
            continue  # what castoff can't compute, another program has put there
        try:
            whole = holds(path, digest, size)
        except OSError as error:
            damaged.add(digest)
            report.problems.append(Problem("blob", str(digest), f"can't be read: {error.strerror}"))
            continue
        if not whole:
            damaged.add(digest)
            report.problems.append(Problem("blob", str(digest), "has other bytes than its digest promises", path=path))
    return damaged


def _check_documents(store: DirectoryStore, report: StoreReport) -> None:
    try:
        with open(f"{store.root}/oci-layout", "rb") as file:
            version = load_object(file.read(MAX_DOCUMENT), "oci-layout file").get("imageLayoutVersion")
        text = "" if version == "1.0.0" else f"is of the unknown version {version!r}"
    except (OSError, CastoffError) as error:
        text = f"can't be read: {getattr(error, 'strerror', None) or error}"
    if text:
        report.problems.append(Problem("store", "oci-layout", text, "the next castoff that writes makes it anew"))
    if store.generation() < 0:
        remedy = "a repair begins the count anew"
        report.problems.append(Problem("store", "generation", "is no number", remedy, f"{store.root}/generation"))


def _check_images(store: DirectoryStore, report: StoreReport, damaged: set[Digest]) -> None:
    try:
        records = list(store.images)
    except CastoffError as error:
        report.problems.append(Problem("store", "index.json", f"is damaged: {error.message}", error.hint or ""))
        return
    report.images = len(records)
    for record in records:
        for text in _image_problems(store, record, damaged):
            name = record.name if record.reference else str(record.descriptor.digest)
            report.problems.append(Problem("image", name, text, _GET))


def _image_problems(store: DirectoryStore, record: ImageRecord, damaged: set[Digest]) -> list[str]:
    descriptor = record.descriptor
    try:
        manifests = list(iter_manifests(store.blobs, descriptor))
    except CastoffError as error:
        return [f"can't be used: {error.message}"]
    # Of an index, platforms that were never loaded are no damage, as long as one is there.
    present = [one for one in manifests if store.blobs.size(one.digest) is not None]
    if not present:
        return ["has no image in the store"]
    texts = []
    for manifest in present:
        try:
            layers = StoredImage(store.blobs, manifest).layers()
        except CastoffError as error:
            texts.append(f"can't be used: {error.message}")
            continue
        for layer in (each.descriptor for each in layers):
            size = store.blobs.size(layer.digest)
            if size is None:
                texts.append(f"can't be used: the layer {layer.digest} is missing")
            elif layer.digest in damaged:
                texts.append(f"needs the damaged blob {layer.digest}")
            elif size != layer.size:
                texts.append(f"can't be used: the layer {layer.digest} has {size} bytes and not {layer.size}")
    return texts


def _check_snapshots(store: DirectoryStore, snapshotter: OverlaySnapshotter, report: StoreReport) -> None:
    whole = set(snapshotter)
    for name in _names(store.snapshots):
        path = f"{store.snapshots}/{name}"
        if name not in whole:
            report.problems.append(Problem("snapshot", name, "has no record of what it stands on", path=path))
        elif not os.path.isdir(f"{path}/fs"):
            report.problems.append(Problem("snapshot", name, "has no files", path=path))
        elif not snapshotter.exists(name):
            report.problems.append(Problem("snapshot", name, "stands on one that is missing or damaged", path=path))
        else:
            report.snapshots += 1


def _check_records(store: DirectoryStore, report: StoreReport) -> None:
    top = f"{store.cache}/records"
    for group in _names(top):
        for name in _names(f"{top}/{group}"):
            path = f"{top}/{group}/{name}"
            if not _RECORD.fullmatch(name):
                continue
            report.records += 1
            try:
                with open(path, "rb") as file:
                    CacheRecord.from_json(json.loads(file.read(MAX_DOCUMENT)))
            except FileNotFoundError:
                continue
            except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
                report.problems.append(Problem("record", group + name, "is no record of a step", path=path))


def _check_containers(store: DirectoryStore, report: StoreReport) -> None:
    top = f"{store.root}/containers"
    for name in _names(top):
        for document in ("config.json", "state.json"):
            try:
                with open(f"{top}/{name}/{document}", "rb") as file:
                    load_object(file.read(MAX_DOCUMENT + 1), document)
            except OSError:
                continue
            except CastoffError as error:
                remedy = "castoff rm --force removes the container"
                report.problems.append(Problem("container", name, f"is damaged: {error.message}", remedy))


def _find_leftovers(store: DirectoryStore, report: StoreReport, *, alone: bool) -> None:
    sessions = os.path.join(store.root, "tmp")
    for name in sorted({name.removesuffix(_LOCK) for name in _names(sessions) if name[:1].isdigit()}):
        if not _is_locked(f"{sessions}/{name}{_LOCK}"):
            report.leftovers.append(f"{sessions}/{name}")
    if not alone:
        return  # a file that a living process is about to rename looks like one that a dead process has left
    report.leftovers += [f"{store.root}/{name}" for name in _names(store.root) if _REPLACEMENT.fullmatch(name)]
    for folder in ("noop", "builds", "contexts", "explain/files", "explain/builds"):
        top = f"{store.cache}/{folder}"
        report.leftovers += [f"{top}/{name}" for name in _names(top) if _TEMPORARY.fullmatch(name)]
    top = f"{store.cache}/records"
    for group in _names(top):
        report.leftovers += [f"{top}/{group}/{n}" for n in _names(f"{top}/{group}") if not _RECORD.fullmatch(n)]


def _is_locked(path: str) -> bool:
    """Tell whether the process of a session lives."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not try_lock(fd, fcntl.LOCK_SH)
    finally:
        os.close(fd)


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
