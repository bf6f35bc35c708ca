"""Stages while they are put together: which others they need, before anything is expanded or looked up."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from castoff.dockerfile.instructions import Arg, Copy, From, Instruction, OnBuild, Run
from castoff.dockerfile.mounts import mount_from
from castoff.dockerfile.suggest import hint
from castoff.errors import PlanError, StageCycleError, UnknownStageError

if TYPE_CHECKING:
    from castoff.location import SourceRange
    from castoff.oci.platform import Platform
    from castoff.plan.state import StageState


@dataclass(frozen=True, slots=True)
class Command:
    """An instruction of a stage, and whether a base brought it in."""

    instruction: Instruction
    on_build: bool = False


@dataclass(slots=True)
class Draft:
    """A stage that is being planned.

    Attributes:
        index: its place in the Dockerfile.
        head: its FROM.
        base_name: after FROM, variables expanded.
        platform: of ``--platform``; None where it is not given.
        base: the earlier stage that it is built upon.
        replaced: whether a named context stands in for the stage.
        commands: its instructions; triggers get put before them.
        triggered: whether the triggers of its base have been put in.
        state: what came of it, once its steps are made.
    """

    index: int
    head: From
    base_name: str
    platform: Platform | None
    base: Draft | None = None
    replaced: bool = False
    commands: list[Command] = field(default_factory=list)
    triggered: bool = False
    state: StageState | None = None

    @property
    def name(self) -> str:
        """The name of the stage for messages and progress."""
        return self.head.name or f"stage-{self.index}"


class Drafts:
    """All stages of a Dockerfile, by number and by name."""

    def __init__(self) -> None:
        self.all: list[Draft] = []
        self._by_name: dict[str, Draft] = {}

    def add(self, draft: Draft) -> None:
        """Take in the next stage; a base that is an earlier stage is found here."""
        if not draft.replaced:
            draft.base = self._by_name.get(draft.base_name.lower())
        self.all.append(draft)
        if draft.head.name:
            self._by_name[draft.head.name] = draft

    @property
    def names(self) -> list[str]:
        """The names of the stages that have one."""
        return [draft.head.name for draft in self.all if draft.head.name]

    def target(self, name: str) -> Draft:
        """Return the stage to build: by name, by number, or the last.

        Raises:
            UnknownStageError: there is no such stage.
        """
        if not name:
            return self.all[-1]
        found = self.find(name, None)
        if found is None:
            near = hint(name, self.names, case_sensitive=False)
            listed = f"the stages are {', '.join(self.names)}" if self.names else "no stage has a name"
            raise UnknownStageError(f'target stage "{name}" could not be found', hint=near or listed)
        return found

    def find(self, name: str, location: SourceRange | None) -> Draft | None:
        """Return the stage that ``from=name`` means; None where it is an image or a context.

        Raises:
            UnknownStageError: `name` is a number, and there are not as many stages.
        """
        found = self._by_name.get(name.lower())
        if found is not None or not re.fullmatch(r"[+-]?[0-9]{1,9}", name, re.ASCII):
            return found
        if not 0 <= int(name) < len(self.all):
            raise UnknownStageError(
                f"invalid stage index {int(name)}",
                hint=f"the stages are numbered from 0 to {len(self.all) - 1}",
                location=location,
            )
        return self.all[int(name)]

    def references(self, draft: Draft) -> Iterator[tuple[str, SourceRange]]:
        """Yield every ``from=`` of a stage, with its place."""
        for command in draft.commands:
            item = command.instruction
            if isinstance(item, Copy) and item.from_:
                yield item.from_, item.location
            elif isinstance(item, Run):
                for mount in item.mounts:
                    name = mount_from(mount)
                    if name:
                        yield name, item.location

    def needs(self, draft: Draft) -> dict[int, tuple[Draft, SourceRange]]:
        """Return the stages that a stage needs directly, with the place of the first mention.

        Raises:
            UnknownStageError: a number is given that no stage has.
        """
        found: dict[int, tuple[Draft, SourceRange]] = {}
        if draft.replaced:
            return found
        if draft.base is not None:
            found[draft.base.index] = (draft.base, draft.head.location)
        for name, location in self.references(draft):
            stage = self.find(name, location)
            if stage is not None:
                found.setdefault(stage.index, (stage, location))
        return found

    def check_order(self) -> None:
        """Refuse stages that need one another.

        Raises:
            StageCycleError: there is a ring, and this is one of its places.
            UnknownStageError: a number is given that no stage has.
        """
        needs = {draft.index: self.needs(draft) for draft in self.all}
        done: set[int] = set()
        for start in needs:
            if start not in done:
                self._walk(start, needs, done)

    def _walk(self, start: int, needs: dict[int, dict[int, tuple[Draft, SourceRange]]], done: set[int]) -> None:
        path = [start]
        entered = {start}
        pending = [iter(needs[start])]
        while pending:
            following = next(pending[-1], None)
            if following is None:
                pending.pop()
                done.add(path[-1])
                entered.discard(path.pop())
            elif following in entered:
                ring = [*path[path.index(following) :], following]
                names = " needs ".join(self.all[index].name for index in ring)
                raise StageCycleError(
                    f"circular dependency detected on stage: {self.all[following].name}",
                    hint=names,
                    location=needs[path[-1]][following][1],
                )
            elif following not in done:
                path.append(following)
                entered.add(following)
                pending.append(iter(needs[following]))

    def reachable(self, target: Draft) -> list[Draft]:
        """Return `target` and every stage that it needs, in the order of the Dockerfile.

        Raises:
            PlanError: a stage needs one that comes after it.
        """
        found: dict[int, Draft] = {}
        pending = [target]
        while pending:
            draft = pending.pop()
            if draft.index in found:
                continue
            found[draft.index] = draft
            for needed, location in self.needs(draft).values():
                if needed.index >= draft.index:
                    raise PlanError(
                        f'cannot copy from stage "{needed.name}", it needs to be defined before current stage '
                        f'"{draft.name}"',
                        hint="move that stage up",
                        location=location,
                    )
                pending.append(needed)
        return [found[index] for index in sorted(found)]

    def only_one(self) -> bool:
        """Say whether progress leaves out the stage's name: one stage, that reads from nothing else."""
        if len(self.all) != 1:
            return False
        commands = [command.instruction for command in self.all[0].commands]
        return not any(
            (isinstance(item, Copy) and item.from_) or (isinstance(item, Run) and item.mounts) for item in commands
        )


def split_stages(instructions: tuple[Instruction, ...]) -> tuple[list[Arg], list[tuple[From, list[Instruction]]]]:
    """Return the ARGs before the first FROM, and each FROM with what follows it."""
    arguments: list[Arg] = []
    stages: list[tuple[From, list[Instruction]]] = []
    for item in instructions:
        if isinstance(item, From):
            stages.append((item, []))
        elif stages:
            stages[-1][1].append(item)
        elif isinstance(item, Arg):
            arguments.append(item)
    return arguments, stages


def triggers_of(draft: Draft) -> list[str]:
    """Return the ONBUILD triggers that the stage itself sets for those built upon it."""
    return [command.instruction.expression for command in draft.commands if isinstance(command.instruction, OnBuild)]
