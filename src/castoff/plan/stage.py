"""Stages: a base and the steps upon it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from castoff.oci.config import ContainerConfig
from castoff.plan.step import (
    BindMount,
    CacheMount,
    CopyStep,
    RunStep,
    Source,
    StageSource,
    Step,
)

if TYPE_CHECKING:
    from castoff.location import SourceRange
    from castoff.oci.platform import Platform
    from castoff.plan.resolver import ResolvedBase


@dataclass(frozen=True, slots=True)
class ScratchBase:
    """``FROM scratch``: no files."""


@dataclass(frozen=True, slots=True)
class StageBase:
    """An earlier stage; `index` is its `Stage.index`."""

    index: int


@dataclass(frozen=True, slots=True)
class ImageBase:
    """An image, or a folder given as a named context.

    Attributes:
        name: as written after FROM, variables expanded.
        platform: the one that was asked for.
        resolved: what the resolver gave.
        step_name: what progress shows for it (``[builder 1/5] FROM docker.io/library/golang:1.22-alpine@sha256:…``).
    """

    name: str
    platform: Platform
    resolved: ResolvedBase
    step_name: str


Base = ScratchBase | StageBase | ImageBase


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of the plan.

    Attributes:
        index: its place in the Dockerfile, from 0.
        name: the name after AS, in lower case; "" where it has none.
        display_name: as progress shows it: the name, ``stage-N``, or "" for a lone stage without a name.
        base: what it starts from.
        platform: the platform that its steps run for.
        steps: in order; triggers of the base first.
        config: the execution parameters after the last step (labels of the request in the target's).
        author: of MAINTAINER, or of the base.
        location: of its FROM.
        no_cache: whether the request wants its steps run again.
        base_name: the text after FROM, variables expanded, for messages.
        image_platform: what the image's config says; None where it is `platform`. It differs where a base for another
            platform than the one asked for is taken as it is.
    """

    index: int
    name: str
    display_name: str
    base: Base
    platform: Platform
    steps: tuple[Step, ...] = ()
    config: ContainerConfig = field(default=ContainerConfig())
    author: str = ""
    location: SourceRange | None = None
    no_cache: bool = False
    base_name: str = ""
    image_platform: Platform | None = None

    def sources(self) -> tuple[Source, ...]:
        """Return what the steps read beside their base, each once, in the order of first use."""
        found: dict[Source, None] = {}
        for step in self.steps:
            payload = step.payload
            if isinstance(payload, CopyStep):
                if payload.sources:
                    found[payload.source] = None
            elif isinstance(payload, RunStep):
                for mount in payload.mounts:
                    if isinstance(mount, BindMount | CacheMount):
                        found[mount.source] = None
        return tuple(found)

    def needs(self) -> tuple[int, ...]:
        """Return the indexes of the stages that it needs directly, in ascending order."""
        needed = {source.index for source in self.sources() if isinstance(source, StageSource)}
        if isinstance(self.base, StageBase):
            needed.add(self.base.index)
        return tuple(sorted(needed))
