"""What is measured: the scenarios S1 to S7c, and how one run of each is set up and checked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from benchmarks import inputs
from benchmarks.builders import Builder, Job, base_environment, check_archive, quiet
from benchmarks.inputs import BUSYBOX, GOLANG, MIB, STATIC, Base
from benchmarks.measure import CommandError, Sample, peak_memory, timed

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SERVICE = os.path.join(ROOT, "services", "devops-info-service-go")
RECIPES = {GOLANG: "golang-1.22", STATIC: "static"}
CHANGED_TEXT = b'serviceDescription = "'


class Kind(Enum):
    """What is there before the timed build: nothing, the same build, or the build of other sources."""

    COLD = "cold"
    NOOP = "no-op"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Scenario:
    """One scenario; ``job`` makes its inputs when they are first wanted."""

    name: str
    title: str
    kind: Kind
    job: Callable[[Inputs], Job]


@dataclass(slots=True)
class Inputs:
    """The inputs, below a work folder, made on first use; ``layouts`` gives bases that are not to be assembled."""

    workdir: str
    layouts: Mapping[str, str] = field(default_factory=dict)

    def base(self, reference: str) -> Base:
        """Return a base image, given by the user, made from busybox, or assembled from its recipe and lock."""
        has_shell = reference != STATIC
        if reference in self.layouts:
            return Base(reference, self.layouts[reference], has_shell)
        name = reference.rpartition("/")[2].replace(":", "-")
        make = inputs.make_busybox if reference == BUSYBOX else lambda path: self._assemble(reference, path)
        return Base(reference, inputs.once(os.path.join(self.workdir, "bases", name), make), has_shell)

    def tree(self) -> Job:
        """20,000 files into an empty image."""
        context = inputs.once(os.path.join(self.workdir, "tree"), inputs.make_tree)
        return Job("bench-tree", self._dockerfile("tree"), context)

    def blob(self) -> Job:
        """1 GiB in one file to a gzip archive."""
        context = inputs.once(os.path.join(self.workdir, "blob"), inputs.make_blob)
        archive = os.path.join(self.workdir, "archive.tar")
        return Job("bench-blob", self._dockerfile("tree"), context, archive=archive)

    def stages(self) -> Job:
        """Eight stages and one that copies from all."""
        return Job("bench-stages", self._dockerfile("stages"), self._empty(), (self.base(BUSYBOX),))

    def steps(self) -> Job:
        """Fifty small steps."""
        return Job("bench-steps", self._dockerfile("steps"), self._empty(), (self.base(BUSYBOX),))

    def service(self) -> Job:
        """The Go service, in a copy that may be changed."""
        copy = os.path.join(self.workdir, "service")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(SERVICE, copy)
        bases = (self.base(GOLANG), self.base(STATIC))
        return Job("bench-service", os.path.join(copy, "Dockerfile"), copy, bases)

    def _dockerfile(self, name: str) -> str:
        return os.path.join(inputs.once(os.path.join(self.workdir, "dockerfiles"), inputs.make_dockerfiles), name)

    def _empty(self) -> str:
        return inputs.once(os.path.join(self.workdir, "empty"), inputs.make_empty)

    def _assemble(self, reference: str, path: str) -> None:
        castoff = os.path.join(os.path.dirname(sys.executable), "castoff")
        env = {**os.environ, **base_environment(self.workdir), "CASTOFF_ROOT": os.path.join(self.workdir, "assembled")}
        recipe = os.path.join(ROOT, "bases", RECIPES[reference] + ".toml")
        quiet([castoff, "base", "assemble", recipe, "-t", reference], env)
        archive = path + ".tar"
        quiet([castoff, "save", "--format", "oci", "-o", archive, reference], env)
        subprocess.run(["tar", "-xf", archive, "-C", path], check=True)
        os.unlink(archive)


SCENARIOS = (
    Scenario("S1", "two-stage Go build, cold", Kind.COLD, Inputs.service),
    Scenario("S2", "two-stage Go build, nothing changed", Kind.NOOP, Inputs.service),
    Scenario("S3", "two-stage Go build, main.go changed", Kind.CHANGED, Inputs.service),
    Scenario("S4", "20,000 files, 200 MB, cold", Kind.COLD, Inputs.tree),
    Scenario("S4c", "20,000 files, 200 MB, nothing changed", Kind.NOOP, Inputs.tree),
    Scenario("S5", "1 GiB, half random, to a gzip OCI archive", Kind.COLD, Inputs.blob),
    Scenario("S6", "eight stages of `sleep 1`, one that copies from all", Kind.COLD, Inputs.stages),
    Scenario("S7", "50 small `RUN` steps, cold", Kind.COLD, Inputs.steps),
    Scenario("S7c", "50 small `RUN` steps, nothing changed", Kind.NOOP, Inputs.steps),
)


class Trial:
    """One scenario on one builder: prepares, runs and checks it."""

    def __init__(self, scenario: Scenario, builder: Builder, job: Job, logs: str) -> None:
        self.scenario = scenario
        self.builder = builder
        self.job = job
        self.log = os.path.join(logs, f"{scenario.name}-{builder.name}.log")
        self.commands = builder.commands(job)
        self.prepared_id = ""

    def prepare(self) -> None:
        """Do what is done once before the runs: a warm scenario is built, twice, as whoever builds often has it."""
        if self.scenario.kind is not Kind.COLD:
            self.builder.reset(self.job)
            for _ in range(2):
                timed(self.commands or [], self.builder.env, self.log, self.builder.daemon)
            self.prepared_id = self.builder.image_id(self.job)

    def run(self, number: int) -> Sample:
        """Do one timed run.

        Raises:
            CommandError: It failed, or was not what it was to be: cold, or cached.
        """
        self._before(number)
        sample = timed(self.commands or [], self.builder.env, self.log, self.builder.daemon)
        self._check()
        return sample

    def memory(self) -> int:
        """Do one untimed run and return the builder's peak memory in bytes."""
        self._before(-1)
        peak = peak_memory(self.commands or [], self.builder.env, self.log, self.builder.programs, self.builder.daemon)
        self._check()
        return peak

    def _before(self, number: int) -> None:
        if self.job.archive and os.path.exists(self.job.archive):
            os.unlink(self.job.archive)
        if self.scenario.kind is Kind.COLD:
            self.builder.reset(self.job)
        elif self.scenario.kind is Kind.CHANGED:
            change_source(os.path.join(self.job.context, "main.go"), f"{self.builder.name} {number} ")
        os.sync()

    def _check(self) -> None:
        with open(self.log, encoding="utf-8", errors="replace") as file:
            steps = self.builder.steps(file.read())
        image = self.builder.image_id(self.job)
        kind = self.scenario.kind
        wrong = {
            Kind.COLD: steps.cached > 0,
            Kind.NOOP: steps.cached < steps.total or steps.cached == 0 or image != self.prepared_id,
            Kind.CHANGED: steps.cached == 0 or image == self.prepared_id,
        }[kind]
        if wrong or steps.total == 0:
            where = f"{self.scenario.name} on {self.builder.name}"
            found = f"{steps.cached} of {steps.total} steps from the cache, image {image[:12]}"
            raise CommandError(f"{where} was not {kind.value}: {found}; see {self.log}")
        self.prepared_id = image
        if self.job.archive:
            check_archive(self.job.archive, inputs.BLOB_BYTES // 2 - MIB)


def change_source(path: str, mark: str) -> None:
    """Put a mark into a string of the service that ends up in its binary.

    Raises:
        CommandError: The string is not where it was.
    """
    with open(os.path.join(SERVICE, "main.go"), "rb") as file:
        source = file.read()
    changed = source.replace(CHANGED_TEXT, CHANGED_TEXT + mark.encode(), 1)
    if changed == source:
        raise CommandError(f"{path}: no {CHANGED_TEXT.decode()}…")
    with open(path, "wb") as file:
        file.write(changed)
