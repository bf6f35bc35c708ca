"""What the rules need to know besides the Dockerfile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from castoff.oci.platform import Platform

if TYPE_CHECKING:
    from castoff.location import SourceRange
    from castoff.oci.config import ImageConfig

BaseFinder = Callable[[str, Platform, "SourceRange"], "ImageConfig | None"]
"""Gives the config of the image that a name stands for; None where it is not known."""


class IgnoreRules(Protocol):
    """The patterns of a .dockerignore."""

    @property
    def patterns(self) -> tuple[str, ...]:
        """The patterns, cleaned, in order."""

    @property
    def has_exceptions(self) -> bool:
        """Whether a pattern begins with ``!``."""

    def excludes(self, path: str) -> bool:
        """Say whether a path is excluded (idempotent)."""


def no_base(_name: str, _platform: Platform, _location: SourceRange) -> ImageConfig | None:
    """Know no image."""
    return None


def no_context(_name: str) -> bool:
    """Know no named context."""
    return False


@dataclass(frozen=True, slots=True)
class LintScope:
    """What a check is to be made for.

    Attributes:
        target: name or number of the stage that is built; "" for the last one.
        all_stages: whether stages that the target does not need are checked too.
        build_args: build arguments by name; that of ``BUILDKIT_DOCKERFILE_CHECK`` stands in for ``# check=``.
        automatic: values of the platform arguments (TARGETPLATFORM and its kin).
        platform: the platform that is built for.
        base: gives the configs of base images.
        is_context: says whether a named context of that name stands in for a stage.
        ignore: the patterns of the ignore file; None where there is none.
    """

    target: str = ""
    all_stages: bool = False
    build_args: Mapping[str, str] = field(default_factory=dict)
    automatic: Mapping[str, str] = field(default_factory=dict)
    platform: Platform = field(default_factory=Platform.host)
    base: BaseFinder = no_base
    is_context: Callable[[str], bool] = no_context
    ignore: IgnoreRules | None = None
