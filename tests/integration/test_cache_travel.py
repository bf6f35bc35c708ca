"""``--cache-to`` and ``--cache-from``: a cache that goes to a folder or a registry, and starts a fresh store warm."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_rig import BUSYBOX, Engine, Outcome, root_engine

from castoff.testing.registry import MemoryRegistry, memory_registry

pytestmark = pytest.mark.integration

DOCKERFILE = """\
FROM busybox AS tools
RUN head -c 300000 /dev/urandom > /random

FROM tools AS builder
WORKDIR /src
COPY deps.txt .
RUN --mount=type=cache,target=/cache,id=deps cat /cache/count 2>/dev/null; echo x >> /cache/count; cp deps.txt /deps
COPY main.txt .
RUN --mount=type=cache,target=/cache,id=deps --mount=type=cache,target=/other cat main.txt /deps > /out; \\
    wc -l < /cache/count; touch /other/x

FROM busybox
WORKDIR /app
COPY --from=builder /out /app/out
COPY conf.txt /app/
RUN echo built > built
CMD ["cat", "/app/out"]
"""
FILES = {"Dockerfile": DOCKERFILE, "deps.txt": "deps\n", "main.txt": "main\n", "conf.txt": "conf\n"}
STEPS = 10


@pytest.fixture(scope="module")
def origin(request: pytest.FixtureRequest, castoff_command: list[str]) -> Iterator[Engine]:
    """Give an engine that has the image ``busybox``."""
    require = request.getfixturevalue("require")
    require.root()
    require.file(BUSYBOX, "busybox-static")
    for made in root_engine(castoff_command):
        made.make_base()
        yield made


class Machines:
    """A machine that has built, and as many fresh ones as wanted, each with a store of its own."""

    def __init__(self, origin: Engine, folder: Path) -> None:
        self.origin = origin
        self.folder = str(folder)
        self.base = f"--build-context=busybox=oci-layout://{origin.store}:busybox:latest"
        self.context = os.path.join(self.folder, "context")
        os.makedirs(self.context)
        origin.write(self.context, FILES)
        self._count = 0

    def fresh(self) -> Engine:
        """Return an engine with an empty store."""
        self._count += 1
        folder = os.path.join(self.folder, f"machine{self._count}")
        os.makedirs(folder)
        return Engine(folder, self.origin.runner)

    def good(self, engine: Engine, *arguments: str) -> Outcome:
        """Build the context; it must succeed."""
        return engine.good(self.context, self.base, *arguments)

    def change(self, **files: str) -> None:
        """Change files of the context."""
        self.origin.write(self.context, {name.replace("_", "."): text for name, text in files.items()})


@pytest.fixture
def machines(origin: Engine, tmp_path: Path) -> Machines:
    return Machines(origin, tmp_path)


def blobs(engine: Engine) -> list[str]:
    """Return the blobs of a store."""
    return os.listdir(os.path.join(engine.store, "blobs", "sha256"))


def sizes(cache: str) -> dict[str, int]:
    """Return the sizes of the blobs of a cache in a folder."""
    folder = os.path.join(cache, "blobs", "sha256")
    return {name: os.path.getsize(os.path.join(folder, name)) for name in os.listdir(folder)}


def snapshots(engine: Engine) -> list[str]:
    """Return the names of what was unpacked or run in a store."""
    return sorted(os.listdir(os.path.join(engine.store, "snapshots")))


def test_a_fresh_store_finds_every_step_cached_and_unpacks_nothing(machines: Machines) -> None:
    cache = f"{machines.folder}/cache"
    first = machines.good(machines.fresh(), "--cache-to", f"type=local,dest={cache},mode=max")
    assert len(first.steps("CACHED")) == 0
    fresh = machines.fresh()
    second = machines.good(fresh, "--cache-from", f"type=local,src={cache}")
    assert len(second.steps("CACHED")) == STEPS, second.err
    assert second.image == first.image
    assert snapshots(fresh) == []
    large = [name for name, size in sizes(cache).items() if size > 300_000]
    assert len(large) == 1
    assert large[0] not in blobs(fresh)
    assert "importing cache manifest from" in second.err
    assert fresh.read("t", "app/out") == b"main\ndeps\n"


def test_what_has_changed_runs_and_gets_only_what_it_stands_on(machines: Machines) -> None:
    cache = f"{machines.folder}/cache"
    machines.good(machines.fresh(), "--cache-to", f"type=local,dest={cache},mode=max")
    random = next(name for name, size in sizes(cache).items() if size > 300_000)
    machines.change(conf_txt="changed\n")
    second = machines.fresh()
    outcome = machines.good(second, "--cache-from", f"type=local,src={cache}")
    assert outcome.steps("DONE")[-2:] == ["COPY conf.txt /app/", "RUN echo built > built"]
    assert len(outcome.steps("CACHED")) == STEPS - 2
    assert random not in blobs(second)
    machines.change(main_txt="changed\n")
    third = machines.fresh()
    outcome = machines.good(third, "--cache-from", f"type=local,src={cache}")
    assert "RUN head -c 300000 /dev/urandom > /random" in outcome.steps("CACHED")
    assert "COPY deps.txt ." in outcome.steps("CACHED")
    assert "COPY main.txt ." in outcome.steps("DONE")
    assert random in blobs(third)


def test_a_second_build_from_the_same_store_needs_the_cache_no_more(machines: Machines) -> None:
    cache = f"{machines.folder}/cache"
    machines.good(machines.fresh(), "--cache-to", f"type=local,dest={cache},mode=max")
    fresh = machines.fresh()
    machines.change(main_txt="changed\n")
    machines.good(fresh, "--cache-from", f"type=local,src={cache}")
    shutil.rmtree(cache)
    again = machines.good(fresh, "--label", "a=b")
    assert not [step for step in again.steps("DONE") if step.startswith("RUN")], again.err


def test_a_cache_travels_on(machines: Machines) -> None:
    one, two = f"{machines.folder}/one", f"{machines.folder}/two"
    machines.good(machines.fresh(), "--cache-to", f"type=local,dest={one},mode=max")
    middle = machines.fresh()
    machines.change(conf_txt="changed\n")
    first = machines.good(
        middle, "--cache-from", f"type=local,src={one}", "--cache-to", f"type=local,dest={two},mode=max"
    )
    shutil.rmtree(one)
    last = machines.good(machines.fresh(), "--cache-from", f"type=local,src={two}")
    assert len(last.steps("CACHED")) == STEPS, last.err
    assert last.image == first.image


def test_several_caches(machines: Machines) -> None:
    machines.good(machines.fresh(), "--cache-to", f"type=local,dest={machines.folder}/one,mode=max")
    machines.change(conf_txt="changed\n")
    machines.good(
        machines.fresh(),
        f"--cache-from=type=local,src={machines.folder}/one",
        f"--cache-to=type=local,dest={machines.folder}/two,tag=x",
    )
    third = machines.good(
        machines.fresh(),
        f"--cache-from=type=local,src={machines.folder}/one",
        f"--cache-from=type=local,src={machines.folder}/two,tag=x",
    )
    assert len(third.steps("CACHED")) == STEPS, third.err


def test_a_small_cache_has_the_layers_of_the_image(machines: Machines) -> None:
    cache = f"{machines.folder}/cache"
    first = machines.good(machines.fresh(), "--cache-to", f"type=local,dest={cache}")
    second = machines.good(machines.fresh(), "--cache-from", f"type=local,src={cache}")
    assert second.image == first.image
    assert second.steps("CACHED") == [
        "WORKDIR /app",
        "COPY --from=builder /out /app/out",
        "COPY conf.txt /app/",
        "RUN echo built > built",
    ]
    assert max(sizes(cache).values()) < 10_000


def test_mounts_travel(machines: Machines) -> None:
    cache = f"{machines.folder}/cache"
    machines.good(machines.fresh(), "--cache-to", f"type=local,dest={cache},mode=max,mounts=deps,nothing")
    machines.change(deps_txt="changed\n")
    with_mounts = machines.good(machines.fresh(), "--cache-from", f"type=local,src={cache}")
    assert " x\n" in with_mounts.err
    without = machines.good(machines.fresh(), "--cache-from", f"type=local,src={cache},mounts=false")
    assert " x\n" not in without.err
    assert mounts_of(cache) == ["deps"]


def test_mounts_keep_owners_times_and_links(machines: Machines) -> None:
    cache = f"{machines.folder}/cache"
    write = """\
FROM busybox
ARG AGAIN
RUN --mount=type=cache,target=/c,id=all,mode=0750,uid=7,gid=8 cd /c; \\
    if [ -n "$AGAIN" ]; then ls -ldn .; ls -1lni --full-time; exit; fi; \\
    echo a > a; ln a b; ln -s a l; chown 5:6 a; touch -d '2001-02-03 04:05:06' a; mkfifo p; mkdir -m 1777 d
"""
    machines.change(Dockerfile=write)
    machines.good(machines.fresh(), "--cache-to", f"type=local,dest={cache},mounts=all")
    shown = machines.good(machines.fresh(), "--build-arg", "AGAIN=1", "--cache-from", f"type=local,src={cache}").err
    assert "drwxr-x---" in shown
    assert " 7 " in shown
    lines = [line.split() for line in shown.splitlines() if line.split()[-1:] and "->" not in line]
    found = {words[-1]: words[2:] for words in lines}
    assert found["a"][0] == found["b"][0]  # one inode
    assert "2001-02-03" in found["a"]
    assert "5" in found["a"]
    assert found["d"][1].startswith("drwxrwxrwt")
    assert found["p"][1].startswith("prw")


def test_mounts_that_are_too_large_stay(machines: Machines) -> None:
    cache = f"{machines.folder}/cache"
    first = machines.good(machines.fresh(), "--cache-to", f"type=local,dest={cache},mounts=all,mounts-limit=10")
    assert "mounts-limit leaves 10" in first.err
    assert mounts_of(cache) == []


def document_of(cache: str) -> dict[str, Any]:
    """Return the document of a cache in a folder."""
    folder = Path(cache)
    index = json.loads((folder / "index.json").read_text())
    manifest = json.loads(blob(folder, index["manifests"][0]["digest"]))
    return dict(json.loads(blob(folder, manifest["config"]["digest"])))


def blob(folder: Path, digest: str) -> bytes:
    return (folder / "blobs" / digest.replace(":", "/")).read_bytes()


def mounts_of(cache: str) -> list[str]:
    """Return the ids of the cache mounts in a folder's cache."""
    return [mount[1] for mount in document_of(cache).get("mounts", [])]


def test_a_damaged_layer_is_an_error_and_never_a_wrong_image(machines: Machines) -> None:
    cache = f"{machines.folder}/cache"
    machines.good(machines.fresh(), "--cache-to", f"type=local,dest={cache},mode=max")
    name = next(name for name, size in sizes(cache).items() if size > 300_000)
    path = Path(cache, "blobs", "sha256", name)
    data = path.read_bytes()
    machines.change(deps_txt="changed\n")
    fresh = machines.fresh()
    for damaged in (data[:1000], data[:-1] + bytes([data[-1] ^ 1]), data + b"x", None):
        path.unlink()
        if damaged is not None:
            path.write_bytes(damaged)
        outcome = fresh.build(machines.context, machines.base, "--cache-from", f"type=local,src={cache}")
        if damaged is not None and len(damaged) > len(data):
            assert outcome.code == 0  # what follows the bytes of a blob is not read
            fresh = machines.fresh()
            continue
        assert outcome.code == 6, outcome.err
        assert "Traceback" not in outcome.err
        assert name in outcome.err


def test_a_cache_that_cannot_be_read_is_a_warning(machines: Machines) -> None:
    cache = f"{machines.folder}/cache"
    machines.good(machines.fresh(), "--cache-to", f"type=local,dest={cache}")
    index = Path(cache, "index.json")
    digest = json.loads(index.read_text())["manifests"][0]["digest"]
    config = json.loads(blob(Path(cache), digest))["config"]["digest"]
    fresh = machines.fresh()
    for place in (config, digest, ""):
        (Path(cache, "blobs", place.replace(":", "/")) if place else index).write_text("{")
        outcome = machines.good(fresh, "--cache-from", f"type=local,src={cache}")
        assert "is not used" in outcome.err


def test_caches_that_are_not_there_yet(machines: Machines) -> None:
    outcome = machines.good(machines.fresh(), "--cache-from", f"type=local,src={machines.folder}/none")
    assert "there is none yet" in outcome.err
    assert "WARNING" not in outcome.err


def test_a_cache_that_cannot_be_written(machines: Machines) -> None:
    Path(machines.folder, "file").write_text("x")
    target = f"type=local,dest={machines.folder}/file/x"
    engine = machines.fresh()
    failed = engine.build(machines.context, machines.base, "--cache-to", target)
    assert failed.code == 6
    assert "can't write the build cache" in failed.err
    passed = machines.good(engine, "--cache-to", f"{target},ignore-error=true")
    assert "was not written" in passed.err


def test_a_folder_of_caches_does_not_grow(machines: Machines) -> None:
    cache, engine = f"{machines.folder}/cache", machines.fresh()
    counts = []
    for text in ("a\n", "b\n"):
        machines.change(deps_txt=text)
        machines.good(engine, "--cache-to", f"type=local,dest={cache},mode=max")
        counts.append(len(sizes(cache)))
    assert counts[0] == counts[1]
    machines.good(engine, "--cache-to", f"type=local,dest={cache},tag=other")
    last = machines.good(machines.fresh(), "--cache-from", f"type=local,src={cache}")
    assert len(last.steps("CACHED")) == STEPS


def test_other_programs_read_the_folder(machines: Machines, require: Any) -> None:
    require.command("skopeo")
    cache = f"{machines.folder}/cache"
    machines.good(machines.fresh(), "--cache-to", f"type=local,dest={cache},mode=max,compression=zstd")
    raw = subprocess.run(["skopeo", "inspect", "--raw", f"oci:{cache}:latest"], capture_output=True, check=True).stdout
    manifest = json.loads(raw)
    assert manifest["artifactType"] == "application/vnd.castoff.buildcache.v1"
    assert any(layer["mediaType"].endswith("+zstd") for layer in manifest["layers"])
    second = machines.good(machines.fresh(), "--cache-from", f"type=local,src={cache}")
    assert len(second.steps("CACHED")) == STEPS


@contextlib.contextmanager
def registry() -> Iterator[MemoryRegistry]:
    with memory_registry() as served:
        yield served


def blob_gets(requests: list[str]) -> list[str]:
    """Return the digests of the blobs that were fetched."""
    return [line.split("/blobs/")[1].split("'")[0] for line in requests if line.startswith("GET") and "/blobs/" in line]


def test_a_registry_gives_a_manifest_a_document_and_the_layers_of_the_image(machines: Machines) -> None:
    with registry() as served:
        reference = f"{served.netloc}/team/cache:main"
        first = machines.good(machines.fresh(), f"--cache-to=type=registry,ref={reference},mode=max,mounts=all")
        served.take_requests()
        fresh = machines.fresh()
        second = machines.good(fresh, "--cache-from", reference)
        requests = served.take_requests()
        assert second.image == first.image
        assert len(second.steps("CACHED")) == STEPS
        assert snapshots(fresh) == []
        own_layers = 4  # WORKDIR, two COPYs and a RUN; busybox' own came with busybox
        assert len(blob_gets(requests)) == 1 + own_layers
        assert len([line for line in requests if "/manifests/" in line]) == 1
        again = machines.good(fresh, "--cache-from", reference, "--label", "x=y")
        assert len(again.steps("CACHED")) == STEPS
        assert len(blob_gets(served.take_requests())) == 1


def test_what_a_registry_has_is_not_pushed_again(machines: Machines) -> None:
    with registry() as served:
        target = f"--cache-to=type=registry,ref={served.netloc}/team/cache:main,mode=max"
        engine = machines.fresh()
        machines.good(engine, target)
        served.take_requests()
        machines.good(engine, target)
        pushed = [line for line in served.take_requests() if line.startswith(("POST", "PATCH", "PUT"))]
        assert [line for line in pushed if "/blobs/" in line] == []
        assert len([line for line in pushed if "/manifests/" in line]) == 1


def test_a_registry_that_is_down(machines: Machines) -> None:
    with registry() as served:
        reference = f"{served.netloc}/team/cache:main"
        absent = machines.good(machines.fresh(), "--cache-from", reference)
        assert "there is none yet" in absent.err
    failed = machines.fresh().build(machines.context, machines.base, "--cache-from", reference, "--cache-to", reference)
    assert "is not used" in failed.err
    assert failed.code == 5


def test_an_image_that_has_its_cache_in_it(machines: Machines, require: Any) -> None:
    require.command("skopeo")
    engine = machines.fresh()
    first = machines.good(engine, "--cache-to", "type=inline")
    plain = machines.good(engine)
    assert first.image == plain.image  # the annotation is the manifest's
    machines.good(engine, "--cache-to", "type=inline")
    policy = Path(machines.folder, "policy.json")
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    with registry() as served:
        place = f"docker://{served.netloc}/app:1"
        copy = ["skopeo", "--policy", str(policy), "copy", "--preserve-digests", "--dest-tls-verify=false"]
        subprocess.run([*copy, f"oci:{engine.store}:t:latest", place], check=True, capture_output=True)
        fresh = machines.fresh()
        second = machines.good(fresh, "--cache-from", f"type=registry,ref={served.netloc}/app:1")
        assert second.steps("CACHED")[-1] == "RUN echo built > built"
        assert second.image == first.image


def test_an_image_without_a_cache_says_so(machines: Machines, require: Any) -> None:
    require.command("skopeo")
    policy = Path(machines.folder, "policy.json")
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    with registry() as served:
        copy = ["skopeo", "--policy", str(policy), "copy", "--dest-tls-verify=false"]
        source = f"oci:{machines.origin.store}:busybox:latest"
        subprocess.run([*copy, source, f"docker://{served.netloc}/app:1"], check=True, capture_output=True)
        outcome = machines.good(machines.fresh(), "--cache-from", f"{served.netloc}/app:1")
        assert "is an image and no build cache of castoff's" in outcome.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--cache-to", "type=s3,bucket=x"], "the unknown type 's3'"),
        (["--cache-to", "type=local"], "lacks dest="),
        (["--cache-to", "type=local,dest=x,mode=middle"], "the unknown mode 'middle'"),
        (["--cache-from", "type=local,src=x,mode=max"], "has no field 'mode'"),
        (["--cache-to", "type=registry,ref=a@sha256:" + "0" * 64], "can't be named by a digest"),
        (["--cache-to", "type=registry,ref=A"], "must be lower case"),
        (["--cache-to", "type=registry,ref=a,image-manifest=false"], "can't have image-manifest=false"),
    ],
)
def test_options_that_make_no_sense(machines: Machines, options: list[str], words: str) -> None:
    outcome = machines.fresh().build(machines.context, machines.base, *options)
    assert outcome.code == 2
    assert words in outcome.err
