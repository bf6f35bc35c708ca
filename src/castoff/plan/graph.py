"""The graph of stages, and what is asked of a plan."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from castoff.oci.platform import Platform

if TYPE_CHECKING:
    from collections.abc import Callable

    from castoff.location import SourceRange
    from castoff.plan.stage import Stage
    from castoff.plan.step import NetworkMode


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """What a caller wants of a Dockerfile.

    Attributes:
        target: the name (or number) of the stage to build; "" for the last.
        build_args: ``--build-arg`` pairs in order; the last of a key counts.
        labels: ``--label`` pairs, set on the target.
        build_platform: the machine that builds (BUILDPLATFORM and its kin).
        target_platform: the platform to build for; None where it was not asked for, which is `build_platform`.
        epoch: the value that ARG SOURCE_DATE_EPOCH gives where a build argument does not; None for none.
        no_cache_filter: names of stages that must run again.
        network: the mode of steps that don't say ``--network``.
        show_platform: whether progress names the platform of each step (several platforms are built at once).
        source_time: gives the time of a remote source in seconds since 1970, or None for one that has none: of the
            build context (``context``), of a named context, or of a URL. It may use the network.
    """

    target: str = ""
    build_args: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    build_platform: Platform = field(default_factory=Platform.host)
    target_platform: Platform | None = None
    epoch: int | None = None
    no_cache_filter: tuple[str, ...] = ()
    network: NetworkMode = "default"
    show_platform: bool = False
    source_time: Callable[[str], int | None] | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class PlanWarning:
    """Something that is allowed and is likely a mistake."""

    message: str
    location: SourceRange | None = None
    rule: str = ""


@dataclass(frozen=True, slots=True)
class StageGraph:
    """The stages that a target needs.

    Attributes:
        stages: topologically ordered: each after the stages that it needs; the target is the last.
        warnings: what the reader of the build's output should know.
        names: names of all stages of the Dockerfile, needed or not.
        epoch: the SOURCE_DATE_EPOCH of the request, of a build argument, or of an ARG before the first FROM, in
            seconds; None where there is none.
    """

    stages: tuple[Stage, ...]
    warnings: tuple[PlanWarning, ...] = ()
    names: tuple[str, ...] = ()
    epoch: int | None = None

    @property
    def target(self) -> Stage:
        """The stage that was asked for."""
        return self.stages[-1]

    def stage(self, index: int) -> Stage:
        """Return the stage with `index`, its place in the Dockerfile.

        Raises:
            KeyError: the target does not need that stage.
        """
        for stage in self.stages:
            if stage.index == index:
                return stage
        raise KeyError(index)

    def dependents(self, index: int) -> tuple[Stage, ...]:
        """Return the stages that need the stage with `index` directly."""
        return tuple(stage for stage in self.stages if index in stage.needs())
