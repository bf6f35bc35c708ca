"""The builders that are measured: castoff, buildah and podman, docker, BuildKit's buildctl."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from benchmarks.measure import CommandError

if TYPE_CHECKING:
    from benchmarks.inputs import Base

SEARCH_PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
STEP = re.compile(r"^#(\d+) \[[^\]]*\d+/\d+\] (?!FROM\b)", re.MULTILINE)
CACHED = re.compile(r"^#(\d+) CACHED", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Job:
    """One build: the Dockerfile, its context and bases, the name it gets, and the archive to write if any."""

    name: str
    dockerfile: str
    context: str
    bases: tuple[Base, ...] = ()
    archive: str = ""


@dataclass(frozen=True, slots=True)
class Steps:
    """How many steps of a build's log came from the cache, and how many there were (0 where the log does not say)."""

    cached: int
    total: int


class Builder(Protocol):
    """A builder under measurement. ``programs`` are its own executables, ``daemon`` its daemons' command names."""

    name: str
    programs: frozenset[str]
    daemon: tuple[str, ...]
    env: Mapping[str, str]

    def version(self) -> str:
        """Return what it says its version is."""

    def reset(self, job: Job) -> None:
        """Forget every build, and have the job's bases imported and unpacked."""

    def commands(self, job: Job) -> list[list[str]] | None:
        """Return the commands that do the job, or None where this builder cannot."""

    def steps(self, log: str) -> Steps:
        """Return what the log of a build tells about its steps."""

    def image_id(self, job: Job) -> str:
        """Return the id that the last build of the job wrote."""


def quiet(argv: Sequence[str], env: Mapping[str, str]) -> str:
    """Run a command of the preparation and return its output.

    Raises:
        CommandError: It failed.
    """
    done = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CommandError(f"{' '.join(argv)}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout


def attempt(argv: Sequence[str], env: Mapping[str, str]) -> str:
    """Run a command of the preparation that may fail, and return its output."""
    return subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False).stdout


def buildkit_steps(log: str) -> Steps:
    """Count the steps in progress output of BuildKit's plain form."""
    steps = set(STEP.findall(log))
    return Steps(len(steps & set(CACHED.findall(log))), len(steps))


def read_id(path: str) -> str:
    """Return the image id in an ``--iidfile``.

    Raises:
        CommandError: The file is absent or holds something else.
    """
    try:
        with open(path, encoding="ascii") as file:
            text = file.read().strip().removeprefix("sha256:")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"no image id in {path}") from error
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise CommandError(f"no image id in {path}: {text[:80]}")
    return text


def check_archive(path: str, least: int) -> None:
    """Check that an OCI archive holds gzip layers of at least ``least`` bytes.

    Raises:
        CommandError: It does not.
    """
    with tarfile.open(path, mode="r:") as archive:

        def load(name: str) -> dict[str, list[dict[str, str]]]:
            member = archive.extractfile(name)
            if member is None:
                raise CommandError(f"{path}: no {name}")
            return dict(json.load(member))

        digest = load("index.json")["manifests"][0]["digest"]
        layers = load("blobs/sha256/" + digest.removeprefix("sha256:"))["layers"]
        sizes = [archive.getmember("blobs/sha256/" + layer["digest"].removeprefix("sha256:")).size for layer in layers]
    if not all(layer["mediaType"].endswith("gzip") for layer in layers) or sum(sizes) < least:
        raise CommandError(f"{path}: {len(layers)} layers of {sum(sizes)} bytes, or not gzip")


def base_environment(workdir: str) -> dict[str, str]:
    """Return the environment that every builder gets: nothing of the user's, all folders below ``workdir``."""
    home = os.path.join(workdir, "home")
    tmp = os.path.join(workdir, "tmp")
    for folder in (home, tmp):
        os.makedirs(folder, exist_ok=True)
    kept = {name: os.environ[name] for name in ("LANG", "USER", "XDG_RUNTIME_DIR", "DOCKER_HOST") if name in os.environ}
    return {**kept, "PATH": SEARCH_PATH, "HOME": home, "TMPDIR": tmp}


@dataclass(slots=True)
class Castoff:
    """castoff as ``./run install`` installs it, with a store of its own."""

    workdir: str
    program: str
    name: str = "castoff"
    programs: frozenset[str] = frozenset({os.path.realpath(sys.executable)})
    daemon: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.env = {**base_environment(self.workdir), "CASTOFF_ROOT": os.path.join(self.workdir, "castoff")}

    def version(self) -> str:
        """Return what it says its version is."""
        return quiet([self.program, "--version"], self.env).split()[-1]

    def reset(self, job: Job) -> None:
        """Make a new store, load the bases and build a throw-away image on each, which unpacks it."""
        shutil.rmtree(self.env["CASTOFF_ROOT"], ignore_errors=True)
        for number, base in enumerate(job.bases):
            quiet([self.program, "load", "-i", base.layout], self.env)
            step = "RUN : unpack" if base.has_shell else "WORKDIR /unpack"
            dockerfile = os.path.join(self.workdir, f"unpack{number}")
            with open(dockerfile, "w", encoding="utf-8") as file:
                file.write(f"FROM {base.reference}\n{step}\n")
            empty = os.path.join(self.workdir, "home")
            quiet([self.program, "build", "-q", "-t", f"unpack{number}", "-f", dockerfile, empty], self.env)

    def commands(self, job: Job) -> list[list[str]] | None:
        """Return the one command."""
        output = ["-o", f"type=oci,dest={job.archive}"] if job.archive else []
        command = [self.program, "build", "--progress", "plain", "-t", job.name, "--iidfile", self._iidfile(job)]
        return [[*command, *output, "-f", job.dockerfile, job.context]]

    def steps(self, log: str) -> Steps:
        """Read the log, which has BuildKit's form."""
        return buildkit_steps(log)

    def image_id(self, job: Job) -> str:
        """Return the id that the last build of the job wrote."""
        return read_id(self._iidfile(job))

    def _iidfile(self, job: Job) -> str:
        return os.path.join(self.workdir, f"castoff-{job.name}.iid")


@dataclass(slots=True)
class ContainersTool:
    """buildah or podman, with storage of its own, at its fastest: layers cached, stages parallel, no new network.

    Steps run in runc or crun on the host's network where root has one of them, else chrooted: measured, the first is
    the faster.
    """

    workdir: str
    name: str
    programs: frozenset[str] = frozenset()
    daemon: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    _common: list[str] = field(default_factory=list)
    _isolation: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.env = base_environment(self.workdir)
        program = shutil.which(self.name, path=SEARCH_PATH) or self.name
        runtime = shutil.which("runc", path=SEARCH_PATH) or shutil.which("crun", path=SEARCH_PATH)
        storage = os.path.join(self.workdir, self.name)
        self._common = [program, "--root", storage, "--runroot", storage + "-run", "--storage-driver", "overlay"]
        self._isolation = ["--isolation", "chroot"]
        if runtime and os.geteuid() == 0:
            self._isolation = ["--isolation", "oci", "--runtime", runtime, "--network", "host"]
            if self.name == "podman":
                self._isolation = ["--isolation", "oci", "--network", "host"]
                self._common += ["--runtime", runtime]
        self.programs = frozenset(os.path.realpath(found) for found in (program, runtime or program))

    def version(self) -> str:
        """Return what it says its version is."""
        return quiet([self._common[0], "--version"], self.env).split()[2]

    def reset(self, job: Job) -> None:
        """Remove every image but the bases, and pull the bases that are not there."""
        quiet([*self._common, "rm", "--all"], self.env)
        kept = {}
        for base in job.bases:
            found = attempt([*self._common, "images", "--quiet", "--no-trunc", base.reference], self.env).split()
            if not found:
                pulled = quiet([*self._common, "pull", "-q", f"oci:{base.layout}"], self.env).split()[-1]
                quiet([*self._common, "tag", pulled, base.reference], self.env)
                found = [pulled]
            kept[found[0].removeprefix("sha256:")] = base
        while others := sorted(self._images() - set(kept)):
            before = len(others)
            attempt([*self._common, "rmi", "--force", *others], self.env)  # fails on those it removed with another
            if len(self._images() - set(kept)) >= before:
                raise CommandError(f"{self.name} does not remove its images")

    def commands(self, job: Job) -> list[list[str]] | None:
        """Return the build, and the push to an archive if one is wanted."""
        options = ["--layers", "--pull-never", "--jobs", "8", *self._isolation, "--iidfile", self._iidfile(job)]
        build = [*self._common, "build", *options, "-t", job.name, "-f", job.dockerfile, job.context]
        if not job.archive:
            return [build]
        return [build, [*self._common, "push", "--quiet", job.name, f"oci-archive:{job.archive}"]]

    def steps(self, log: str) -> Steps:
        """Count the steps; FROM is none, and each instruction that is cached says so."""
        steps = re.findall(r"STEP \d+/\d+: (?!FROM\b|COMMIT\b)", log)
        return Steps(log.count("Using cache"), len(steps))

    def image_id(self, job: Job) -> str:
        """Return the id that the last build of the job wrote."""
        return read_id(self._iidfile(job))

    def _images(self) -> set[str]:
        listed = quiet([*self._common, "images", "--all", "--quiet", "--no-trunc"], self.env)
        return {line.removeprefix("sha256:") for line in listed.split()}

    def _iidfile(self, job: Job) -> str:
        return os.path.join(self.workdir, f"{self.name}-{job.name}.iid")


@dataclass(slots=True)
class Docker:
    """docker with its daemon, which must be running; its build cache and the benchmark's images are removed."""

    workdir: str
    name: str = "docker"
    programs: frozenset[str] = frozenset({shutil.which("docker", path=SEARCH_PATH) or "docker"})
    daemon: tuple[str, ...] = ("dockerd", "containerd")
    env: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.env = {**base_environment(self.workdir), "DOCKER_BUILDKIT": "1"}

    def version(self) -> str:
        """Return the daemon's version."""
        return quiet(["docker", "version", "--format", "{{.Server.Version}}"], self.env).strip()

    def reset(self, job: Job) -> None:
        """Drop the build cache and the image, and load the bases that are not there."""
        attempt(["docker", "rmi", "--force", job.name], self.env)
        quiet(["docker", "builder", "prune", "--all", "--force"], self.env)
        for base in job.bases:
            if not quiet(["docker", "images", "--quiet", base.reference], self.env).strip():
                archive = os.path.join(self.workdir, "base.tar")
                with tarfile.open(archive, "w") as file:
                    file.add(base.layout, arcname="")
                quiet(["docker", "load", "--input", archive], self.env)

    def commands(self, job: Job) -> list[list[str]] | None:
        """Return the build; the default driver writes no OCI archives."""
        if job.archive:
            return None
        command = ["docker", "build", "--progress", "plain", "--iidfile", self._iidfile(job), "-t", job.name]
        return [[*command, "-f", job.dockerfile, job.context]]

    def steps(self, log: str) -> Steps:
        """Read the log, which has BuildKit's form."""
        return buildkit_steps(log)

    def image_id(self, job: Job) -> str:
        """Return the id that the last build of the job wrote."""
        return read_id(self._iidfile(job))

    def _iidfile(self, job: Job) -> str:
        return os.path.join(self.workdir, f"docker-{job.name}.iid")


@dataclass(slots=True)
class Buildctl:
    """BuildKit without Docker: buildctl and a running buildkitd, whose cache is emptied; bases come as OCI layouts."""

    workdir: str
    name: str = "buildctl"
    programs: frozenset[str] = frozenset({shutil.which("buildctl", path=SEARCH_PATH) or "buildctl"})
    daemon: tuple[str, ...] = ("buildkitd",)
    env: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.env = base_environment(self.workdir)
        if "BUILDKIT_HOST" in os.environ:
            self.env = {**self.env, "BUILDKIT_HOST": os.environ["BUILDKIT_HOST"]}

    def version(self) -> str:
        """Return what it says its version is."""
        return quiet(["buildctl", "--version"], self.env).split()[2]

    def reset(self, job: Job) -> None:
        """Empty the daemon's cache, then build a throw-away image on each base, which unpacks it."""
        quiet(["buildctl", "prune", "--all"], self.env)
        for base in job.bases:
            dockerfile = os.path.join(self.workdir, "unpack.buildctl")
            with open(dockerfile, "w", encoding="utf-8") as file:
                file.write(f"FROM {base.reference}\n{'RUN : unpack' if base.has_shell else 'WORKDIR /unpack'}\n")
            empty = os.path.join(self.workdir, "home")
            for argv in self.commands(Job("unpack", dockerfile, empty, (base,))) or []:
                quiet(argv, self.env)

    def commands(self, job: Job) -> list[list[str]] | None:
        """Return the one command."""
        output = f"type=oci,dest={job.archive}" if job.archive else f"type=image,name={job.name}"
        command = ["buildctl", "build", "--progress", "plain", "--frontend", "dockerfile.v0", "--output", output]
        command += ["--metadata-file", self._metadata(job), "--local", f"context={job.context}"]
        command += ["--local", f"dockerfile={os.path.dirname(job.dockerfile)}"]
        command += ["--opt", f"filename={os.path.basename(job.dockerfile)}"]
        for number, base in enumerate(job.bases):
            with open(os.path.join(base.layout, "index.json"), encoding="utf-8") as file:
                digest = json.load(file)["manifests"][0]["digest"]
            command += ["--oci-layout", f"base{number}={base.layout}"]
            command += ["--opt", f"context:{base.reference}=oci-layout://base{number}@{digest}"]
        return [command]

    def steps(self, log: str) -> Steps:
        """Read the log, which has BuildKit's form."""
        return buildkit_steps(log)

    def image_id(self, job: Job) -> str:
        """Return the config digest from the metadata of the last build."""
        with open(self._metadata(job), encoding="utf-8") as file:
            return str(json.load(file)["containerimage.config.digest"]).removeprefix("sha256:")

    def _metadata(self, job: Job) -> str:
        return os.path.join(self.workdir, f"buildctl-{job.name}.json")


def find_builders(workdir: str, wanted: Sequence[str] = ()) -> list[Builder]:
    """Return castoff and the peers that are installed and answer, in a fixed order."""
    found: list[Builder] = []
    program = os.path.join(os.path.dirname(sys.executable), "castoff")
    if os.path.exists(program):
        found.append(Castoff(workdir, program))
    tools = [name for name in ("buildah", "podman") if shutil.which(name, path=SEARCH_PATH)]
    found.extend(ContainersTool(workdir, name) for name in tools)
    if _answers(["docker", "info", "--format", "{{.ServerVersion}}"]):
        found.append(Docker(workdir))
    if _answers(["buildctl", "debug", "workers"]):
        found.append(Buildctl(workdir))
    return [builder for builder in found if not wanted or builder.name in wanted]


def _answers(argv: Sequence[str]) -> bool:
    if shutil.which(argv[0], path=SEARCH_PATH) is None:
        return False
    try:
        return subprocess.run(argv, capture_output=True, timeout=20, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
