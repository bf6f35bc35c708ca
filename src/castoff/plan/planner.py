"""Planning: a Dockerfile and a request give the graph of stages that the target needs."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from castoff.dockerfile.culprit import point_at
from castoff.dockerfile.parser import Dockerfile, parse_trigger
from castoff.dockerfile.suggest import hint
from castoff.dockerfile.words import WordLexer
from castoff.errors import CastoffError, InvalidReferenceError, PlanError
from castoff.oci.config import ContainerConfig
from castoff.oci.platform import Platform
from castoff.plan.assemble import assemble
from castoff.plan.draft import Command, Draft, Drafts, split_stages, triggers_of
from castoff.plan.epoch import stage_source
from castoff.plan.graph import PlanRequest, PlanWarning, StageGraph
from castoff.plan.scope import (
    EPOCH_ARG,
    automatic_args,
    build_args,
    epoch_of,
    expand,
    global_args,
    proxy_environment,
    unconsumed,
)
from castoff.plan.sources import SCRATCH, Sources
from castoff.plan.stage import Base, ImageBase, ScratchBase, Stage, StageBase
from castoff.plan.stagescope import BuildScope, StageScope
from castoff.plan.state import StageState

if TYPE_CHECKING:
    from castoff.dockerfile.instructions import From
    from castoff.plan.resolver import ImageResolver, ResolvedBase
    from castoff.plan.step import Step


def plan(dockerfile: Dockerfile, request: PlanRequest, resolver: ImageResolver) -> StageGraph:
    """Work out the stages that a target needs, and their steps.

    Images are asked for only where a stage that is needed names them.

    Args:
        dockerfile: what `castoff.dockerfile.parser.parse` gave.
        request: target, arguments and platforms.
        resolver: knows images and named contexts.

    Raises:
        ExpansionError: a variable can't be expanded.
        UnknownStageError: a stage is named that does not exist.
        StageCycleError: stages need one another.
        PlanError: an instruction asks for something that makes no sense.
        CastoffError: what the resolver raises, with the place.
    """
    try:
        return _Planner(dockerfile, request, resolver).plan()
    except CastoffError as error:
        point_at(error, dockerfile.lines)
        raise


class _Planner:
    def __init__(self, dockerfile: Dockerfile, request: PlanRequest, resolver: ImageResolver) -> None:
        self.dockerfile = dockerfile
        self.request = request
        self.lexer = WordLexer(dockerfile.escape)
        self.target_platform = request.target_platform or request.build_platform
        self.drafts = Drafts()
        self.sources = Sources(self.drafts, resolver, self.target_platform)
        self.resolved: dict[int, ResolvedBase] = {}
        self.warnings: list[PlanWarning] = []

    def plan(self) -> StageGraph:
        arguments, stages = split_stages(self.dockerfile.instructions)
        if not stages:
            raise PlanError("dockerfile contains no stages to build", hint="a Dockerfile needs a FROM")
        given = build_args(self.request)
        automatic = automatic_args(self.request, self.request.target or stages[-1][0].name)
        names = global_args(arguments, automatic, given, self.lexer)
        for index, (head, commands) in enumerate(stages):
            draft = self._draft(index, head, names)
            draft.commands = [] if draft.replaced else [Command(item) for item in commands]
            self.drafts.add(draft)
        epoch = epoch_of(given, names, self._is_source)
        if epoch is None:
            epoch = self._source_epoch(names, given)
        target = self.drafts.target(self.request.target)
        self.drafts.check_order()
        lone = self.drafts.only_one()
        needed = self._needed(target)
        scope = BuildScope(self.lexer, names, given, proxy_environment(given), self.request.network, self.sources)
        made = tuple(self._stage(draft, scope, draft is target, lone) for draft in needed)
        self._warn_of_arguments(automatic)
        return StageGraph(made, tuple(self.warnings), tuple(self.drafts.names), epoch)

    def _source_epoch(self, scope_names: dict[str, str], given: dict[str, str]) -> int | None:
        """Return the time of the source that SOURCE_DATE_EPOCH names, which becomes its value; None for none."""
        names = given if EPOCH_ARG in given else scope_names
        name = names.get(EPOCH_ARG, "")
        if not name:
            return None
        draft = self.drafts.find(name, None)
        if draft is not None and not draft.replaced:
            name = stage_source(draft, scope_names, given, self.lexer)
        if self.request.source_time is None:
            return None
        seconds = self.request.source_time(name)
        if seconds is not None:
            names[EPOCH_ARG] = str(seconds)
        return seconds

    def _is_source(self, name: str) -> bool:
        return self.drafts.find(name, None) is not None or self.sources.context_kind(name) != "none"

    def _draft(self, index: int, head: From, names: dict[str, str]) -> Draft:
        base = expand(self.lexer, head.base, names, head.location)
        if not base:
            raise PlanError(
                f"base name ({head.base}) should not be blank",
                hint="give the ARG a default before the first FROM, or pass --build-arg",
                location=head.location,
            )
        platform = self._platform(head, names) if head.platform else None
        replaced = bool(head.name) and self.sources.context_kind(head.name) != "none"
        return Draft(index, head, head.name if replaced else base, platform, replaced=replaced)

    def _platform(self, head: From, names: dict[str, str]) -> Platform:
        text = expand(self.lexer, head.platform, names, head.location)
        unset = sorted(self.lexer.expand(head.platform, names).unmatched)
        near = next(filter(None, (hint(name, names) for name in unset)), None)
        if not text:
            raise PlanError(f"empty platform value from expression {head.platform}", hint=near, location=head.location)
        try:
            return Platform.parse(text)
        except InvalidReferenceError as error:
            raise PlanError(
                f"failed to parse platform {head.platform}: {error.message}",
                hint=near or error.hint,
                location=head.location,
            ) from error

    def _needed(self, target: Draft) -> list[Draft]:
        """Return the stages that the target needs, bases asked for and triggers put in."""
        while True:
            needed = self.drafts.reachable(target)
            again = False
            for draft in needed:
                again = self._prepare(draft) or again
            if not again:
                return needed

    def _prepare(self, draft: Draft) -> bool:
        """Ask for the base of a stage and put in its triggers; return whether they may need further stages."""
        if draft.triggered:
            return False
        draft.triggered = True
        if draft.base is not None:
            triggers = triggers_of(draft.base)
        elif draft.base_name == SCRATCH and not draft.replaced:
            triggers = []
        else:
            resolved = self._resolve(draft)
            triggers = [] if draft.replaced else list(resolved.config.config.on_build)
        where = draft.head.location
        draft.commands[:0] = [Command(parse_trigger(text, where), on_build=True) for text in triggers]
        return bool(triggers)

    def _resolve(self, draft: Draft) -> ResolvedBase:
        wanted = draft.platform or self.target_platform
        resolved = self.sources.image(draft.base_name, wanted, draft.head.location)
        self.resolved[draft.index] = resolved
        got = resolved.config.platform
        if resolved.kind != "context-local" and (got.os, got.architecture) != (wanted.os, wanted.architecture):
            message = (
                f'Base image {draft.base_name} was pulled with platform "{got}", expected "{wanted}" for current build'
            )
            self.warnings.append(PlanWarning(message, draft.head.location, "InvalidBaseImagePlatform"))
        return resolved

    def _start(self, draft: Draft) -> StageState:
        """Return the state of a stage right after its FROM."""
        if draft.base is not None:
            assert draft.base.state is not None  # stages are made in the order of the Dockerfile
            return draft.base.state.fork()
        resolved = self.resolved.get(draft.index)
        if resolved is None:
            platform = self.target_platform
            return StageState.of_image(platform, platform, ContainerConfig(working_dir="/"))
        platform = draft.platform or self.target_platform
        if resolved.kind == "context-local":
            return StageState.of_image(platform, platform, replace(resolved.config.config, working_dir="/"))
        image = resolved.config
        return StageState.of_image(platform, image.platform, image.config, image.author)

    def _stage(self, draft: Draft, scope: BuildScope, is_target: bool, lone: bool) -> Stage:
        state = draft.state = self._start(draft)
        steps = assemble(StageScope(scope, draft, state))
        display = "" if lone else draft.name
        base = self._base(draft)
        steps, total = self._numbered(steps, display, state.platform, isinstance(base, ImageBase))
        if isinstance(base, ImageBase):
            base = replace(base, step_name=self._base_name(draft, base, display, state.platform, total))
        image_platform = state.image_platform
        if is_target:
            state.gathered.labels.update(self.request.labels)
            image_platform = self.request.target_platform or image_platform
        return Stage(
            index=draft.index,
            name=draft.head.name,
            display_name=display,
            base=base,
            platform=state.platform,
            steps=tuple(steps),
            config=state.whole_config(),
            author=state.author,
            location=draft.head.location,
            no_cache=draft.head.name in {name.lower() for name in self.request.no_cache_filter}
            and bool(draft.head.name),
            base_name=draft.base_name,
            image_platform=None if image_platform == state.platform else image_platform,
        )

    def _base(self, draft: Draft) -> Base:
        if draft.base is not None:
            return StageBase(draft.base.index)
        resolved = self.resolved.get(draft.index)
        if resolved is None:
            return ScratchBase()
        return ImageBase(draft.base_name, draft.platform or self.target_platform, resolved, "")

    def _numbered(self, steps: list[Step], display: str, platform: Platform, has_base: bool) -> tuple[list[Step], int]:
        """Give the steps that are shown their numbers; a base that is an image is number 1."""
        total = sum(1 for step in steps if step.name) + has_base
        number = int(has_base)
        numbered = []
        for step in steps:
            if step.name:
                number += 1
                prefix = self._prefix(display, platform, number, total)
                numbered.append(replace(step, name=prefix + step.name, number=number, total=total))
            else:
                numbered.append(step)
        return numbered, total

    def _prefix(self, display: str, platform: Platform, number: int, total: int) -> str:
        shown = f"{platform} " if self.request.show_platform else ""
        name = f"{display} " if display else ""
        width = int(1 + math.log10(total))
        return f"[{shown}{name}{number:{width}d}/{total}] "

    def _base_name(self, draft: Draft, base: ImageBase, display: str, platform: Platform, total: int) -> str:
        if draft.replaced:
            return f"[context {draft.head.name}] {base.resolved.reference}"
        return f"{self._prefix(display, platform, 1, total)}FROM {base.resolved.reference}"

    def _warn_of_arguments(self, automatic: dict[str, str]) -> None:
        unused = unconsumed(self.request, self.dockerfile.instructions, automatic)
        if unused:
            names = " ".join(unused)
            self.warnings.append(PlanWarning(f"[Warning] One or more build-args [{names}] were not consumed"))
