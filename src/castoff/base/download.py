"""Downloads into a folder of files named by their SHA256: streamed, resumable, verified, atomic."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import os
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from castoff.errors import DigestMismatchError, RegistryError, StoreError

CHUNK = 1 << 18
STALL_SECONDS = 30.0
"""How long a connection may give no byte: a slow download that goes on is never ended."""
_ATTEMPTS = 3
_SCHEMES = ("http", "https", "file")


class Progress(Protocol):
    """Is told about the bytes of one download."""

    def __call__(self, name: str, current: int, total: int | None) -> None:
        """Note that `current` bytes of `total` are there."""


def no_progress(name: str, current: int, total: int | None) -> None:
    """Do nothing: the progress of those who want none."""


class NotThereError(RegistryError):
    """A server, or a local mirror, does not have a file."""


class UnreachableError(RegistryError):
    """A server can't be connected to."""


class _SameSchemes(urllib.request.HTTPRedirectHandler):
    """Follows redirections to http and https only: a server must not make us read local files."""

    def redirect_request(  # the signature is urllib's
        self,
        req: urllib.request.Request,
        fp: object,
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Return the request to follow up with."""
        scheme = urllib.parse.urlsplit(newurl).scheme
        if scheme not in ("http", "https") or (req.type == "https" and scheme == "http"):
            raise urllib.error.HTTPError(newurl, code, f"redirection to {scheme} refused", headers, None)
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def open_url(url: str, start: int = 0) -> BinaryIO:
    """Open a URL for reading, from byte `start` on if the server can do that (its status then is 206).

    Proxies and CA certificates are those of the environment, as urllib and OpenSSL take them.

    Raises:
        NotThereError: there is no such file.
        UnreachableError: the server can't be connected to.
        RegistryError: it answers with an error.
    """
    if urllib.parse.urlsplit(url).scheme not in _SCHEMES:
        raise RegistryError(f"{url} is not an http, https or file URL")
    request = urllib.request.Request(url, headers={"User-Agent": "castoff"})  # noqa: S310  (checked above)
    if start:
        request.add_header("Range", f"bytes={start}-")
    opener = urllib.request.build_opener(_SameSchemes())
    try:
        stream: BinaryIO = opener.open(request, timeout=STALL_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (404, 410):
            raise NotThereError(f"{url} is not there", status=error.code) from error
        raise RegistryError(
            f"{url} gave the status {error.code} {error.reason}",
            status=error.code,
            temporary=error.code >= 500 or error.code == 429,
        ) from error
    except (OSError, http.client.HTTPException) as error:
        if isinstance(getattr(error, "reason", error), FileNotFoundError):
            raise NotThereError(f"{url} is not there") from error
        reason = getattr(error, "reason", error) or type(error).__name__
        raise UnreachableError(f"{url} can't be reached: {reason}", temporary=True) from error
    return stream


def read_url(url: str, limit: int) -> bytes:
    """Return a small file whole.

    Raises:
        NotThereError: there is no such file.
        RegistryError: it can't be reached, or has more than `limit` bytes.
    """
    for attempt in range(_ATTEMPTS):
        try:
            with open_url(url) as stream:
                data = stream.read(limit + 1)
            break
        except RegistryError as error:
            if not _may_pass(error) or attempt == _ATTEMPTS - 1:
                raise
        except (OSError, http.client.HTTPException) as error:
            if attempt == _ATTEMPTS - 1:
                raise RegistryError(f"{url} broke off: {error}", temporary=True) from error
    if len(data) > limit:
        raise RegistryError(f"{url} has more than the {limit} bytes that are read")
    return data


@dataclass(frozen=True, slots=True)
class Download:
    """One file to fetch.

    Attributes:
        name: what messages and progress call it.
        urls: where it may be, in the order to try.
        sha256: hexadecimal SHA256 of its bytes.
        size: its bytes; None where not known.
    """

    name: str
    urls: tuple[str, ...]
    sha256: str
    size: int | None


class DownloadCache:
    """A folder of downloads. Safe for several processes: each file is loaded by one of them at a time."""

    def __init__(self, folder: str, progress: Progress = no_progress) -> None:
        self._folder = folder
        self._progress = progress

    def path(self, sha256: str) -> str:
        """Return where the file with a digest is, or would be."""
        return os.path.join(self._folder, sha256)

    def has(self, sha256: str) -> bool:
        """Tell whether the file with a digest is there, its bytes verified; one that is damaged is removed.

        Files are verified whenever they are used: that is cheaper than to wait for the disk when they are written.
        """
        path = self.path(sha256)
        try:
            with open(path, "rb") as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() == sha256:
                    return True
            os.unlink(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise StoreError(f"the download {path} can't be read: {error.strerror}") from error
        return False

    def fetch(self, wanted: Download) -> str:
        """Return the host path of the verified file, downloading it if need be. Atomic, idempotent.

        An interrupted download goes on where it stopped.

        Raises:
            NotThereError: none of the URLs has it.
            RegistryError: none of the URLs can be reached, or all break off.
            DigestMismatchError: the bytes that the last URL gave are others.
            StoreError: the folder can't be written.
        """
        path = self.path(wanted.sha256)
        if self.has(wanted.sha256):
            return path
        with self._writing(wanted.name):
            os.makedirs(self._folder, exist_ok=True)
        with self._partial(wanted) as partial:
            if os.path.exists(path):
                # Another process was faster, and what is locked here is a new file of no use.
                with contextlib.suppress(OSError):
                    os.unlink(path + ".part")
            else:
                self._load(wanted, partial)
                with self._writing(wanted.name):
                    os.fchmod(partial.fileno(), 0o644)
                    os.rename(path + ".part", path)
        return path

    def add(self, source: str, sha256: str) -> str:
        """Take a file from elsewhere on this machine, once its digest is right. Atomic, idempotent.

        Raises:
            DigestMismatchError: its bytes are others.
            StoreError: it can't be read or the folder can't be written.
        """
        path = self.path(sha256)
        with self._writing(os.path.basename(source)):
            os.makedirs(self._folder, exist_ok=True)
            with open(source, "rb") as stream, tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as out:
                try:
                    actual = hashlib.sha256()
                    while chunk := stream.read(CHUNK):
                        actual.update(chunk)
                        out.write(chunk)
                    out.flush()
                    check_digest(os.path.basename(source), sha256, actual.hexdigest())
                    os.fchmod(out.fileno(), 0o644)
                    os.rename(out.name, path)
                except BaseException:
                    os.unlink(out.name)
                    raise
        return path

    @contextlib.contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"{name} can't be written to {self._folder}: {error.strerror}",
                hint="free some space, or name another store with --root",
            ) from error

    @contextlib.contextmanager
    def _partial(self, wanted: Download) -> Iterator[BinaryIO]:
        """Open the partial file of a download and hold its lock."""
        with self._writing(wanted.name):
            stream = open(self.path(wanted.sha256) + ".part", "a+b")  # noqa: SIM115  (closed below)
        with stream:
            with self._writing(wanted.name):
                fcntl.flock(stream, fcntl.LOCK_EX)
            yield stream

    def _load(self, wanted: Download, partial: BinaryIO) -> None:
        """Fill the partial file from the first URL that gives the right bytes."""
        last: RegistryError | DigestMismatchError | None = None
        for url in wanted.urls:
            for _ in range(_ATTEMPTS):
                try:
                    self._load_from(url, wanted, partial)
                except (RegistryError, DigestMismatchError) as error:
                    # What a later URL says hides nothing: "not there" is kept only if no URL said anything else.
                    if last is None or isinstance(last, NotThereError):
                        last = error
                    if not _may_pass(error):
                        break
                else:
                    return
        raise last or NotThereError(f"there is nowhere to get {wanted.name} from")

    def _load_from(self, url: str, wanted: Download, partial: BinaryIO) -> None:
        digest = hashlib.sha256()
        done = 0
        partial.seek(0)
        while chunk := partial.read(CHUNK):
            digest.update(chunk)
            done += len(chunk)
        if wanted.size is not None and done > wanted.size:
            partial.truncate(0)
            digest, done = hashlib.sha256(), 0
        if wanted.size is None or done < wanted.size:
            with open_url(url, done) as stream:
                if done and getattr(stream, "status", None) != 206:
                    partial.truncate(0)
                    digest, done = hashlib.sha256(), 0
                done = self._copy(wanted, stream, partial, digest, done)
            if wanted.size is not None and done < wanted.size:
                raise RegistryError(f"{url} broke off after {done} of {wanted.size} bytes", temporary=True)
        if digest.hexdigest() != wanted.sha256:
            # Bytes that are wrong must not be gone on with.
            partial.truncate(0)
            check_digest(wanted.name, wanted.sha256, digest.hexdigest())

    def _copy(self, wanted: Download, stream: BinaryIO, partial: BinaryIO, digest: hashlib._Hash, done: int) -> int:
        self._progress(wanted.name, done, wanted.size)
        while True:
            try:
                chunk = stream.read(CHUNK)
            except (OSError, http.client.HTTPException) as error:
                partial.flush()
                raise RegistryError(f"the download of {wanted.name} broke off: {error}", temporary=True) from error
            if not chunk:
                break
            with self._writing(wanted.name):
                partial.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            if wanted.size is not None and done > wanted.size:
                partial.truncate(0)
                raise RegistryError(f"{wanted.name} has more than the {wanted.size} bytes that it should have")
            self._progress(wanted.name, done, wanted.size)
        with self._writing(wanted.name):
            partial.flush()
        return done


def _may_pass(error: RegistryError | DigestMismatchError) -> bool:
    """Tell whether trying again at once makes sense: not where a server is not reached at all, which takes long."""
    return isinstance(error, RegistryError) and error.temporary and not isinstance(error, UnreachableError)


def check_digest(name: str, expected: str, actual: str) -> None:
    """Compare two hexadecimal SHA256 values.

    Raises:
        DigestMismatchError: they differ.
    """
    if expected != actual:
        raise DigestMismatchError(
            f"{name} does not have the SHA256 that was promised",
            expected=f"sha256:{expected}",
            actual=f"sha256:{actual}",
            hint="the mirror is broken or being updated: try again, or another mirror",
        )


def with_suffix(base: str, path: str) -> str:
    """Return the URL of a path below an archive's root, the path's characters quoted."""
    return base.rstrip("/") + "/" + urllib.parse.quote(path, safe="/+~:")
