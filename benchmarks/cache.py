"""What a cache that travels saves: ``python -m benchmarks.cache STORE``.

STORE is a store with the images ``golang:1.22-alpine`` and ``gcr.io/distroless/static:nonroot`` (those of ./run demo,
or any others). It is copied from and never written to. Two scenarios, each on fresh stores with a registry on loopback:

1. the Go service, unchanged: built cold; from the cache in a registry; and once more, with nothing to do;
2. a Go service with 200 dependencies, one line changed: with its layers from the cache, and with its cache mounts too.

CPU-seconds are those of castoff and of all that it runs, but not of the registry; bytes are those of blobs that came.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.measure import CommandError, adopt_orphans, timed
from castoff.oci.reference import Reference
from castoff.store.directory import DirectoryStore
from castoff.testing.registry import MemoryRegistry, memory_registry

ROOT = Path(__file__).resolve().parents[1]
BASES = ("golang:1.22-alpine", "gcr.io/distroless/static:nonroot")
DEPENDENCIES = 200
DOCKERFILE = """\
FROM golang:1.22-alpine AS builder
WORKDIR /build
COPY go.mod .
COPY vendor vendor
COPY main.go .
RUN --mount=type=cache,target=/root/.cache/go-build,id=go-build CGO_ENABLED=0 go build -mod=vendor -o service .

FROM gcr.io/distroless/static:nonroot
COPY --from=builder /build/service /service
ENTRYPOINT ["/service"]
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one build cost: processor and wall seconds, requests, bytes of blobs, bytes below snapshots."""

    cpu: float
    wall: float
    requests: int
    blobs: int
    unpacked: int


class Machines:
    """Builds in fresh stores, with a registry that has the bases."""

    def __init__(self, folder: str, registry: MemoryRegistry, source: DirectoryStore) -> None:
        self._folder = folder
        self._registry = registry
        self._count = 0
        self._contexts = []
        for name in BASES:
            found = source.images.get(Reference.parse(name))
            if found is None:
                sys.exit(f"the store has no {name}")
            there = registry.put_image(source.blobs, found, f"bases/{self._tagged(name)}")
            self._contexts.append(f"--build-context={name}=docker-image://{there}")

    @staticmethod
    def _tagged(name: str) -> str:
        return name.rpartition("/")[2]

    def fresh(self) -> str:
        """Return the path of a store that is not there yet."""
        self._count += 1
        return f"{self._folder}/store{self._count}"

    def build(self, store: str, context: str, *options: str) -> Cost:
        """Build, and return what it cost."""
        self._registry.take_requests()
        command = [sys.executable, "-m", "castoff", "--root", store, "build", "-q", "-t", "app"]
        argv = [*command, *self._contexts, *options, context]
        try:
            sample = timed([argv], dict(os.environ), f"{self._folder}/log")
        except CommandError as error:
            sys.exit(str(error))
        requests = self._registry.take_requests()
        gets = [line for line in requests if line.startswith("GET") and "/blobs/" in line]
        fetched = [line.split("/blobs/")[1].split("'")[0] for line in gets]
        held = self._registry.repositories.blobs
        sizes = {str(digest): held.size(digest) or 0 for digest in held}
        blobs = sum(sizes.get(digest, 0) for digest in fetched)
        return Cost(round(sample.cpu, 2), round(sample.wall, 2), len(requests), blobs, size_of(f"{store}/snapshots"))


def size_of(folder: str) -> int:
    """Return the bytes of the files below a folder."""
    return sum(
        os.lstat(os.path.join(parent, name)).st_size for parent, _folders, names in os.walk(folder) for name in names
    )


def write_service(folder: str) -> None:
    """Write a Go service with many dependencies, vendored."""
    requires, modules, imports, calls = [], [], [], []
    for number in range(DEPENDENCIES):
        name = f"example.com/dependency{number}"
        path = Path(folder, "vendor", name)
        path.mkdir(parents=True)
        lines = [f"package dependency{number}", 'import ("encoding/json"; "fmt"; "net/http"; "sort"; "strings")']
        lines += [
            f"type T{part} struct {{ A, B string; C []int; D map[string]any }}\n"
            f"func F{part}(r *http.Request) string {{ t := T{part}{{A: r.URL.Path, C: []int{{{part}}}}}\n"
            f"sort.Ints(t.C); b, _ := json.Marshal(t); return strings.ToUpper(fmt.Sprint(string(b), t)) }}"
            for part in range(40)
        ]
        (path / "d.go").write_text("\n".join(lines) + "\n")
        requires.append(f"\t{name} v1.0.0")
        modules.append(f"# {name} v1.0.0\n## explicit; go 1.22\n{name}")
        imports.append(f'\t"{name}"')
        calls.append(f"\tfmt.Fprintln(w, dependency{number}.F1(r))")
    Path(folder, "vendor", "modules.txt").write_text("\n".join(modules) + "\n")
    head = "module example.com/service\n\ngo 1.22\n\nrequire (\n"
    Path(folder, "go.mod").write_text(head + "\n".join(requires) + "\n)\n")
    body = "\n".join(calls)
    Path(folder, "main.go").write_text(
        'package main\n\nimport (\n\t"fmt"\n\t"net/http"\n' + "\n".join(imports) + "\n)\n\n"
        f"func serve(w http.ResponseWriter, r *http.Request) {{\n{body}\n}}\n\n"
        'func main() {\n\thttp.ListenAndServe(":8000", http.HandlerFunc(serve))\n}\n'
    )
    Path(folder, "Dockerfile").write_text(DOCKERFILE)


def unchanged(machines: Machines, netloc: str) -> dict[str, Cost]:
    """Measure the Go service, unchanged."""
    context, cache = str(ROOT / "services" / "devops-info-service-go"), f"{netloc}/cache/go:main"
    costs = {"cold": machines.build(machines.fresh(), context, f"--cache-to=type=registry,ref={cache},mode=max")}
    store = machines.fresh()
    costs["from the cache"] = machines.build(store, context, f"--cache-from={cache}")
    costs["nothing to do"] = machines.build(store, context, f"--cache-from={cache}")
    return costs


def changed(machines: Machines, netloc: str, folder: str) -> dict[str, Cost]:
    """Measure one changed line of a service with many dependencies."""
    context, cache = f"{folder}/service", f"{netloc}/cache/many:main"
    os.mkdir(context)
    write_service(context)
    target = f"--cache-to=type=registry,ref={cache},mode=max,mounts=all"
    costs = {"cold": machines.build(machines.fresh(), context, target)}
    main = Path(context, "main.go")
    main.write_text(main.read_text().replace(":8000", ":8001"))
    source = f"--cache-from=type=registry,ref={cache}"
    costs["one line, layers"] = machines.build(machines.fresh(), context, f"{source},mounts=false")
    costs["one line, layers and mounts"] = machines.build(machines.fresh(), context, source)
    return costs


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cache", description=__doc__)
    parser.add_argument("store")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    adopt_orphans()
    folder = tempfile.mkdtemp(prefix="castoff-cache-")
    try:
        with DirectoryStore.open_(args.store, create=False) as source, memory_registry() as registry:
            machines = Machines(folder, registry, source)
            found = {
                "the Go service": unchanged(machines, registry.netloc),
                f"{DEPENDENCIES} dependencies": changed(machines, registry.netloc, folder),
            }
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if args.json:
        plain = {name: {key: asdict(cost) for key, cost in costs.items()} for name, costs in found.items()}
        print(json.dumps(plain))
        return
    for name, costs in found.items():
        print(name)
        for key, cost in costs.items():
            print(
                f"  {key:<30}{cost.cpu:>8.2f} CPU-s {cost.wall:>8.2f} s {cost.requests:>4} requests"
                f" {cost.blobs / 1e6:>8.2f} MB fetched {cost.unpacked / 1e6:>8.1f} MB unpacked"
            )


if __name__ == "__main__":
    main()
