"""The store in a folder, which is an OCI image layout as it stands."""

from __future__ import annotations

import json
import os
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from castoff.errors import StoreError
from castoff.oci.jsontext import dump
from castoff.oci.manifest import Index
from castoff.store.blobfolder import DirectoryBlobStore
from castoff.store.durability import UnsyncedList
from castoff.store.failure import store_error, translated
from castoff.store.imageindex import DirectoryImages
from castoff.store.locking import exclusive
from castoff.store.migration import MARK, migrate, write_version
from castoff.store.replacement import replace_file
from castoff.store.session import Session

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

FORMAT = 1
"""The version of the store's format that this castoff writes, and the newest that it reads."""

_FOLDERS = ("blobs/sha256", "snapshots", "cache", "tmp")
_NOTE = 8192


class DirectoryStore:
    """A store in a folder. Several processes share one safely; so do several threads.

    Beside the OCI image layout (``oci-layout``, ``index.json``, ``blobs``) there are ``snapshots``, ``cache``, ``tmp``
    (sessions), ``generation`` and ``castoff.json`` (the format's version).

    Attributes:
        root: the absolute path of the folder.
        blobs: the blobs.
        images: the tags.
        snapshots: absolute path of the snapshotter's folder.
        cache: absolute path of the build cache's folder.
    """

    def __init__(self, root: str) -> None:
        """Take a folder that `open_` has checked."""
        self.root = root
        self.snapshots = f"{root}/snapshots"
        self.cache = f"{root}/cache"
        self._guard = threading.Lock()
        self._session: Session | None = None
        self._sessions = os.path.join(root, "tmp")
        self._unsynced = UnsyncedList(self._sessions, f"{root}/blobs")
        self.blobs = DirectoryBlobStore(f"{root}/blobs", self.session, self._unsynced, self._bump)
        self.images = DirectoryImages(root, self.blobs, self.sync, self._bump)

    def keep_snapshots_apart(self, kind: str) -> None:
        """Use a folder for snapshots of one kind, which are of no use to a process whose snapshots are of another."""
        self.snapshots = f"{self.root}/snapshots-{kind}"

    @classmethod
    def open_(cls, root: str, *, create: bool = True) -> DirectoryStore:
        """Open the store in a folder, and make one there if there is none.

        Args:
            root: the folder; relative to the working directory, or absolute.
            create: whether a missing or empty folder becomes a store.

        Raises:
            StoreError: the folder is something else, is of a newer format, can't be written, or is missing while
                `create` is off.
        """
        root = os.path.abspath(root)
        version = _version(root)
        whole = os.path.exists(f"{root}/index.json")
        if version is None or not whole or (create and not _has_folders(root)):
            if not create:
                raise StoreError(f"there is no store in {root}", hint="build or load an image first, or check --root")
            if version is None:
                _check_free(root)
            with translated(f"make a store in {root}"):
                _make(root)
        elif version > FORMAT:
            raise StoreError(
                f"the store in {root} has format {version}, and this castoff reads formats up to {FORMAT}",
                hint="upgrade castoff, or name another folder with --root",
            )
        elif version < FORMAT:
            migrate(root, lambda: _version(root) or FORMAT, FORMAT)
        return cls(root)

    def session(self, *, holds_blobs: bool = True) -> Session:
        """Return this process's session, which is begun at the first call.

        A build should call it first of all: while a session holds blobs, no other process collects them.

        Args:
            holds_blobs: off, for a process that only needs temporary files and may live for long. Writing a blob
                turns it on; the session's `release_blobs` turns it off.

        Raises:
            StoreError: the store can't be written.
        """
        with self._guard:
            if self._session is None:
                session = Session.begin(self._sessions)
                with translated("look for damage that a stop of the machine did to the store"):
                    if self._unsynced.recover():
                        self._bump()
                self._session = session
            if holds_blobs:
                self._session.hold_blobs(f"{self.root}/use.lock")
            return self._session

    def sync(self) -> None:
        """Wait until every blob is on the disk. Idempotent.

        Raises:
            StoreError: the disk failed, or is full.
        """
        self.blobs.sync()

    def generation(self) -> int:
        """Return the number of times that something was removed from the store.

        What was found present stays present while this number stays.

        Raises:
            StoreError: it can't be read.
        """
        try:
            with open(f"{self.root}/generation", "rb", buffering=0) as file:
                return int(file.read(32) or b"0")
        except FileNotFoundError:
            return 0
        except ValueError:
            return -1
        except OSError as error:
            raise store_error(error, "read the store's generation") from error

    def bump_generation(self) -> int:
        """Count a removal, before it is done, and return the new number. Atomic.

        Raises:
            StoreError: the store can't be written.
        """
        with translated("write the store's generation"), exclusive(f"{self.root}/generation.lock"):
            number = self.generation() + 1
            if not number:  # it could not be read: a number that it can't have had before
                number = int(time.time())
            replace_file(f"{self.root}/generation", b"%d\n" % number, durable=True, locked=True)
            return number

    def _bump(self) -> None:
        self.bump_generation()

    @contextmanager
    def collecting(self) -> Iterator[bool]:
        """Keep other processes from using blobs during the block; yields False where one uses them already.

        Processes that open the store meanwhile wait. Not for use while this process builds.

        Raises:
            StoreError: the store can't be written.
        """
        session = self.session()
        with translated("lock the store's blobs"):
            alone = session.exclude_others()
        try:
            yield alone
        finally:
            session.include_others()

    def close(self) -> None:
        """End the session and remove what is temporary. Idempotent; the store can be used again."""
        with self._guard:
            session, self._session = self._session, None
        if session is not None:
            session.close()

    def __enter__(self) -> DirectoryStore:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the store."""
        self.close()


def _version(root: str) -> int | None:
    """Return the format of the store in a folder; None where there is no store."""
    try:
        with open(f"{root}/{MARK}", "rb", buffering=0) as file:
            data = file.read(_NOTE)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise store_error(error, f"open the store in {root}") from error
    try:
        version = json.loads(data)["version"]
    except (ValueError, KeyError, TypeError):
        version = None
    if not isinstance(version, int) or version < 1:
        raise StoreError(f"{root}/{MARK} can't be read", hint="put back a copy of it, or move the store away")
    return version


def _has_folders(root: str) -> bool:
    """Tell whether what somebody may have removed to save space is still there."""
    return all(os.path.isdir(f"{root}/{folder}") for folder in _FOLDERS)


def _check_free(root: str) -> None:
    """Make sure that a new store may be put into a folder."""
    try:
        names = os.listdir(root)
    except FileNotFoundError:
        return
    except NotADirectoryError as error:
        which = "which is a file" if os.path.lexists(root) else "a part of which is a file"
        raise StoreError(f"the store can't be in {root}, {which}", hint="name a folder with --root") from error
    except OSError as error:
        raise store_error(error, f"open the store in {root}") from error
    # A castoff that was killed while it made the store has left at most a temporary file of the mark.
    if any(not name.startswith(f".{MARK}.") for name in names):
        raise StoreError(
            f"{root} is not empty and is no store of castoff",
            hint="name an empty or a new folder with --root; castoff load reads image layouts of other programs",
        )


def _make(root: str) -> None:
    """Make a store, or complete one. The mark comes first and the index last, so that each stop in between shows."""
    os.makedirs(root, 0o700, exist_ok=True)
    if not os.path.exists(f"{root}/{MARK}"):
        write_version(root, FORMAT)
    with exclusive(f"{root}/index.lock"):
        for folder in _FOLDERS:
            os.makedirs(f"{root}/{folder}", 0o755, exist_ok=True)
        replace_file(f"{root}/oci-layout", dump({"imageLayoutVersion": "1.0.0"}), locked=True)
        if not os.path.exists(f"{root}/index.json"):
            replace_file(f"{root}/index.json", Index(()).to_bytes(), durable=True, locked=True)
