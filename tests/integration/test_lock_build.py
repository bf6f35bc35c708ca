"""``castoff lock``, and builds that go by a lock: bases from a registry, URLs and git repositories from servers."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import remote_servers
from engine_rig import Engine, Outcome, root_engine
from remote_servers import Answer

from castoff.store.memory import MemoryStore
from castoff.testing.random_images import random_image, random_index
from castoff.testing.registry import MemoryRegistry, memory_registry

if TYPE_CHECKING:
    from castoff.oci.descriptor import Descriptor

pytestmark = pytest.mark.integration


@pytest.fixture
def engine(castoff_command: list[str]) -> Iterator[Engine]:
    yield from root_engine(castoff_command)


@pytest.fixture
def registry() -> Iterator[MemoryRegistry]:
    with memory_registry() as served:
        yield served


class Project:
    """A context with a Dockerfile and, perhaps, a lock."""

    def __init__(self, engine: Engine, files: Mapping[str, str]) -> None:
        self.engine = engine
        self.folder = engine.context(files)
        self.path = Path(self.folder, "Dockerfile.lock")

    @property
    def lock(self) -> dict[str, Any]:
        """What the lock has."""
        return dict(json.loads(self.path.read_text()))

    def locked(self, *options: str, code: int = 0) -> Outcome:
        """Run castoff lock, which must end with a code."""
        outcome = self.engine.castoff("lock", *options, self.folder)
        assert outcome.code == code, outcome.err
        return outcome

    def built(self, *options: str, code: int = 0) -> Outcome:
        """Build, which must end with a code."""
        outcome = self.engine.build(self.folder, *options)
        assert outcome.code == code, outcome.err
        return outcome


def put(registry: MemoryRegistry, seed: str, reference: str = "team/base:1", **options: Any) -> Descriptor:
    """Put a random image into a registry and return its descriptor."""
    store = MemoryStore()
    descriptor = random_image(store, seed=seed, **options)
    registry.put_image(store.blobs, descriptor, reference)
    return descriptor


def test_a_build_uses_the_base_that_was_locked(engine: Engine, registry: MemoryRegistry) -> None:
    name = f"{registry.netloc}/team/base:1"
    old = put(registry, "old")
    project = Project(engine, {"Dockerfile": f"FROM {name} AS a\nFROM a\nCOPY --from={name} /data* /copy/\n"})
    assert project.locked().out == f"+ {name} {old.digest}\n"
    assert project.lock == {"version": 1, "images": {name: str(old.digest)}}
    first = project.built()
    new = put(registry, "new")
    assert project.built("--no-cache", "--pull").image == first.image
    with_new = project.locked("--update").out
    assert with_new == f"~ {name} {old.digest} -> {new.digest}\n"
    assert project.built().image != first.image
    assert "is up to date: 1 locked" in project.locked().out


def test_a_fresh_store_fetches_what_was_locked(engine: Engine, registry: MemoryRegistry) -> None:
    name = f"{registry.netloc}/team/base:1"
    put(registry, "old")
    project = Project(engine, {"Dockerfile": f"FROM {name}\nLABEL a=b\n"})
    project.locked()
    first = project.built()
    put(registry, "new")
    engine.store = os.path.join(engine.folder, "second")
    assert project.built().image == first.image
    registry.take_requests()
    project.built("--label", "c=d")
    assert registry.take_requests() == []


def test_an_index_is_locked_for_all_its_platforms(engine: Engine, registry: MemoryRegistry) -> None:
    store = MemoryStore()
    index = random_index(store, platforms=("amd64", "arm64"))
    name = registry.put_image(store.blobs, index, "team/several:1")
    project = Project(engine, {"Dockerfile": f"FROM {name}\nLABEL a=b\n"})
    project.locked()
    assert project.lock["images"] == {name: str(index.digest)}
    project.built("--platform", "linux/amd64,linux/arm64")


def test_what_is_not_locked_is_refused(engine: Engine, registry: MemoryRegistry) -> None:
    one, two = (put(registry, seed, f"team/{seed}:1") for seed in ("one", "two"))
    names = [f"{registry.netloc}/team/{seed}:1" for seed in ("one", "two")]
    project = Project(engine, {"Dockerfile": f"FROM {names[0]}\nLABEL a=b\n"})
    project.locked()
    engine.write(project.folder, {"Dockerfile": f"FROM {names[1]}\nLABEL a=b\n"})
    refused = project.built(code=3)
    assert f"{names[1]} is not in Dockerfile.lock" in refused.err
    assert "Dockerfile:1" in refused.err
    assert project.locked("--check", code=1).out == f"- {names[0]} {one.digest}\n+ {names[1]} {two.digest}\n"
    assert list(project.lock["images"]) == [names[0]]
    changes = json.loads(project.locked("--format", "json").out)["changes"]
    assert changes == [
        {"name": names[0], "from": str(one.digest), "to": None},
        {"name": names[1], "from": None, "to": str(two.digest)},
    ]
    project.built()
    project.locked("--check")


def test_bases_that_pin_themselves_need_no_lock(engine: Engine, registry: MemoryRegistry) -> None:
    base = put(registry, "one")
    name = f"{registry.netloc}/team/base:1@{base.digest}"
    project = Project(engine, {"Dockerfile": f"FROM {name}\nLABEL a=b\n"})
    project.locked()
    assert project.lock["images"] == {}
    project.built()


def test_a_stand_in_must_be_what_was_locked(engine: Engine, registry: MemoryRegistry) -> None:
    put(registry, "one")
    other = put(registry, "other", "team/other:1")
    name = f"{registry.netloc}/team/base:1"
    project = Project(engine, {"Dockerfile": f"FROM {name}\nLABEL a=b\n"})
    project.locked()
    stand_in = f"--build-context={name}=docker-image://{registry.netloc}/team/other:1"
    refused = project.built(stand_in, code=6)
    assert "is pinned to its digest" in refused.err
    assert str(other.digest) not in project.path.read_text()
    project.path.unlink()
    project.built(stand_in)


def test_urls_and_commits(engine: Engine, tmp_path: Path, require: Any) -> None:
    require.command("git")
    with remote_servers.file_server() as files, remote_servers.git_server(str(tmp_path)) as repositories:
        repositories.repository("app")
        commit = repositories.commit("app", {"a": "one\n"})
        files.answers["/f"] = Answer(b"first")
        git = f"{repositories.url}/app/.git#main"
        lines = ["FROM scratch", f"ADD {files.url}/f /f", f"ADD {git} /app/"]
        project = Project(engine, {"Dockerfile": "\n".join(lines) + "\n"})
        project.locked()
        assert list(project.lock["urls"]) == [f"{files.url}/f"]
        assert project.lock["git"] == {git: commit}
        first = project.built()
        assert engine.read("t", "f") == b"first"
        files.asked.clear()
        repositories.asked.clear()
        cached = project.built("--label", "a=b")
        assert len(cached.steps("CACHED")) == 2
        assert files.asked == []
        assert repositories.asked == []
        second = repositories.commit("app", {"a": "two\n"})
        assert project.built("--no-cache").image == first.image  # the commit that was locked
        files.answers["/f"] = Answer(b"second")
        engine.store = os.path.join(engine.folder, "second")
        assert "and not the promised one" in project.built(code=6).err
        changes = project.locked("--update").out
        assert f"~ {git} {commit} -> {second}\n" in changes
        assert f"~ {files.url}/f sha256:" in changes
        project.built()
        assert engine.read("t", "app/a") == b"two\n"


def test_a_url_that_is_not_locked_is_refused(engine: Engine) -> None:
    project = Project(engine, {"Dockerfile": "FROM scratch\nARG V=1\nADD http://127.0.0.1:9/f$V /f\n"})
    project.path.write_text('{"version": 1, "images": {}}')
    refused = project.built(code=3)
    assert "http://127.0.0.1:9/f1 is not in Dockerfile.lock" in refused.err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not JSON"),
        ('{"version": 2, "images": {}}', "has version 2"),
        ('{"version": 1, "images": {"a": "sha256:1"}}', "does not have 64"),
        ('{"version": 1, "images": {"a": 7}}', "not a string"),
        ('{"version": 1, "git": {"a": "main"}}', "is no commit"),
    ],
)
def test_locks_that_are_none(engine: Engine, text: str, words: str) -> None:
    project = Project(engine, {"Dockerfile": "FROM scratch\nLABEL a=b\n"})
    project.path.write_text(text)
    assert words in project.built(code=3).err
    assert words in project.locked(code=3).err


def test_the_unchanged_build_sees_that_the_lock_changed(engine: Engine, registry: MemoryRegistry) -> None:
    put(registry, "old")
    name = f"{registry.netloc}/team/base:1"
    project = Project(engine, {"Dockerfile": f"FROM {name}\nLABEL a=b\n"})
    first = project.built()
    assert project.built().image == first.image
    new = put(registry, "new")
    project.path.write_text(json.dumps({"version": 1, "images": {name: str(new.digest)}}))
    assert project.built().image != first.image


def test_a_lock_wants_a_dockerfile_of_this_machine(engine: Engine) -> None:
    outcome = engine.castoff("lock", "-f", "-", engine.context({"x": "y"}))
    assert outcome.code == 2
