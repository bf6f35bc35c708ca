"""What ``from=`` means: a stage, an image, a named context, or nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from castoff.dockerfile.suggest import nearest
from castoff.errors import CastoffError, PlanError, UnknownStageError
from castoff.plan.step import ContextSource, ImageSource, ScratchSource, Source, StageSource

if TYPE_CHECKING:
    from castoff.location import SourceRange
    from castoff.oci.platform import Platform
    from castoff.plan.draft import Draft, Drafts
    from castoff.plan.resolver import ContextKind, ImageResolver, ResolvedBase

SCRATCH = "scratch"
_RESERVED = frozenset({SCRATCH, "context"})


class Sources:
    """Looks names up: stages first, then named contexts and images; an image is asked for once."""

    def __init__(self, drafts: Drafts, resolver: ImageResolver, platform: Platform) -> None:
        self._drafts = drafts
        self._resolver = resolver
        self._platform = platform
        self._images: dict[tuple[str, Platform], ResolvedBase] = {}

    def context_kind(self, name: str) -> ContextKind:
        """Say whether a named context of that name was given; ``scratch`` and ``context`` never are one."""
        return "none" if name.lower() in _RESERVED else self._resolver.context_kind(name)

    def image(self, name: str, platform: Platform, location: SourceRange) -> ResolvedBase:
        """Return what the resolver knows of an image.

        Raises:
            UnknownStageError: it is not there, and a stage has nearly that name.
            CastoffError: it is not there; with the place.
        """
        key = (name, platform)
        if key not in self._images:
            try:
                self._images[key] = self._resolver.resolve(name, platform, location)
            except CastoffError as error:
                near = nearest(name, self._drafts.names, case_sensitive=False)
                if near is not None:
                    raise UnknownStageError(
                        f"no stage is named {name}, and there is no such image: {error.message}",
                        hint=f"did you mean {near}?",
                        location=location,
                    ) from error
                error.location = error.location or location
                raise
        return self._images[key]

    def find(self, name: str, draft: Draft, location: SourceRange) -> Source:
        """Return what ``from=name`` in a stage means.

        Raises:
            PlanError: it is a stage that comes later.
            CastoffError: it is an image that can't be had.
        """
        stage = self._drafts.find(name, location)
        if stage is not None:
            if stage.index >= draft.index:
                raise PlanError(
                    f'cannot copy from stage "{stage.name}", it needs to be defined before current stage '
                    f'"{draft.name}"',
                    location=location,
                )
            return StageSource(stage.index)
        if name == SCRATCH:
            return ScratchSource()
        if self.context_kind(name) == "local":
            return ContextSource(name)
        resolved = self.image(name, self._platform, location)
        return ContextSource(name) if resolved.kind == "context-local" else ImageSource(name, resolved)
