"""Variables: automatic arguments, global ARGs, and what a stage has in scope."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from castoff.dockerfile.instructions import Arg, Instruction
from castoff.errors import ExpansionError, PlanError

if TYPE_CHECKING:
    from castoff.dockerfile.words import WordLexer
    from castoff.location import SourceRange
    from castoff.plan.graph import PlanRequest

PROXY_ARGS = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
"""Arguments that reach RUN without an ARG, in either case."""

NOT_IN_ENVIRONMENT = frozenset({"BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"})
"""Arguments that steer the builder and never reach a process."""

EPOCH_ARG = "SOURCE_DATE_EPOCH"
"""The argument that gives the time of reproducible images."""

_PREDEFINED = re.compile(r"(?:BUILDKIT_|SOURCE_DATE_EPOCH\Z)")


def automatic_args(request: PlanRequest, target: str) -> dict[str, str]:
    """Return the platform arguments (TARGETPLATFORM and its kin), build arguments of those names applied.

    Args:
        request: names the platforms.
        target: the name of the target stage; "" for one without a name.
    """
    build = request.build_platform
    wanted = request.target_platform or build
    given = build_args(request)
    values = {
        "BUILDPLATFORM": str(build),
        "BUILDOS": build.os,
        "BUILDOSVERSION": build.os_version,
        "BUILDARCH": build.architecture,
        "BUILDVARIANT": build.variant,
        "TARGETPLATFORM": str(wanted),
        "TARGETOS": wanted.os,
        "TARGETOSVERSION": wanted.os_version,
        "TARGETARCH": wanted.architecture,
        "TARGETVARIANT": wanted.variant,
        "TARGETSTAGE": target or "default",
    }
    return {name: given.get(name, value) for name, value in values.items()}


def build_args(request: PlanRequest) -> dict[str, str]:
    """Return the build arguments of a request, its epoch among them."""
    given = {} if request.epoch is None else {EPOCH_ARG: str(request.epoch)}
    return {**given, **dict(request.build_args)}


def global_args(
    arguments: Iterable[Arg], automatic: Mapping[str, str], given: Mapping[str, str], lexer: WordLexer
) -> dict[str, str]:
    """Return what FROM lines may use: automatic arguments, and the ARGs before the first FROM.

    Raises:
        ExpansionError: with the place of the ARG.
    """
    values = dict(automatic)
    for argument in arguments:
        for variable in argument.args:
            if variable.name in given:
                values[variable.name] = given[variable.name]
            elif variable.value is not None:
                values[variable.name] = expand(lexer, variable.value, values, argument.location)
    return values


def expand(lexer: WordLexer, text: str, env: Mapping[str, str], location: SourceRange | None) -> str:
    """Expand one word, and give an error its place.

    Raises:
        ExpansionError: as `WordLexer.expand` does.
    """
    try:
        return lexer.word(text, env)
    except ExpansionError as error:
        error.location = location
        raise


def epoch_of(given: Mapping[str, str], names: Mapping[str, str], contexts: Callable[[str], bool]) -> int | None:
    """Return the SOURCE_DATE_EPOCH of the build arguments, or else of the global ones; None where there is none.

    ``context``, and the name of a context or stage, mean the time of that source, of which local files have none.

    Args:
        given: the build arguments.
        names: the global arguments.
        contexts: says whether a name is one of a context or a stage.

    Raises:
        PlanError: it is neither a number of seconds nor a name.
    """
    text = given.get(EPOCH_ARG, names.get(EPOCH_ARG, ""))
    if re.fullmatch(r"[+-]?[0-9]{1,18}", text, re.ASCII):
        return int(text)
    if text and text != "context" and not contexts(text):
        raise PlanError(f"invalid SOURCE_DATE_EPOCH: {text}", hint="it is a number of seconds since 1970")
    return None


def proxy_environment(given: Mapping[str, str]) -> tuple[str, ...]:
    """Return the proxy variables of the build arguments as ``KEY=value``, each in both cases, as processes look for."""
    values: dict[str, str] = {}
    for name in sorted(given):
        if name.lower() in PROXY_ARGS:
            values[name.upper()] = values[name.lower()] = given[name]
    return tuple(f"{name}={value}" for name, value in values.items())


def unconsumed(request: PlanRequest, instructions: Iterable[Instruction], automatic: Mapping[str, str]) -> list[str]:
    """Return the names of build arguments that no ARG takes."""
    declared = {variable.name for item in instructions if isinstance(item, Arg) for variable in item.args}
    return sorted(
        name
        for name in dict(request.build_args)
        if name not in declared
        and name not in automatic
        and name.lower() not in PROXY_ARGS
        and not _PREDEFINED.match(name)
    )
