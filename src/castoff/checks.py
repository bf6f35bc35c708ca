"""Looks at a Dockerfile without building it: its findings and errors, its targets, and what a target takes."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from castoff.context.ignore import IgnorePatterns
from castoff.dockerfile.instructions import From
from castoff.dockerfile.lint.outline import Outline, outline
from castoff.dockerfile.parser import Reading, read
from castoff.errors import (
    BlobNotFoundError,
    CastoffError,
    ContextError,
    InvalidReferenceError,
    PlanError,
    StoreError,
    UnknownStageError,
)
from castoff.events import NullObserver
from castoff.oci.config import ImageConfig
from castoff.oci.platform import Platform
from castoff.oci.reference import Reference
from castoff.ops.resolver import StoreResolver
from castoff.plan.graph import PlanRequest
from castoff.plan.linting import check
from castoff.plan.planner import plan
from castoff.plan.resolver import ResolvedBase
from castoff.request import PROXIES, BuildRequest
from castoff.store.directory import DirectoryStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from castoff.dockerfile.lint.findings import Finding
    from castoff.dockerfile.lint.linter import LintResult
    from castoff.location import SourceRange
    from castoff.plan.resolver import ContextKind


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check came to.

    Attributes:
        filename: the name of the Dockerfile for messages.
        data: its text.
        findings: by line.
        error: what a build would be refused for before any step; None where nothing was found.
        fails: whether the Dockerfile asks for findings to be errors.
        unknown: names of base images that are not in the store, so that the variables that they set are not known.
    """

    filename: str
    data: bytes = field(repr=False)
    findings: tuple[Finding, ...] = ()
    error: CastoffError | None = None
    fails: bool = False
    unknown: tuple[str, ...] = ()


def check_build(request: BuildRequest) -> CheckReport:
    """Check what a build would be made from: the target and all that it needs, or every stage where none is named.

    Nothing is executed and nothing is fetched. A base image that the store lacks is no error: what depends on its
    config is then not checked.

    Raises:
        ContextError: the Dockerfile or the ignore file can't be read.
        UsageError: a named context is not valid.
    """
    name, data = dockerfile_of(request)
    reading = read(data, name)
    ignore = _ignore_of(request)
    platform = _platform_of(request)
    asked = plan_request(request, platform)
    with _open(request) as store:
        known = _Known(request, store, platform)
        try:
            result = check(reading, asked, known, ignore, all_stages=not request.target)
        except CastoffError as error:
            return CheckReport(name, data, error=reading.error or error)
        problem = reading.error or _plan_error(reading, asked, _Lenient(known))
    return CheckReport(name, data, result.findings, problem, result.options.error, result.unknown)


def targets_of(request: BuildRequest) -> tuple[tuple[From, ...], bytes]:
    """Return the FROM of each stage, and the text of the Dockerfile.

    Raises:
        ContextError: the Dockerfile can't be read.
        ParseError: it is not valid.
    """
    name, data = dockerfile_of(request)
    reading = read(data, name)
    if reading.error is not None:
        raise reading.error
    return tuple(item for item in reading.dockerfile.instructions if isinstance(item, From)), data


def outline_of(request: BuildRequest) -> tuple[Outline, bytes]:
    """Return the arguments, secrets and ssh agents that the target takes, and the text of the Dockerfile.

    Raises:
        ContextError: the Dockerfile can't be read.
        DockerfileError: it is not valid.
        PlanError: its stages can't be put together.
    """
    name, data = dockerfile_of(request)
    reading = read(data, name)
    if reading.error is not None:
        raise reading.error
    platform = _platform_of(request)
    asked = plan_request(request, platform)
    with _open(request) as store:
        known = _Known(request, store, platform)
        plan(reading.dockerfile, asked, _Lenient(known))
        result: LintResult = check(reading, asked, known)
    target = result.stages.target(request.target)
    if target is None:  # the plan has said so before
        raise UnknownStageError(f'target stage "{request.target}" could not be found')
    return outline(result.stages, target), data


def plan_request(request: BuildRequest, platform: Platform, *, show_platform: bool = False) -> PlanRequest:
    """Return what a build asks of the plan, for one of its platforms."""
    environment = dict(request.environment)
    build_args: list[tuple[str, str]] = []
    for key, value in request.build_args:
        taken = environment.get(key) if value is None else value
        if taken is not None:
            build_args.append((key, taken))
    given = {key for key, _value in build_args}
    build_args += [(name, environment[name]) for name in PROXIES if name in environment and name not in given]
    return PlanRequest(
        target=request.target,
        build_args=tuple(build_args),
        labels=request.labels,
        target_platform=platform if request.platforms else None,
        show_platform=show_platform,
        epoch=request.epoch,
        no_cache_filter=request.no_cache_filter,
    )


def dockerfile_path(request: BuildRequest) -> str:
    """Return the host path of the Dockerfile."""
    return request.dockerfile or os.path.join(request.context, "Dockerfile")


def ignore_files(request: BuildRequest) -> list[str]:
    """Return the host paths of the ignore files, of which the first that exists counts."""
    if not request.context:
        return []
    found = [os.path.join(request.context, ".dockerignore")]
    if request.dockerfile_data is None:
        found.insert(0, dockerfile_path(request) + ".dockerignore")
    return found


def dockerfile_of(request: BuildRequest) -> tuple[str, bytes]:
    """Return the name and the text of the Dockerfile.

    Raises:
        ContextError: it can't be read.
    """
    if request.dockerfile_data is not None:
        return "Dockerfile", request.dockerfile_data
    path = dockerfile_path(request)
    data = _read_file(path)
    if data is None:
        raise ContextError(f"there is no Dockerfile at {path}", hint="name it with -f")
    return os.path.basename(path), data


def _read_file(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ContextError(f"{path} can't be read: {error.strerror}") from error


def _ignore_of(request: BuildRequest) -> IgnorePatterns | None:
    for path in ignore_files(request):
        data = _read_file(path)
        if data is not None:
            return IgnorePatterns.parse(data) if data else None
    return None


def _open(request: BuildRequest) -> AbstractContextManager[DirectoryStore | None]:
    try:
        return DirectoryStore.open_(request.store, create=False)
    except StoreError:
        return nullcontext()


def _platform_of(request: BuildRequest) -> Platform:
    return Platform.parse(request.platforms[0]) if request.platforms else Platform.host()


class _Known:
    """Resolves what the request and the store have; there may be no store."""

    def __init__(self, request: BuildRequest, store: DirectoryStore | None, platform: Platform) -> None:
        config = ImageConfig(platform)
        self._resolver = StoreResolver(store, request.build_contexts, config, NullObserver()) if store else None

    def context_kind(self, name: str) -> ContextKind:
        """Say whether the request has a named context `name`."""
        return "none" if self._resolver is None else self._resolver.context_kind(name)

    def resolve(self, name: str, platform: Platform, location: SourceRange | None) -> ResolvedBase:
        """Return what `name` stands for."""
        if self._resolver is not None:
            return self._resolver.resolve(name, platform, location)
        try:
            reference = Reference.parse(name)
        except InvalidReferenceError as error:
            raise PlanError(error.message, hint=error.hint, location=location) from error
        raise BlobNotFoundError(f"there is no store to have the image {reference.familiar}", location=location)


class _Lenient:
    """Resolves an image that is not there too: as one with an empty config."""

    def __init__(self, known: _Known) -> None:
        self._known = known

    def context_kind(self, name: str) -> ContextKind:
        """Say whether the request has a named context `name`."""
        return self._known.context_kind(name)

    def resolve(self, name: str, platform: Platform, location: SourceRange | None) -> ResolvedBase:
        """Return what `name` stands for, or an image of which nothing is known."""
        try:
            return self._known.resolve(name, platform, location)
        except BlobNotFoundError:
            return ResolvedBase(name, name, ImageConfig(platform))


def _plan_error(reading: Reading, asked: PlanRequest, resolver: _Lenient) -> CastoffError | None:
    """Return what planning is refused for: of the target, or of every stage where none is named."""
    try:
        for target in _targets(reading, asked):
            plan(reading.dockerfile, replace(asked, target=target), resolver)
    except CastoffError as error:
        return error
    return None


def _targets(reading: Reading, asked: PlanRequest) -> Iterator[str]:
    yield asked.target
    if not asked.target:
        stages = sum(1 for item in reading.dockerfile.instructions if isinstance(item, From))
        yield from (str(index) for index in range(stages - 1))
