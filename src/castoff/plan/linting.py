"""Joins the checks of a Dockerfile with what the plan knows: platforms, arguments, images and named contexts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from castoff.dockerfile.instructions import From
from castoff.dockerfile.lint.linter import LintResult, lint
from castoff.dockerfile.lint.scope import IgnoreRules, LintScope, no_base
from castoff.errors import CastoffError
from castoff.plan.scope import automatic_args, build_args

if TYPE_CHECKING:
    from castoff.dockerfile.parser import Reading
    from castoff.location import SourceRange
    from castoff.oci.config import ImageConfig
    from castoff.oci.platform import Platform
    from castoff.plan.graph import PlanRequest
    from castoff.plan.resolver import ImageResolver

_NEVER_CONTEXTS = frozenset({"scratch", "context"})


def check(
    reading: Reading,
    request: PlanRequest,
    resolver: ImageResolver,
    ignore: IgnoreRules | None = None,
    *,
    all_stages: bool = False,
    look_up: bool = True,
) -> LintResult:
    """Check a Dockerfile for what a request builds of it. Nothing is executed.

    Args:
        reading: the Dockerfile, as far as it could be read.
        request: target, arguments and platforms.
        resolver: knows images and named contexts; an image that it lacks is no error here.
        ignore: the patterns of the ignore file.
        all_stages: whether stages that the target does not need are checked too.
        look_up: whether the resolver is asked for images at all.

    Raises:
        DockerfileError: the options of checks can't be read.
    """
    heads = [item for item in reading.dockerfile.instructions if isinstance(item, From)]
    target = request.target or (heads[-1].name if heads else "")
    scope = LintScope(
        target=request.target,
        all_stages=all_stages,
        build_args=build_args(request),
        automatic=automatic_args(request, target),
        platform=request.target_platform or request.build_platform,
        base=_Finder(resolver) if look_up else no_base,
        is_context=lambda name: name not in _NEVER_CONTEXTS and resolver.context_kind(name) != "none",
        ignore=ignore,
    )
    return lint(reading, scope)


class _Finder:
    """Asks a resolver for configs, and takes one that can't be had for not known."""

    def __init__(self, resolver: ImageResolver) -> None:
        self._resolver = resolver

    def __call__(self, name: str, platform: Platform, location: SourceRange) -> ImageConfig | None:
        """Return the config of an image; None where it can't be had."""
        try:
            resolved = self._resolver.resolve(name, platform, location)
        except CastoffError:
            return None
        if resolved.kind == "context-local":
            return replace(resolved.config, platform=platform)
        return resolved.config
