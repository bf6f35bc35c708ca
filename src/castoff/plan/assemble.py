"""From instructions to steps: each is expanded with what is in scope, and changes the state of its stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from castoff.dockerfile import instructions as ins
from castoff.errors import CastoffError, PlanError
from castoff.plan.configure import configure
from castoff.plan.paths import clean, join
from castoff.plan.run import run
from castoff.plan.stagescope import Made, StageScope
from castoff.plan.step import ConfigStep, Step, WorkdirStep
from castoff.plan.transfer import add, copy

if TYPE_CHECKING:
    from castoff.plan.draft import Command


def assemble(scope: StageScope) -> list[Step]:
    """Return the steps of a stage, their names without a number yet; the state of `scope` is then that of its end.

    Raises:
        ExpansionError: a variable can't be expanded.
        PlanError: an instruction asks for something that makes no sense.
        CastoffError: an image that an instruction names can't be had.
    """
    steps = []
    for index, command in enumerate(scope.draft.commands):
        location = command.instruction.location
        try:
            made = _take(command, scope)
        except CastoffError as error:
            error.location = error.location or location
            raise
        if made is None:
            continue
        name = f"ONBUILD {made.name}" if made.name and command.on_build else made.name
        steps.append(
            Step(index, made.payload, made.created_by, name=name, location=location, on_build=command.on_build)
        )
    return steps


def _take(command: Command, scope: StageScope) -> Made | None:
    item = command.instruction
    match item:
        case ins.Run():
            return run(item, scope)
        case ins.Copy():
            return copy(item, scope)
        case ins.Add():
            return add(item, scope)
        case ins.Workdir():
            return _workdir(item, scope)
        case ins.OnBuild():
            scope.state.gathered.triggers.append(item.expression)
            return None
        case ins.From():
            raise PlanError("FROM isn't allowed as an ONBUILD trigger")
        case _:
            text = configure(item, scope)
            return Made(ConfigStep(text), text)


def _workdir(item: ins.Workdir, scope: StageScope) -> Made:
    state = scope.state
    path = join(state.workdir, scope.word(item.path) or state.workdir)
    state.workdir = path
    state.set_config(working_dir=path)
    text = f"WORKDIR {path}"
    if clean(path) == "/":
        return Made(ConfigStep(text), text)
    return Made(WorkdirStep(clean(path), state.config.user), text, scope.shown(item.text))
