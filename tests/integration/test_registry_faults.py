"""Every request of a pull and of a push breaks in every way: it succeeds all the same, or there is one clear error.

Never is there a wrong image, a name without its image, or a credential where it does not belong.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import bcrypt
import pytest
from registry_faults import FAULTS, FaultProxy, Seen, fault_proxy

from castoff.errors import CastoffError, InvalidImageError, RegistryError
from castoff.events import NullObserver
from castoff.export.push import Pusher
from castoff.image.pull import pull
from castoff.image.validate import validate
from castoff.oci.reference import Reference
from castoff.registry.backoff import RetryPolicy
from castoff.registry.client import RegistryClient
from castoff.registry.config import RegistryConfig
from castoff.registry.credentials import Credentials, FixedKeychain
from castoff.registry.transport import CanceledTransferError, UrllibTransport
from castoff.registry.upload import SMALL
from castoff.store.memory import MemoryStore
from castoff.testing.random_images import random_image
from castoff.testing.registry import MemoryRegistry, memory_registry

pytestmark = pytest.mark.integration

USER, PASSWORD = "ann", "of-green-gables"
SHORT = 0.25
HARMLESS = (
    "redirect",
    "retry after",
    *(f"status {status}" for status in (408, 429, 500, 502, 503, 504)),
    *("drop", "drop after", "reset", "half a request", "truncate", "stall", "silence", "garbage"),
)
"""What must not make a transfer fail when it happens once."""


@dataclass
class Bench:
    """A registry with a password behind a proxy."""

    registry: MemoryRegistry
    proxy: FaultProxy
    other: FaultProxy

    @contextlib.contextmanager
    def client(self, stall: float = SHORT, attempts: int = 3) -> Iterator[RegistryClient]:
        keychain = FixedKeychain(self.proxy.netloc, Credentials(USER, PASSWORD))
        policy = RetryPolicy(attempts, 0.001, 0.002)
        with RegistryClient(RegistryConfig(), keychain, UrllibTransport({}, stall=stall), policy) as client:
            yield client

    def reference(self, tag: str) -> Reference:
        return Reference.parse(f"{self.proxy.netloc}/team/app:{tag}")

    def pull(self, store: MemoryStore, tag: str) -> None:
        reference = self.reference(tag)
        with self.client() as client:
            pull(client.repository(reference), reference, store, NullObserver(), client.cancel)

    def push(self, store: MemoryStore, name: str, tag: str) -> None:
        with self.client() as client:
            Pusher(client, store.blobs).push(store.images.find(name).descriptor, [self.reference(tag)])

    def requests_of(self, work: object) -> int:
        """Return how many requests something takes that nothing disturbs."""
        self.proxy.fault = lambda _number, _seen: ""
        self.proxy.reset()
        work()  # type: ignore[operator]
        return len(self.proxy.seen)

    def break_(self, fault: str, at: int, *, always: bool) -> None:
        self.proxy.reset()
        self.proxy.fault = lambda number, _seen: fault if number == at or (always and number > at) else ""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    passwords = tmp_path / "htpasswd"
    passwords.write_bytes(USER.encode() + b":" + bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)) + b"\n")
    with (
        memory_registry(passwords=str(passwords)) as registry,
        fault_proxy(registry.netloc) as proxy,
        fault_proxy(registry.netloc) as other,
    ):
        proxy.elsewhere = other.netloc
        other.fault = lambda _number, _seen: "status 404"
        yield Bench(registry, proxy, other)


def check_error(error: CastoffError) -> None:
    """See that an error is one clear sentence without anything secret."""
    assert isinstance(error, RegistryError | InvalidImageError)
    assert "\n" not in error.message
    assert "\x1b" not in error.message
    for text in (str(error), repr(error), error.hint or "", getattr(error, "diagnostics", "")):
        assert PASSWORD not in text
        assert Credentials(USER, PASSWORD).basic.partition(" ")[2] not in text


@pytest.mark.parametrize("always", [False, True], ids=["once", "always"])
@pytest.mark.parametrize("fault", FAULTS)
def test_pull_under_faults(bench: Bench, fault: str, always: bool) -> None:
    source = MemoryStore()
    image = random_image(source, "app", layers=2, size=3000)
    bench.registry.put_image(source.blobs, image, "team/app:1")
    count = bench.requests_of(lambda: bench.pull(MemoryStore(), "1"))
    assert count >= 5
    places: Sequence[int] = range(count) if not always else (0, 2, count - 1)
    if fault in ("stall", "silence"):
        places = places[1:3] if not always else (2,)
    for at in places:
        store = MemoryStore()
        bench.break_(fault, at, always=always)
        try:
            bench.pull(store, "1")
        except CastoffError as error:
            check_error(error)
            assert list(store.images) == [], "a name without its image"
            assert always or fault not in HARMLESS, error.message
        else:
            assert store.images.find(str(bench.reference("1"))).descriptor.digest == image.digest
            validate(store.blobs, image)
    assert not any(seen.authorization for seen in bench.other.seen), "credentials went elsewhere"


@pytest.mark.parametrize("always", [False, True], ids=["once", "always"])
@pytest.mark.parametrize("fault", FAULTS)
def test_push_under_faults(bench: Bench, fault: str, always: bool) -> None:
    source = MemoryStore()
    image = random_image(source, "app", layers=2, size=3000)
    count = bench.requests_of(lambda: bench.push(source, "app", "clean"))
    assert count >= 9
    places: Sequence[int] = range(0, count, 2) if not always else (0, 3, count - 1)
    if fault in ("stall", "silence"):
        places = (1, count - 1) if not always else (3,)
    repositories = bench.registry.repositories
    for at in places:
        for digest in list(repositories.blobs):
            repositories.remove_blob("team/app", digest)
        repositories.remove_manifest("team/app", image.digest, None)
        bench.break_(fault, at, always=always)
        tag = f"t{at}"
        try:
            bench.push(source, "app", tag)
        except CastoffError as error:
            check_error(error)
            assert always or fault not in HARMLESS, error.message
        else:
            assert repositories.tagged("team/app", tag) == image.digest
        if repositories.tagged("team/app", tag) is not None:
            bench.proxy.fault = lambda _number, _seen: ""
            store = MemoryStore()
            bench.pull(store, tag)
            validate(store.blobs, image)
    assert not any(seen.authorization for seen in bench.other.seen), "credentials went elsewhere"


@pytest.mark.parametrize(
    "fault", ["drop", "drop after", "half a request", "truncate", "status 500", "wrong range", "reset"]
)
def test_large_blobs_are_taken_up_where_they_broke_off(bench: Bench, fault: str) -> None:
    source = MemoryStore()
    image = random_image(source, "app", layers=1, size=SMALL // 2)
    count = bench.requests_of(lambda: bench.push(source, "app", "clean"))
    patches = [number for number, seen in enumerate(bench.proxy.seen) if seen.method == "PATCH"]
    assert len(patches) == 1
    repositories = bench.registry.repositories
    for at in range(patches[0] - 1, count):
        for digest in list(repositories.blobs):
            repositories.remove_blob("team/app", digest)
        bench.break_(fault, at, always=False)
        bench.push(source, "app", f"t{at}")
        assert repositories.tagged("team/app", f"t{at}") == image.digest
    bench.proxy.fault = lambda _number, _seen: ""
    for at in range(bench.requests_of(lambda: bench.pull(MemoryStore(), "clean"))):
        store = MemoryStore()
        bench.break_(fault if fault != "wrong range" else "truncate", at, always=False)
        bench.pull(store, "clean")
        validate(store.blobs, image)


def test_a_broken_download_asks_for_the_rest_only(bench: Bench) -> None:
    source = MemoryStore()
    image = random_image(source, "app", layers=1, size=400_000)
    bench.registry.put_image(source.blobs, image, "team/app:1")
    broken: list[int] = []

    def fault(number: int, seen: Seen) -> str:
        if "/blobs/" in seen.path and len(broken) < 4:
            broken.append(number)
            return "truncate"
        return ""

    bench.proxy.fault = fault
    store = MemoryStore()
    bench.pull(store, "1")
    validate(store.blobs, image)
    assert [seen.status for seen in bench.proxy.seen].count(206) >= 2


def test_a_registry_that_refuses_large_requests_gets_pieces(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("castoff.registry.upload.CHUNK", 1 << 20)
    source = MemoryStore()
    image = random_image(source, "app", layers=1, size=SMALL // 2)
    refused: list[str] = []

    def fault(_number: int, seen: Seen) -> str:
        if seen.method == "PATCH" and not refused:
            refused.append(seen.path)
            return "status 413"
        return ""

    bench.proxy.fault = fault
    bench.push(source, "app", "1")
    assert len([seen for seen in bench.proxy.seen if seen.method == "PATCH"]) > 5
    store = MemoryStore()
    bench.pull(store, "1")
    validate(store.blobs, image)


def test_cancel_ends_what_hangs(bench: Bench) -> None:
    source = MemoryStore()
    image = random_image(source, "app", layers=4, size=3000)
    bench.registry.put_image(source.blobs, image, "team/app:1")
    hanging = threading.Event()

    def fault(_number: int, seen: Seen) -> str:
        if "/blobs/" in seen.path:
            hanging.set()
            return "stall"
        return ""

    bench.proxy.fault = fault
    reference = bench.reference("1")
    with bench.client(stall=60) as client:
        errors: list[BaseException] = []

        def work() -> None:
            try:
                pull(client.repository(reference), reference, MemoryStore(), NullObserver(), client.cancel)
            except CastoffError as error:
                errors.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        assert hanging.wait(30)
        client.cancel()
        thread.join(30)
        assert not thread.is_alive()
    assert [type(error) for error in errors] == [CanceledTransferError]


@pytest.mark.parametrize("identity", [False, True], ids=["password", "identity token"])
def test_tokens_have_the_least_scope_and_are_kept(bench: Bench, tmp_path: Path, identity: bool) -> None:
    with memory_registry() as registry, fault_proxy(registry.netloc) as proxy:
        proxy.users = (USER, PASSWORD)
        credentials = Credentials(identity_token=f"refresh-{PASSWORD}") if identity else Credentials(USER, PASSWORD)
        store = MemoryStore()
        image = random_image(store, "app", layers=3)
        reference = Reference.parse(f"{proxy.netloc}/team/app:1")
        keychain = FixedKeychain(proxy.netloc, credentials)
        with RegistryClient(RegistryConfig(), keychain, UrllibTransport({}), RetryPolicy(2, 0.001)) as client:
            Pusher(client, store.blobs).push(image, [reference, replace(reference, tag="2")])
            method = "POST" if identity else "GET"
            assert proxy.token_requests == [(method, ["repository:team/app:pull,push"], "known")]
            fresh = MemoryStore()
            pull(client.repository(reference), reference, fresh, NullObserver(), client.cancel)
            validate(fresh.blobs, image)
            assert proxy.token_requests[1:] == [(method, ["repository:team/app:pull"], "known")]
            proxy.tokens.clear()  # as if they had expired early: each is asked for again, once
            pull(client.repository(reference), reference, MemoryStore(), NullObserver(), client.cancel)
            assert len(proxy.token_requests) == 3


def test_strangers_may_pull_and_not_push(bench: Bench) -> None:
    with memory_registry() as registry, fault_proxy(registry.netloc) as proxy:
        proxy.users = (USER, PASSWORD)
        store = MemoryStore()
        image = random_image(store, "app")
        registry.put_image(store.blobs, image, "team/app:1")
        reference = Reference.parse(f"{proxy.netloc}/team/app:1")
        with RegistryClient(RegistryConfig(), None, UrllibTransport({}), RetryPolicy(2, 0.001)) as client:
            pull(client.repository(reference), reference, MemoryStore(), NullObserver(), client.cancel)
            other = random_image(store, "other", seed=1)
            with pytest.raises(RegistryError) as caught:
                Pusher(client, store.blobs).push(other, [replace(reference, tag="2")])
        assert caught.value.status == 401
        assert "castoff login" in (caught.value.hint or "")


def test_a_wrong_password_is_said_at_once(bench: Bench) -> None:
    with memory_registry() as registry, fault_proxy(registry.netloc) as proxy:
        proxy.users = (USER, PASSWORD)
        keychain = FixedKeychain(proxy.netloc, Credentials(USER, "wrong"))
        with (
            RegistryClient(RegistryConfig(), keychain, UrllibTransport({}), RetryPolicy(3, 0.001)) as client,
            pytest.raises(RegistryError) as caught,
        ):
            client.repository(Reference.parse(f"{proxy.netloc}/a:1")).get_manifest("1")
        assert "incorrect username or password" in caught.value.message
        assert "wrong" not in repr(caught.value)
        assert len(proxy.token_requests) == 1
