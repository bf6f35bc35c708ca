"""The distribution specification (version 1.1) as a function from requests to answers.

Content discovery, pull and push of blobs and manifests, deletion, referrers; and Docker's ``_catalog``.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote

from castoff.errors import DigestMismatchError, InvalidReferenceError, StoreError
from castoff.oci.digest import Digest
from castoff.oci.jsontext import MAX_DOCUMENT, dump
from castoff.oci.mediatypes import OCI_INDEX
from castoff.registry.server.documents import read_document
from castoff.registry.server.failures import RefusalError
from castoff.registry.server.repositories import StoredManifest
from castoff.registry.server.uploads import Uploads
from castoff.registry.server.wire import Request, Response, parse_content_range, parse_range

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from castoff.registry.server.repositories import Repositories
    from castoff.registry.server.uploads import Upload

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
_ROUTES = (
    (re.compile(r"/v2/?"), "base"),
    (re.compile(r"/v2/_catalog"), "catalog"),
    (re.compile(r"/v2/(?P<name>.+)/blobs/uploads/?"), "uploads"),
    (re.compile(r"/v2/(?P<name>.+)/blobs/uploads/(?P<ref>[0-9a-f]{32})"), "upload"),
    (re.compile(r"/v2/(?P<name>.+)/blobs/(?P<ref>[^/]+)"), "blob"),
    (re.compile(r"/v2/(?P<name>.+)/manifests/(?P<ref>[^/]+)"), "manifest"),
    (re.compile(r"/v2/(?P<name>.+)/tags/list"), "tags"),
    (re.compile(r"/v2/(?P<name>.+)/referrers/(?P<ref>[^/]+)"), "referrers"),
)
_MAX_NAME = 255
_PAGE = 1000
_DIGEST_HEADER = "Docker-Content-Digest"
_VERSION = (("Docker-Distribution-API-Version", "registry/2.0"),)
_JSON = (("Content-Type", "application/json"),)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a registry takes.

    Attributes:
        blob: bytes of a blob.
        manifest: bytes of a manifest.
        read_only: whether it takes nothing at all.
    """

    blob: int = 1 << 40
    manifest: int = MAX_DOCUMENT
    read_only: bool = False


class RegistryApi:
    """Answers the requests of a registry. Safe for several threads."""

    def __init__(self, repositories: Repositories, limits: Limits | None = None) -> None:
        """Take what is served, and what is taken."""
        self._repositories = repositories
        self._limits = limits or Limits()
        self._uploads = Uploads(repositories.blobs.writer)

    def close(self) -> None:
        """Throw away the uploads that have not ended."""
        self._uploads.close()

    def handle(self, request: Request) -> Response:
        """Return the answer to a request; whatever is wrong with it is an answer too.

        Raises:
            ConnectionError: the body ended too early: there is nobody to answer.
            StoreError: the store can't be read or written.
        """
        try:
            response = self._route(request)
        except RefusalError as error:
            response = Response(error.status, (*_JSON, *error.headers), error.body())
        return replace(response, headers=(*_VERSION, *response.headers))

    def _route(self, request: Request) -> Response:
        for pattern, kind in _ROUTES:
            match = pattern.fullmatch(request.path)
            if match is None:
                continue
            action = self._actions(kind).get("GET" if request.method == "HEAD" else request.method)
            if action is None:
                allowed = ", ".join(self._actions(kind))
                raise RefusalError("UNSUPPORTED", "there is no such operation", headers=(("Allow", allowed),))
            if self._limits.read_only and request.method not in ("GET", "HEAD"):
                raise RefusalError("DENIED", "this registry is read-only")
            groups = match.groupdict()
            return action(request, _checked_name(groups.get("name")), groups.get("ref") or "")
        raise RefusalError("NAME_UNKNOWN", "there is nothing at this path")

    def _actions(self, kind: str) -> dict[str, Callable[[Request, str, str], Response]]:
        actions: dict[str, dict[str, Callable[[Request, str, str], Response]]] = {
            "base": {"GET": self._base},
            "catalog": {"GET": self._catalog},
            "uploads": {"POST": self._begin_upload},
            "upload": {
                "GET": self._upload_status,
                "PATCH": self._append,
                "PUT": self._finish_upload,
                "DELETE": self._cancel_upload,
            },
            "blob": {"GET": self._get_blob, "DELETE": self._delete_blob},
            "manifest": {"GET": self._get_manifest, "PUT": self._put_manifest, "DELETE": self._delete_manifest},
            "tags": {"GET": self._tags},
            "referrers": {"GET": self._referrers},
        }
        return actions[kind]

    def _base(self, request: Request, name: str, ref: str) -> Response:
        del request, name, ref
        return Response(200, _JSON, b"{}")

    def _catalog(self, request: Request, name: str, ref: str) -> Response:
        del name, ref
        names, link = _page(request, self._repositories.repositories(), "/v2/_catalog")
        return Response(200, (*_JSON, *link), dump({"repositories": names}))

    def _tags(self, request: Request, name: str, ref: str) -> Response:
        del ref
        if not self._repositories.exists(name):
            raise RefusalError("NAME_UNKNOWN", f"there is no repository {name}")
        tags, link = _page(request, self._repositories.tags(name), f"/v2/{name}/tags/list")
        return Response(200, (*_JSON, *link), dump({"name": name, "tags": tags}))

    def _referrers(self, request: Request, name: str, ref: str) -> Response:
        found = self._repositories.referrers(name, _digest(ref))
        wanted = request.query.get("artifactType")
        headers: tuple[tuple[str, str], ...] = (("Content-Type", OCI_INDEX),)
        if wanted:
            found = [one for one in found if one.artifact_type == wanted]
            headers = (*headers, ("OCI-Filters-Applied", "artifactType"))
        value = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [one.to_json() for one in found]}
        return Response(200, headers, dump(value))

    def _get_blob(self, request: Request, name: str, ref: str) -> Response:
        digest = _digest(ref)
        size = self._repositories.blob_size(name, digest)
        if size is None:
            raise RefusalError("BLOB_UNKNOWN", f"the repository {name} has no blob {digest}")
        headers = _content(digest, "application/octet-stream")
        if _is_known(request, digest):
            return Response(304, headers)
        headers = (*headers, ("Accept-Ranges", "bytes"))
        span = parse_range(request.header("Range"), size)
        if span is not None and request.header("If-Range") in ("", f'"{digest}"'):
            first, count = span
            ranged = ("Content-Range", f"bytes {first}-{first + count - 1}/{size}")
            return Response(206, (*headers, ranged), file=self._open(request, digest), span=span)
        return Response(200, headers, file=self._open(request, digest), span=(0, size))

    def _open(self, request: Request, digest: Digest) -> BinaryIO | None:
        return None if request.method == "HEAD" else self._repositories.blobs.open_(digest)

    def _delete_blob(self, request: Request, name: str, ref: str) -> Response:
        del request
        if not self._repositories.remove_blob(name, _digest(ref)):
            raise RefusalError("BLOB_UNKNOWN", f"the repository {name} has no blob {ref}")
        return Response(202)

    def _begin_upload(self, request: Request, name: str, ref: str) -> Response:
        del ref
        query = request.query
        if "mount" in query:
            digest = _digest(query["mount"])
            source = _checked_name(query["from"]) if "from" in query else None
            if self._repositories.mount(name, digest, source):
                return _created(f"/v2/{name}/blobs/{digest}", digest)
        upload = self._uploads.begin(name)
        if "digest" not in query:
            return self._accepted(upload)
        try:
            return self._complete(request, upload, query["digest"])
        finally:
            self._uploads.end(upload)

    def _upload_status(self, request: Request, name: str, ref: str) -> Response:
        del request
        return self._accepted(self._uploads.find(name, ref), 204)

    def _append(self, request: Request, name: str, ref: str) -> Response:
        upload = self._uploads.find(name, ref)
        with upload.working(), self._kept_while_whole(upload):
            self._take(request, upload)
        return self._accepted(upload)

    def _finish_upload(self, request: Request, name: str, ref: str) -> Response:
        upload = self._uploads.find(name, ref)
        with upload.working(), self._kept_while_whole(upload):
            response = self._complete(request, upload, request.query.get("digest", ""))
        self._uploads.end(upload)
        return response

    def _cancel_upload(self, request: Request, name: str, ref: str) -> Response:
        del request
        upload = self._uploads.find(name, ref)
        with upload.working():
            self._uploads.end(upload)
        return Response(204)

    @contextmanager
    def _kept_while_whole(self, upload: Upload) -> Iterator[None]:
        """Throw an upload away where the store could not take what came: nothing can go on there."""
        try:
            yield
        except StoreError:
            self._uploads.end(upload)
            raise

    def _complete(self, request: Request, upload: Upload, text: str) -> Response:
        """Take the last bytes of an upload and make a blob of it. Where the digest is wrong, all is thrown away."""
        digest = _digest(text)
        self._take(request, upload)
        try:
            self._repositories.add_blob(upload.repository, upload.writer, digest)
        except DigestMismatchError as error:
            self._uploads.end(upload)
            raise RefusalError("DIGEST_INVALID", f"the bytes have the digest {error.actual}") from error
        return _created(f"/v2/{upload.repository}/blobs/{digest}", digest)

    def _take(self, request: Request, upload: Upload) -> None:
        """Append the body of a request, whose Content-Range, where it has one, must go on where the upload stands.

        Raises:
            RefusalError: it does not, or is larger than it says.
        """
        text, length = request.header("Content-Range"), request.body.length
        if text and length != 0:
            first, last = parse_content_range(text)
            if first != upload.offset:
                raise RefusalError(
                    "BLOB_UPLOAD_INVALID",
                    f"the upload has {upload.offset} bytes",
                    status=416,
                    headers=_progress(upload),
                )
            if length is not None and length != last - first + 1:
                raise RefusalError("SIZE_INVALID", "the body has not the size that its Content-Range says")
        upload.append(request.body.blocks(), self._limits.blob)

    def _accepted(self, upload: Upload, status: int = 202) -> Response:
        return Response(status, (*_progress(upload), ("Docker-Upload-UUID", upload.id)))

    def _get_manifest(self, request: Request, name: str, ref: str) -> Response:
        manifest = self._repositories.manifest(name, self._resolve(name, ref))
        if manifest is None:
            raise _no_manifest(name, ref)
        headers = _content(manifest.digest, manifest.media_type)
        if _is_known(request, manifest.digest):
            return Response(304, headers)
        return Response(200, headers, manifest.data)

    def _resolve(self, name: str, ref: str) -> Digest:
        """Return the digest that a tag or a digest means."""
        if ":" in ref:
            return _digest(ref)
        if not _TAG.fullmatch(ref):
            raise RefusalError("MANIFEST_INVALID", f"{ref[:64]!r} is neither a tag nor a digest")
        digest = self._repositories.tagged(name, ref)
        if digest is None:
            raise _no_manifest(name, ref)
        return digest

    def _put_manifest(self, request: Request, name: str, ref: str) -> Response:
        digest = _digest(ref) if ":" in ref else None
        if digest is None and not _TAG.fullmatch(ref):
            raise RefusalError("MANIFEST_INVALID", f"{ref[:64]!r} is neither a tag nor a digest")
        data = request.content(self._limits.manifest)
        actual = _digest_of(data, digest)
        document = read_document(data, request.header("Content-Type"), actual)
        for wanted in document.blobs:
            if self._repositories.blob_size(name, wanted) is None:
                raise RefusalError("MANIFEST_BLOB_UNKNOWN", f"the repository {name} has no blob {wanted}")
        for wanted in document.manifests:
            if not self._repositories.has_manifest(name, wanted):
                raise RefusalError("MANIFEST_BLOB_UNKNOWN", f"the repository {name} has no manifest {wanted}")
        manifest = StoredManifest(document.media_type, actual, data)
        self._repositories.put_manifest(name, manifest, document.subject, document.descriptor)
        if digest is None:
            self._repositories.tag(name, ref, actual)
        response = _created(f"/v2/{name}/manifests/{actual}", actual)
        if document.subject is not None:
            response = replace(response, headers=(*response.headers, ("OCI-Subject", str(document.subject))))
        return response

    def _delete_manifest(self, request: Request, name: str, ref: str) -> Response:
        del request
        if ":" not in ref:
            if not _TAG.fullmatch(ref) or not self._repositories.untag(name, ref):
                raise _no_manifest(name, ref)
            return Response(202)
        digest = _digest(ref)
        manifest = self._repositories.manifest(name, digest)
        if manifest is None:
            raise _no_manifest(name, ref)
        try:
            subject = read_document(manifest.data, manifest.media_type, digest).subject
        except RefusalError:
            subject = None
        self._repositories.remove_manifest(name, digest, subject)
        return Response(202)


def _checked_name(name: str | None) -> str:
    if name is None:
        return ""
    if len(name) > _MAX_NAME or not _NAME.fullmatch(name):
        raise RefusalError("NAME_INVALID", f"{name[:_MAX_NAME]!r} is not the name of a repository")
    return name


def _digest(text: str) -> Digest:
    try:
        return Digest.parse(text)
    except InvalidReferenceError as error:
        raise RefusalError("DIGEST_INVALID", error.message[:512]) from error


def _digest_of(data: bytes, expected: Digest | None) -> Digest:
    """Return the digest of a manifest, in the algorithm of the one that it should have."""
    import hashlib

    algorithm = expected.algorithm if expected else "sha256"
    actual = Digest(algorithm, hashlib.new(algorithm, data).hexdigest())
    if expected is not None and actual != expected:
        raise RefusalError("DIGEST_INVALID", f"the bytes of the manifest have the digest {actual}")
    return actual


def _no_manifest(name: str, ref: str) -> RefusalError:
    return RefusalError("MANIFEST_UNKNOWN", f"the repository {name} has no manifest {ref[:200]}")


def _content(digest: Digest, media_type: str) -> tuple[tuple[str, str], ...]:
    return (("Content-Type", media_type), (_DIGEST_HEADER, str(digest)), ("ETag", f'"{digest}"'))


def _is_known(request: Request, digest: Digest) -> bool:
    return f'"{digest}"' in request.header("If-None-Match")


def _created(location: str, digest: Digest) -> Response:
    return Response(201, (("Location", location), (_DIGEST_HEADER, str(digest))))


def _progress(upload: Upload) -> tuple[tuple[str, str], ...]:
    """Return where an upload goes on, and its range: an empty one has ``0-0``, which is all that can be said of it."""
    last = max(upload.offset - 1, 0)
    return (("Location", f"/v2/{upload.repository}/blobs/uploads/{upload.id}"), ("Range", f"0-{last}"))


def _page(request: Request, names: list[str], path: str) -> tuple[list[str], tuple[tuple[str, str], ...]]:
    """Return the part of a sorted list that ``n`` and ``last`` ask for, and the header that leads to the next one."""
    last, text = request.query.get("last", ""), request.query.get("n", "")
    if text and not (text.isascii() and text.isdigit() and len(text) < 10):
        raise RefusalError("UNSUPPORTED", "n is no number", status=400)
    count = int(text) if text else _PAGE
    if last:
        names = [name for name in names if name > last]
    chosen = names[:count]
    if len(names) <= count or not chosen:
        return chosen, ()
    return chosen, (("Link", f'<{path}?n={count}&last={quote(chosen[-1], safe="")}>; rel="next"'),)
