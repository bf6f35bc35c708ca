"""The stage that SOURCE_DATE_EPOCH may name: it only adds one remote source, whose time is meant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from castoff.dockerfile.instructions import Add, Arg
from castoff.errors import PlanError
from castoff.plan.paths import source_kind
from castoff.plan.scope import EPOCH_ARG, expand
from castoff.plan.sources import SCRATCH

if TYPE_CHECKING:
    from castoff.dockerfile.words import WordLexer
    from castoff.plan.draft import Draft

_HINT = "a stage that gives the time is FROM scratch, ARGs, and one ADD of a URL or a repository"


def stage_source(draft: Draft, names: Mapping[str, str], given: Mapping[str, str], lexer: WordLexer) -> str:
    """Return the one remote source that a stage adds.

    Args:
        draft: the stage, before triggers.
        names: the global arguments.
        given: the build arguments.
        lexer: expands the source.

    Raises:
        PlanError: the stage has something else.
        ExpansionError: a variable can't be expanded.
    """
    where = draft.head.location
    if draft.base_name != SCRATCH:
        raise PlanError(f"{EPOCH_ARG} stage must use FROM scratch", hint=_HINT, location=where)
    values = {name: value for name, value in names.items() if name != EPOCH_ARG}
    found = []
    for command in draft.commands:
        item = command.instruction
        if isinstance(item, Arg):
            for variable in item.args:
                if variable.name in given:
                    values[variable.name] = given[variable.name]
                elif variable.value is not None:
                    values[variable.name] = expand(lexer, variable.value, values, item.location)
        elif isinstance(item, Add):
            if item.files or len(item.sources) != 1:
                raise PlanError(
                    f"{EPOCH_ARG} stage must contain exactly one remote ADD source", hint=_HINT, location=item.location
                )
            found.append(expand(lexer, item.sources[0], values, item.location))
        else:
            raise PlanError(
                f"{EPOCH_ARG} stage does not meet source-only requirements: unsupported {item.keyword} instruction",
                hint=_HINT,
                location=item.location,
            )
    if len(found) != 1:
        raise PlanError(f"{EPOCH_ARG} stage must contain exactly one remote ADD", hint=_HINT, location=where)
    if source_kind(found[0]) == "local":
        raise PlanError(f"{EPOCH_ARG} stage source must be a single HTTP(S) or Git ADD", hint=_HINT, location=where)
    return found[0]
