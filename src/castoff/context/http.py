"""Files at http and https URLs: fetched into a folder that remembers them, and asked for anew only where they changed.

RFC 9110: a redirection is followed within http and https only, and credentials never leave the host that they are for;
a file that is known is asked for with If-None-Match, or else If-Modified-Since.
"""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import http.client
import json
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Protocol

from castoff.errors import ContextError, DigestMismatchError, StoreError

if TYPE_CHECKING:
    import io
    from collections.abc import Callable

STALL_SECONDS = 30.0
"""How long a connection may give no byte: a slow download that goes on is never ended."""
MAX_BYTES = 64 << 30
"""The largest file that is fetched."""
MAX_REDIRECTIONS = 10
_CHUNK = 1 << 18
_ATTEMPTS = 3
_MAX_NOTE = 1 << 16
_CHECKSUM = re.compile(r"sha256:([0-9a-f]{64})")


class Progress(Protocol):
    """Is told about the bytes of one download."""

    def __call__(self, current: int, total: int | None) -> None:
        """Note that `current` bytes of `total` are there."""


@dataclass(frozen=True, slots=True)
class HttpSource:
    """What to fetch.

    Attributes:
        url: where it is; a user and a password in it are sent as basic authorization.
        sha256: hexadecimal digest that its bytes must have; "" for whatever comes.
        authorization: value of the Authorization header; never shown, and sent to the URL's own host only.
    """

    url: str
    sha256: str = ""
    authorization: str = field(default="", repr=False)

    @property
    def host(self) -> str:
        """The host, with the port where one is given."""
        return urllib.parse.urlsplit(self.url).netloc.rpartition("@")[2]

    @property
    def shown(self) -> str:
        """The URL without user and password."""
        return shown_url(self.url)


@dataclass(frozen=True, slots=True)
class HttpFile:
    """A file that was fetched, or is known.

    Attributes:
        path: host path of its bytes, which never change.
        sha256: hexadecimal digest of its bytes.
        size: number of bytes.
        modified: what Last-Modified said, in seconds since 1970; 0 where it said nothing.
        fetched: whether its bytes were transferred just now.
        stale: why the server could not be asked whether it changed; "" where it was, or need not be.
    """

    path: str
    sha256: str
    size: int
    modified: int
    fetched: bool = False
    stale: str = ""


@dataclass(frozen=True, slots=True)
class _Note:
    """What is remembered of a URL."""

    sha256: str
    etag: str
    last_modified: str

    @property
    def seconds(self) -> int:
        try:
            return max(0, int(email.utils.parsedate_to_datetime(self.last_modified).timestamp()))
        except (ValueError, TypeError, IndexError, OverflowError):
            return 0


def shown_url(url: str) -> str:
    """Return a URL as messages show it: without user and password."""
    scheme, mark, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}{mark}{authority.rpartition('@')[2]}{slash}{path}"


def parse_checksum(text: str) -> str:
    """Return the hexadecimal digest of ``sha256:…``.

    Raises:
        ContextError: it is something else.
    """
    found = _CHECKSUM.fullmatch(text)
    if found is None:
        raise ContextError(
            f"the checksum {text!r} is not of the form sha256:…", hint="sha256sum gives the 64 hexadecimal digits"
        )
    return found[1]


class HttpCache:
    """Files by their URLs. Safe for several threads and processes: whoever is last is remembered.

    In the folder are ``blobs`` (files named by their SHA256) and ``urls`` (what a URL last gave).
    """

    def __init__(self, folder: str, new_file: Callable[[], io.FileIO], limit: int = MAX_BYTES) -> None:
        """Take the host path of the folder, what makes temporary files on its file system, and the largest size."""
        self._folder = folder
        self._new_file = new_file
        self._limit = limit

    def get(self, source: HttpSource, progress: Progress) -> HttpFile:
        """Return a file. One with a promised digest that is known is not asked for; any other always is.

        Where the server can't be reached, what it last gave counts, and the result says so.

        Raises:
            ContextError: the server refuses, can't be reached, breaks off, or gives too much.
            DigestMismatchError: the bytes are not the promised ones.
            StoreError: the folder can't be written.
        """
        _check_url(source)
        if source.sha256:
            known = self._blob(source.sha256)
            if known is not None:
                note = self._note(source)
                modified = note.seconds if note is not None and note.sha256 == source.sha256 else 0
                return HttpFile(known[0], source.sha256, known[1], modified)
        note = self._note(source)
        old = self._blob(note.sha256) if note is not None else None
        for attempt in range(_ATTEMPTS):
            try:
                return self._ask(source, note if old is not None else None, progress)
            except _TemporaryError as error:
                if attempt < _ATTEMPTS - 1 and error.again:
                    continue
                if note is None or old is None or source.sha256:
                    raise
                return HttpFile(old[0], note.sha256, old[1], note.seconds, stale=error.message)
        raise AssertionError  # The last attempt returns or raises.

    def _ask(self, source: HttpSource, note: _Note | None, progress: Progress) -> HttpFile:
        """Ask the server; `note` is what is known of the URL, with its bytes at hand."""
        conditional = note if note is not None and not source.sha256 else None
        with _open(source, conditional) as response:
            if response is not None:
                return self._receive(source, response, progress)
        assert conditional is not None
        known = self._blob(conditional.sha256)
        assert known is not None
        return HttpFile(known[0], conditional.sha256, known[1], conditional.seconds)

    def _receive(self, source: HttpSource, response: http.client.HTTPResponse, progress: Progress) -> HttpFile:
        """Take the answer into the folder, once its digest is right."""
        try:
            with self._new_file() as out:
                try:
                    sha256, size = self._copy(source, response, out, progress)
                    os.fchmod(out.fileno(), 0o644)
                    os.fsync(out.fileno())
                    path = self._keep(str(out.name), sha256)
                except BaseException:
                    with contextlib.suppress(OSError):
                        os.unlink(out.name)
                    raise
            note = _Note(sha256, response.headers.get("ETag", ""), response.headers.get("Last-Modified", ""))
            self._remember(source, note)
        except OSError as error:
            raise StoreError(f"{source.shown} can't be kept in {self._folder}: {error.strerror}") from error
        return HttpFile(path, sha256, size, note.seconds, fetched=True)

    def _copy(
        self, source: HttpSource, response: http.client.HTTPResponse, out: io.FileIO, progress: Progress
    ) -> tuple[str, int]:
        """Write the bytes of an answer; return their digest and number."""
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isascii() and length.isdigit() else None
        digest = hashlib.sha256()
        done = 0
        while chunk := _read(source, response):
            done += len(chunk)
            if max(done, total or 0) > self._limit:
                raise ContextError(f"{source.shown} has more than the {self._limit} bytes that are fetched")
            digest.update(chunk)
            _write(out, chunk)
            progress(done, total)
        if total is not None and done < total:
            raise _TemporaryError(f"{source.shown} broke off after {done} of {total} bytes", again=True)
        if source.sha256 and digest.hexdigest() != source.sha256:
            raise DigestMismatchError(
                f"{source.shown} has the checksum sha256:{digest.hexdigest()}, and not the promised one",
                expected=f"sha256:{source.sha256}",
                actual=f"sha256:{digest.hexdigest()}",
                hint="the file at that URL is another one: look at it before you change the checksum",
            )
        return digest.hexdigest(), done

    def _keep(self, temporary: str, sha256: str) -> str:
        """Give a file its name; where it is there already it stays, since somebody may be about to read it."""
        path = f"{self._folder}/blobs/{sha256}"
        os.makedirs(f"{self._folder}/blobs", exist_ok=True)
        try:
            os.link(temporary, path)
        except FileExistsError:
            if os.lstat(path).st_size != os.lstat(temporary).st_size:
                os.rename(temporary, path)
                return path
        os.unlink(temporary)
        return path

    def _blob(self, sha256: str) -> tuple[str, int] | None:
        path = f"{self._folder}/blobs/{sha256}"
        try:
            return path, os.lstat(path).st_size
        except OSError:
            return None

    def _note_path(self, source: HttpSource) -> str:
        return f"{self._folder}/urls/{hashlib.sha256(source.url.encode('utf-8', 'surrogateescape')).hexdigest()}"

    def _note(self, source: HttpSource) -> _Note | None:
        try:
            with open(self._note_path(source), "rb") as file:
                value = json.loads(file.read(_MAX_NOTE))
            note = _Note(value["sha256"], value["etag"], value["last_modified"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        fields = (note.sha256, note.etag, note.last_modified)
        return note if all(isinstance(text, str) for text in fields) and len(note.sha256) == 64 else None

    def _remember(self, source: HttpSource, note: _Note) -> None:
        path = self._note_path(source)
        os.makedirs(f"{self._folder}/urls", exist_ok=True)
        value = {"sha256": note.sha256, "etag": note.etag[:1024], "last_modified": note.last_modified[:256]}
        with self._new_file() as out:
            _write(out, json.dumps(value).encode())
            os.rename(str(out.name), path)


class _TemporaryError(ContextError):
    """The server could not answer this time; `again` says whether to ask once more at once."""

    def __init__(self, message: str, *, again: bool) -> None:
        super().__init__(message, hint="is the server up, and does this machine reach it?")
        self.again = again


def _check_url(source: HttpSource) -> None:
    """Refuse what is no http or https URL of a host, or holds what a request line can't.

    Raises:
        ContextError: it is not.
    """
    try:
        parts = urllib.parse.urlsplit(source.url)
        port_is_number = parts.port is None or parts.port > 0
    except ValueError as error:
        raise ContextError(f"{source.shown} is not a URL: {error}") from error
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname or not port_is_number:
        raise ContextError(f"{source.shown} is not an http or https URL")
    if any(ord(character) <= 0x20 or ord(character) == 0x7F for character in source.url):
        raise ContextError(f"{source.shown!r} holds a space or a control character", hint="write it as %20")


def _open(source: HttpSource, note: _Note | None) -> contextlib.AbstractContextManager[http.client.HTTPResponse | None]:
    """Send the request; the result is None inside where nothing changed since `note`.

    Raises:
        ContextError: the server refuses.
    """
    url, authorization = _without_user(source)
    request = urllib.request.Request(url, headers={"User-Agent": "castoff", "Accept-Encoding": "identity"})  # noqa: S310
    if note is not None and note.etag:
        request.add_header("If-None-Match", note.etag)
    elif note is not None and note.last_modified:
        request.add_header("If-Modified-Since", note.last_modified)
    if authorization:
        request.add_unredirected_header("Authorization", authorization)
    try:
        return _opener(authorization).open(request, timeout=STALL_SECONDS)  # type: ignore[no-any-return]
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 304 and note is not None:
            return contextlib.nullcontext(None)
        raise _refusal(source, error) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error) or type(error).__name__
        raise _TemporaryError(f"{source.shown} can't be reached: {reason}", again=False) from error


def _refusal(source: HttpSource, error: urllib.error.HTTPError) -> ContextError:
    text = f"{source.shown} gave the status {error.code} {error.reason}"
    if error.code >= 500 or error.code == 429:
        return _TemporaryError(text, again=True)
    if error.code in (401, 403, 407):
        return ContextError(
            text, hint=f"give the secret HTTP_AUTH_TOKEN_{source.host} or HTTP_AUTH_HEADER_{source.host}"
        )
    return ContextError(text)


def _without_user(source: HttpSource) -> tuple[str, str]:
    """Return the URL as it is asked for, its other characters quoted, and the authorization."""
    parts = urllib.parse.urlsplit(source.url)
    authorization = source.authorization
    if "@" in parts.netloc and not authorization:
        import base64

        user = urllib.parse.unquote_to_bytes(parts.netloc.rpartition("@")[0])
        authorization = "Basic " + base64.b64encode(user).decode("ascii")
    path = urllib.parse.quote(parts.path, safe="/%:@!$&'()*+,;=~", errors="surrogateescape")
    query = urllib.parse.quote(parts.query, safe="/%:@!$&'()*+,;=~?", errors="surrogateescape")
    return urllib.parse.urlunsplit((parts.scheme.lower(), source.host, path or "/", query, "")), authorization


def _opener(authorization: str) -> urllib.request.OpenerDirector:
    """Return what knows http and https, the environment's proxies, and nothing else."""
    opener = urllib.request.OpenerDirector()
    handlers = (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirections(authorization),
    )
    for handler in handlers:
        opener.add_handler(handler)
    return opener


class _Redirections(urllib.request.HTTPRedirectHandler):
    """Follows some redirections, to http and https, never from https to http; takes credentials along on one host."""

    max_redirections = MAX_REDIRECTIONS
    max_repeats = 4

    def __init__(self, authorization: str) -> None:
        self._authorization = authorization

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
        parts = urllib.parse.urlsplit(newurl)
        if parts.scheme not in ("http", "https") or (req.type == "https" and parts.scheme == "http"):
            raise urllib.error.HTTPError(newurl, code, f"redirection to {parts.scheme} refused", headers, None)
        following = super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]
        here = (req.type, req.host)
        sent = self._authorization and req.get_header("Authorization") == self._authorization
        if following is not None and sent and here == (following.type, following.host):
            following.add_unredirected_header("Authorization", self._authorization)
        return following


def _read(source: HttpSource, response: BinaryIO | http.client.HTTPResponse) -> bytes:
    try:
        return response.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        reason = str(error) or type(error).__name__
        raise _TemporaryError(f"the download of {source.shown} broke off: {reason}", again=True) from error


def _write(out: io.FileIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[out.write(view) or 0 :]
