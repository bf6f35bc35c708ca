"""The registry's answers, request by request, in memory and in a folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from castoff.errors import StoreError
from castoff.oci.mediatypes import OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST
from castoff.registry.server import Limits, RegistryApi, Repositories, in_folder, in_memory
from castoff.registry.server.uploads import Uploads
from castoff.registry.server.wire import Request, Response


class Bytes:
    """A body whose bytes are at hand; `cut` breaks off after so many."""

    def __init__(self, data: bytes, *, sized: bool = True, cut: int | None = None) -> None:
        self._data = data
        self._cut = cut
        self.length = len(data) if sized else None

    def blocks(self) -> Iterator[bytes]:
        """Yield the bytes."""
        yield self._data if self._cut is None else self._data[: self._cut]
        if self._cut is not None:
            raise ConnectionError("cut")


class Client:
    """Asks an API."""

    def __init__(self, api: RegistryApi) -> None:
        self.api = api

    def __call__(self, method: str, path: str, body: bytes | Bytes = b"", **headers: str) -> Response:
        """Return the answer."""
        path, _, text = path.partition("?")
        query = dict(item.partition("=")[::2] for item in text.split("&")) if text else {}
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.api.handle(Request(method, path, query, names, Bytes(body) if isinstance(body, bytes) else body))

    def blob(self, data: bytes, name: str = "a/b") -> str:
        """Push a blob and return its digest."""
        digest = sha256(data)
        assert self("POST", f"/v2/{name}/blobs/uploads/?digest={digest}", data).status == 201
        return digest

    def image(self, tag: str = "1", name: str = "a/b", **fields: Any) -> str:
        """Push a small image and return the digest of its manifest."""
        layer, config = b"layer", b"{}"
        self.blob(layer, name)
        self.blob(config, name)
        data = json.dumps(manifest(config, [layer], **fields)).encode()
        response = self("PUT", f"/v2/{name}/manifests/{tag}", data, Content_Type=OCI_MANIFEST)
        assert response.status == 201, response.body
        return sha256(data)


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": sha256(data), "size": len(data)}


def manifest(config: bytes, layers: list[bytes], **fields: Any) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(OCI_CONFIG, config),
        "layers": [descriptor(OCI_LAYER_GZIP, layer) for layer in layers],
        **fields,
    }


def header(response: Response, name: str) -> str:
    return dict(response.headers).get(name, "")


def code(response: Response) -> tuple[int, str]:
    return response.status, json.loads(response.body)["errors"][0]["code"]


def content(response: Response) -> bytes:
    assert response.file is not None
    with response.file as file:
        file.seek(response.span[0])
        return file.read(response.span[1])


@pytest.fixture(params=["memory", "folder"])
def repositories(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Repositories]:
    with contextlib.ExitStack() as stack:
        yield in_memory() if request.param == "memory" else stack.enter_context(in_folder(str(tmp_path / "registry")))


@pytest.fixture
def ask(repositories: Repositories) -> Iterator[Client]:
    api = RegistryApi(repositories)
    yield Client(api)
    api.close()


def test_the_base_answers(ask: Client) -> None:
    response = ask("GET", "/v2/")
    assert response.status == 200
    assert header(response, "Docker-Distribution-API-Version") == "registry/2.0"


def test_a_monolithic_post_is_a_blob(ask: Client) -> None:
    digest = ask.blob(b"hello")
    response = ask("GET", f"/v2/a/b/blobs/{digest}")
    assert (response.status, content(response)) == (200, b"hello")
    assert header(response, "Docker-Content-Digest") == digest
    assert ask("HEAD", f"/v2/a/b/blobs/{digest}").length == 5


def test_a_blob_of_sha512(ask: Client) -> None:
    digest = f"sha512:{hashlib.sha512(b'hello').hexdigest()}"
    assert ask("POST", f"/v2/a/b/blobs/uploads/?digest={digest}", b"hello").status == 201
    assert content(ask("GET", f"/v2/a/b/blobs/{digest}")) == b"hello"


def test_post_then_put(ask: Client) -> None:
    begun = ask("POST", "/v2/a/b/blobs/uploads/")
    assert begun.status == 202
    done = ask("PUT", f"{header(begun, 'Location')}?digest={sha256(b'hello')}", b"hello")
    assert (done.status, header(done, "Location")) == (201, f"/v2/a/b/blobs/{sha256(b'hello')}")


def test_chunks_in_order(ask: Client) -> None:
    place = header(ask("POST", "/v2/a/b/blobs/uploads/"), "Location")
    first = ask("PATCH", place, b"hel", Content_Range="0-2")
    assert (first.status, header(first, "Range")) == (202, "0-2")
    assert header(ask("GET", place), "Range") == "0-2"
    assert ask("PATCH", place, Bytes(b"lo", sized=False)).status == 202
    assert ask("PUT", f"{place}?digest={sha256(b'hello!')}", b"!", Content_Range="5-5").status == 201
    assert content(ask("GET", f"/v2/a/b/blobs/{sha256(b'hello!')}")) == b"hello!"
    assert code(ask("GET", place)) == (404, "BLOB_UPLOAD_UNKNOWN")


def test_a_chunk_out_of_order_is_told_where_to_go_on(ask: Client) -> None:
    place = header(ask("POST", "/v2/a/b/blobs/uploads/"), "Location")
    ask("PATCH", place, b"hel", Content_Range="0-2")
    wrong = ask("PATCH", place, b"xx", Content_Range="7-8")
    assert (wrong.status, header(wrong, "Range"), header(wrong, "Location")) == (416, "0-2", place)
    assert ask("PATCH", place, b"x", Content_Range="3-4").status == 400
    assert ask("PATCH", place, b"x", Content_Range="3-2").status == 400


def test_an_upload_that_broke_off_goes_on_where_it_stands(ask: Client) -> None:
    place = header(ask("POST", "/v2/a/b/blobs/uploads/"), "Location")
    with pytest.raises(ConnectionError):
        ask("PATCH", place, Bytes(b"hello", cut=2), Content_Range="0-4")
    assert header(ask("GET", place), "Range") == "0-1"
    assert ask("PUT", f"{place}?digest={sha256(b'hello')}", b"llo", Content_Range="2-4").status == 201


def test_a_wrong_digest_stores_nothing(ask: Client, repositories: Repositories) -> None:
    place = header(ask("POST", "/v2/a/b/blobs/uploads/"), "Location")
    wrong = ask("PUT", f"{place}?digest={sha256(b'other')}", b"hello")
    assert code(wrong) == (400, "DIGEST_INVALID")
    assert list(repositories.blobs) == []
    assert code(ask("POST", "/v2/a/b/blobs/uploads/?digest=sha256:xyz", b"x")) == (400, "DIGEST_INVALID")


def test_an_upload_can_be_cancelled(ask: Client) -> None:
    place = header(ask("POST", "/v2/a/b/blobs/uploads/"), "Location")
    assert ask("DELETE", place).status == 204
    assert ask("PATCH", place, b"x").status == 404


def test_an_upload_is_of_one_repository(ask: Client) -> None:
    place = header(ask("POST", "/v2/a/b/blobs/uploads/"), "Location")
    assert ask("PATCH", place.replace("/a/b/", "/a/c/"), b"x").status == 404


def test_mounting(ask: Client) -> None:
    digest = ask.blob(b"hello", "one")
    mounted = ask("POST", f"/v2/two/blobs/uploads/?mount={digest}&from=one")
    assert (mounted.status, header(mounted, "Location")) == (201, f"/v2/two/blobs/{digest}")
    assert ask("HEAD", f"/v2/two/blobs/{digest}").status == 200
    assert ask("POST", f"/v2/two/blobs/uploads/?mount={sha256(b'no')}&from=one").status == 202
    assert ask("POST", f"/v2/three/blobs/uploads/?mount={digest}&from=absent").status == 202
    assert code(ask("HEAD", f"/v2/three/blobs/{digest}")) == (404, "BLOB_UNKNOWN")


def test_mounting_from_wherever_it_is(ask: Client) -> None:
    ask.image(name="one")
    assert ask("POST", f"/v2/two/blobs/uploads/?mount={sha256(b'layer')}").status == 201


@pytest.mark.parametrize(
    ("text", "status", "expected"),
    [
        ("bytes=0-3", 206, b"0123"),
        ("bytes=8-", 206, b"89"),
        ("bytes=-3", 206, b"789"),
        ("bytes=4-99", 206, b"4567" + b"89"),
        ("bytes=10-", 416, b""),
        ("bytes=-0", 416, b""),
        ("bytes=5-4", 200, b"0123456789"),
        ("bytes=0-1,3-4", 200, b"0123456789"),
        ("lines=0-1", 200, b"0123456789"),
    ],
)
def test_ranges(ask: Client, text: str, status: int, expected: bytes) -> None:
    digest = ask.blob(b"0123456789")
    response = ask("GET", f"/v2/a/b/blobs/{digest}", Range=text)
    assert response.status == status
    if status == 416:
        assert header(response, "Content-Range") == "bytes */10"
    else:
        assert content(response) == expected
        assert ask("HEAD", f"/v2/a/b/blobs/{digest}", Range=text).length == len(expected)


def test_what_a_client_has_is_not_sent(ask: Client) -> None:
    digest = ask.image()
    assert ask("GET", "/v2/a/b/manifests/1", If_None_Match=f'"{digest}"').status == 304
    blob = sha256(b"layer")
    assert ask("GET", f"/v2/a/b/blobs/{blob}", If_None_Match=f'"{blob}"').status == 304


def test_a_manifest_comes_back_as_it_was_put(ask: Client) -> None:
    digest = ask.image("v1")
    for reference in ("v1", digest):
        response = ask("GET", f"/v2/a/b/manifests/{reference}")
        assert (sha256(response.body), header(response, "Content-Type")) == (digest, OCI_MANIFEST)
        assert header(ask("HEAD", f"/v2/a/b/manifests/{reference}"), "Docker-Content-Digest") == digest


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"config": descriptor(OCI_CONFIG, b"absent")}, "MANIFEST_BLOB_UNKNOWN"),
        ({"layers": [descriptor(OCI_LAYER_GZIP, b"absent")]}, "MANIFEST_BLOB_UNKNOWN"),
        ({"schemaVersion": 1}, "MANIFEST_INVALID"),
        ({"mediaType": "text/plain"}, "MANIFEST_INVALID"),
        ({"mediaType": OCI_INDEX, "manifests": []}, "MANIFEST_INVALID"),
        ({"layers": "none"}, "MANIFEST_INVALID"),
        ({"config": None}, "MANIFEST_INVALID"),
        ({"subject": {"mediaType": OCI_MANIFEST, "digest": "sha256:1", "size": 1}}, "MANIFEST_INVALID"),
        ({"layers": [{"mediaType": OCI_LAYER_GZIP, "digest": "md5:00", "size": 1}]}, "MANIFEST_INVALID"),
    ],
)
def test_manifests_that_are_refused(ask: Client, change: dict[str, Any], expected: str) -> None:
    ask.image()
    data = json.dumps(manifest(b"{}", [b"layer"]) | change).encode()
    assert code(ask("PUT", "/v2/a/b/manifests/2", data, Content_Type=OCI_MANIFEST)) == (400, expected)
    assert ask("GET", "/v2/a/b/manifests/2").status == 404


def test_a_layer_from_elsewhere_need_not_be_here(ask: Client) -> None:
    ask.blob(b"{}")
    far = descriptor(OCI_LAYER_GZIP, b"far") | {"urls": ["https://example.com/far"]}
    data = json.dumps(manifest(b"{}", []) | {"layers": [far]}).encode()
    assert ask("PUT", "/v2/a/b/manifests/2", data, Content_Type=OCI_MANIFEST).status == 201


def test_an_index_needs_its_manifests(ask: Client) -> None:
    inner = ask.image()
    entry = {"mediaType": OCI_MANIFEST, "digest": inner, "size": 10}
    value = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}
    assert ask("PUT", "/v2/a/b/manifests/i", json.dumps(value).encode(), Content_Type=OCI_INDEX).status == 201
    value["manifests"] = [entry | {"digest": sha256(b"absent")}]
    answer = ask("PUT", "/v2/a/b/manifests/i", json.dumps(value).encode(), Content_Type=OCI_INDEX)
    assert code(answer) == (400, "MANIFEST_BLOB_UNKNOWN")


def test_a_manifest_must_have_its_digest(ask: Client) -> None:
    ask.image()
    data = json.dumps(manifest(b"{}", [b"layer"], annotations={"a": "b"})).encode()
    wrong = ask("PUT", f"/v2/a/b/manifests/{sha256(b'x')}", data, Content_Type=OCI_MANIFEST)
    assert code(wrong) == (400, "DIGEST_INVALID")
    assert ask("PUT", f"/v2/a/b/manifests/{sha256(data)}", data, Content_Type=OCI_MANIFEST).status == 201


def test_a_manifest_that_is_too_large(repositories: Repositories) -> None:
    ask = Client(RegistryApi(repositories, Limits(manifest=100, blob=10)))
    assert code(ask("PUT", "/v2/a/manifests/1", b"x" * 101)) == (413, "SIZE_INVALID")
    assert code(ask("PUT", "/v2/a/manifests/1", Bytes(b"x" * 101, sized=False))) == (413, "SIZE_INVALID")
    assert code(ask("POST", f"/v2/a/blobs/uploads/?digest={sha256(b'x' * 11)}", b"x" * 11)) == (413, "SIZE_INVALID")


def test_tags_in_pages(ask: Client) -> None:
    for tag in ("b", "a", "d", "c"):
        ask.image(tag)
    assert json.loads(ask("GET", "/v2/a/b/tags/list").body) == {"name": "a/b", "tags": ["a", "b", "c", "d"]}
    first = ask("GET", "/v2/a/b/tags/list?n=3")
    assert json.loads(first.body)["tags"] == ["a", "b", "c"]
    assert header(first, "Link") == '</v2/a/b/tags/list?n=3&last=c>; rel="next"'
    last = ask("GET", "/v2/a/b/tags/list?n=3&last=c")
    assert (json.loads(last.body)["tags"], header(last, "Link")) == (["d"], "")
    assert json.loads(ask("GET", "/v2/a/b/tags/list?n=0").body)["tags"] == []
    assert code(ask("GET", "/v2/a/absent/tags/list")) == (404, "NAME_UNKNOWN")
    assert ask("GET", "/v2/a/b/tags/list?n=-1").status == 400


def test_the_catalog(ask: Client) -> None:
    for name in ("b/c", "a", "a/b"):
        ask.image(name=name)
    ask.blob(b"only a blob", "z")
    assert json.loads(ask("GET", "/v2/_catalog").body) == {"repositories": ["a", "a/b", "b/c"]}
    assert json.loads(ask("GET", "/v2/_catalog?n=1&last=a").body) == {"repositories": ["a/b"]}


def test_deleting_a_tag_leaves_the_manifest(ask: Client) -> None:
    digest = ask.image("1")
    assert ask("DELETE", "/v2/a/b/manifests/1").status == 202
    assert ask("GET", "/v2/a/b/manifests/1").status == 404
    assert ask("GET", f"/v2/a/b/manifests/{digest}").status == 200


def test_deleting_a_manifest_takes_its_tags_along(ask: Client) -> None:
    digest = ask.image("1")
    ask.image("2")
    assert ask("DELETE", f"/v2/a/b/manifests/{digest}").status == 202
    assert ask("GET", f"/v2/a/b/manifests/{digest}").status == 404
    assert json.loads(ask("GET", "/v2/a/b/tags/list").body)["tags"] == []
    assert code(ask("DELETE", f"/v2/a/b/manifests/{digest}")) == (404, "MANIFEST_UNKNOWN")


def test_bytes_go_with_the_last_repository_that_has_them(ask: Client, repositories: Repositories) -> None:
    digest = ask.blob(b"shared", "one")
    ask("POST", f"/v2/two/blobs/uploads/?mount={digest}&from=one")
    assert ask("DELETE", f"/v2/one/blobs/{digest}").status == 202
    assert ask("HEAD", f"/v2/one/blobs/{digest}").status == 404
    assert content(ask("GET", f"/v2/two/blobs/{digest}")) == b"shared"
    ask("DELETE", f"/v2/two/blobs/{digest}")
    assert list(repositories.blobs) == []
    assert ask("DELETE", f"/v2/two/blobs/{digest}").status == 404


def test_referrers(ask: Client) -> None:
    subject = ask.image("1")
    entry = {"mediaType": OCI_MANIFEST, "digest": subject, "size": 10}
    one = ask.image("s1", subject=entry, artifactType="application/vnd.one", annotations={"k": "v"})
    two = ask.image("s2", subject=entry)
    found = json.loads(ask("GET", f"/v2/a/b/referrers/{subject}").body)
    by_digest = {item["digest"]: item for item in found["manifests"]}
    assert set(by_digest) == {one, two}
    assert by_digest[one]["artifactType"] == "application/vnd.one"
    assert by_digest[one]["annotations"] == {"k": "v"}
    assert by_digest[two]["artifactType"] == OCI_CONFIG
    filtered = ask("GET", f"/v2/a/b/referrers/{subject}?artifactType=application/vnd.one")
    assert [item["digest"] for item in json.loads(filtered.body)["manifests"]] == [one]
    assert header(filtered, "OCI-Filters-Applied") == "artifactType"
    ask("DELETE", f"/v2/a/b/manifests/{one}")
    assert len(json.loads(ask("GET", f"/v2/a/b/referrers/{subject}").body)["manifests"]) == 1
    assert json.loads(ask("GET", f"/v2/a/b/referrers/{sha256(b'absent')}").body)["manifests"] == []


def test_putting_a_referrer_says_so(ask: Client) -> None:
    ask.image()
    entry = {"mediaType": OCI_MANIFEST, "digest": sha256(b"not here yet"), "size": 10}
    data = json.dumps(manifest(b"{}", [b"layer"], subject=entry)).encode()
    response = ask("PUT", "/v2/a/b/manifests/s", data, Content_Type=OCI_MANIFEST)
    assert header(response, "OCI-Subject") == entry["digest"]


@pytest.mark.parametrize(
    "path",
    [
        "/v2/../../etc/passwd/blobs/" + sha256(b""),
        "/v2/a/../b/manifests/1",
        "/v2/A/manifests/1",
        "/v2/_x/manifests/1",
        "/v2/a//b/manifests/1",
        "/v2/a\0/manifests/1",
        "/v2/" + "a/" * 200 + "a/manifests/1",
        "/v2/a/b/_manifests/x/tags/list",
    ],
)
def test_names_that_are_none(ask: Client, path: str) -> None:
    assert code(ask("GET", path)) == (400, "NAME_INVALID")


@pytest.mark.parametrize("ref", ["..", "-x", "a" * 129, "x y", "\N{LATIN SMALL LETTER E WITH ACUTE}"])
def test_tags_that_are_none(ask: Client, ref: str) -> None:
    assert code(ask("GET", f"/v2/a/manifests/{ref}")) == (400, "MANIFEST_INVALID")
    assert code(ask("PUT", f"/v2/a/manifests/{ref}", b"{}")) == (400, "MANIFEST_INVALID")


def test_methods_and_paths_that_are_not_there(ask: Client) -> None:
    wrong = ask("POST", "/v2/a/tags/list")
    assert (*code(wrong), header(wrong, "Allow")) == (405, "UNSUPPORTED", "GET")
    assert code(ask("GET", "/v2/a/b/other")) == (404, "NAME_UNKNOWN")
    assert code(ask("GET", "/")) == (404, "NAME_UNKNOWN")


def test_a_read_only_registry(repositories: Repositories) -> None:
    Client(RegistryApi(repositories)).image()
    ask = Client(RegistryApi(repositories, Limits(read_only=True)))
    assert ask("GET", "/v2/a/b/manifests/1").status == 200
    assert code(ask("POST", "/v2/a/b/blobs/uploads/")) == (403, "DENIED")
    assert code(ask("DELETE", "/v2/a/b/manifests/1")) == (403, "DENIED")


def test_only_one_request_works_on_an_upload(ask: Client) -> None:
    place = header(ask("POST", "/v2/a/b/blobs/uploads/"), "Location")

    class Nested:
        length = None

        def blocks(self) -> Iterator[bytes]:
            yield b"a"
            assert code(ask("PATCH", place, b"x")) == (409, "BLOB_UPLOAD_INVALID")
            yield b"b"

    assert ask.api.handle(Request("PATCH", place, body=Nested())).status == 202
    assert header(ask("GET", place), "Range") == "0-1"


def test_uploads_are_bounded_and_those_that_rest_are_swept(repositories: Repositories) -> None:
    uploads = Uploads(repositories.blobs.writer, limit=2, idle=1e9)
    first = uploads.begin("a")
    uploads.begin("a")
    with pytest.raises(Exception, match="uploads are open"):
        uploads.begin("a")
    first.used -= 2e9
    uploads.begin("a")
    with pytest.raises(Exception, match="no such upload"):
        uploads.find("a", first.id)
    uploads.close()


def test_a_folder_keeps_what_was_pushed(tmp_path: Path) -> None:
    folder = str(tmp_path / "registry")
    with in_folder(folder) as repositories:
        digest = Client(RegistryApi(repositories)).image("kept")
        with pytest.raises(StoreError, match="another process serves"), in_folder(folder):
            pass
    with in_folder(folder) as repositories:
        response = Client(RegistryApi(repositories))("GET", "/v2/a/b/manifests/kept")
        assert header(response, "Docker-Content-Digest") == digest


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    with pytest.raises(StoreError, match="is no registry"), in_folder(str(tmp_path)):
        pass
    (tmp_path / "precious").unlink()
    (tmp_path / "castoff-registry.json").write_text('{"version": 99}')
    with pytest.raises(StoreError, match="format 99"), in_folder(str(tmp_path)):
        pass
