"""A resolver over a few images in memory, and a short way to plan a text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from castoff.dockerfile.parser import parse
from castoff.errors import StoreError
from castoff.oci.config import ContainerConfig, ImageConfig
from castoff.oci.platform import Platform
from castoff.plan.graph import PlanRequest, StageGraph
from castoff.plan.planner import plan
from castoff.plan.resolver import ContextKind, ResolvedBase

if TYPE_CHECKING:
    from castoff.location import SourceRange

AMD64 = Platform("linux", "amd64")
ARM64 = Platform("linux", "arm64")


@dataclass
class MemoryImages:
    """Images by name; contexts by name; the names that were asked for."""

    images: dict[str, ContainerConfig] = field(default_factory=dict)
    contexts: dict[str, ContextKind] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    platform: Platform | None = None

    def context_kind(self, name: str) -> ContextKind:
        return self.contexts.get(name, "none")

    def resolve(self, name: str, platform: Platform, location: SourceRange | None) -> ResolvedBase:
        self.asked.append((name, str(platform)))
        if self.context_kind(name) == "local":
            return ResolvedBase(name, name, ImageConfig(platform), "context-local")
        if name not in self.images:
            raise StoreError(f"there is no image {name}", location=location)
        config = ImageConfig(self.platform or platform, self.images[name], author="base author")
        return ResolvedBase(name, f"docker.io/library/{name}:latest", config)


def images() -> MemoryImages:
    return MemoryImages(
        {
            "base": ContainerConfig(
                user="1000:1000",
                env=("PATH=/bin", "LEVEL=base"),
                cmd=("from-base",),
                entrypoint=("entry",),
                working_dir="/srv",
                labels=(("origin", "base"),),
            ),
            "bare": ContainerConfig(),
            "tools": ContainerConfig(on_build=("COPY . /src", "RUN make")),
        }
    )


def planned(text: str, resolver: MemoryImages | None = None, **request: Any) -> StageGraph:
    """Plan a Dockerfile for linux/amd64 with the images above."""
    dockerfile = parse(text.encode("utf-8", "surrogateescape"))
    return plan(dockerfile, PlanRequest(build_platform=AMD64, **request), resolver or images())
