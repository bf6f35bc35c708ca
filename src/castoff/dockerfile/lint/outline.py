"""The outline of a target: the arguments, secrets and ssh agents that it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from castoff.dockerfile.lint.heads import ArgumentInfo
    from castoff.dockerfile.lint.stages import SecretUse, Stages, StageView


@dataclass(frozen=True, slots=True)
class Outline:
    """What a target takes, each list in the order of the Dockerfile; the location of an argument is its declaration."""

    name: str
    description: str
    args: tuple[ArgumentInfo, ...]
    secrets: tuple[SecretUse, ...]
    ssh: tuple[SecretUse, ...]


def outline(stages: Stages, target: StageView) -> Outline:
    """Return the outline of a stage and of all that it needs; `stages` are those of a `LintResult`."""
    views = list(_closure(stages, target))
    args: dict[str, ArgumentInfo] = {}
    for view in views:
        for name, info in _used(stages, view).items():
            args.setdefault(name, info)
    return Outline(
        target.head.name,
        target.head.description,
        tuple(sorted(args.values(), key=lambda item: item.location.start_line)),
        _uses(views, lambda view: view.secrets.values()),
        _uses(views, lambda view: view.ssh.values()),
    )


def _closure(stages: Stages, target: StageView) -> Iterator[StageView]:
    """Yield a stage and all that it needs, the nearest first."""
    seen: set[int] = set()
    pending = [target]
    while pending:
        view = pending.pop(0)
        if view.index in seen:
            continue
        seen.add(view.index)
        yield view
        pending[:0] = [*([view.base] if view.base is not None else []), *stages.needs(view)]


def _used(stages: Stages, view: StageView) -> dict[str, ArgumentInfo]:
    """Return the arguments that a stage uses, and those that their defaults are made of."""
    found: dict[str, ArgumentInfo] = {}
    pending = sorted(view.used)
    while pending:
        name = pending.pop()
        info = view.declared.get(name) or stages.arguments.get(name)
        if name not in found and info is not None:
            found[name] = info
            pending += sorted(info.needs)
    return found


def _uses(views: Iterable[StageView], take: Callable[[StageView], Iterable[SecretUse]]) -> tuple[SecretUse, ...]:
    found: dict[str, SecretUse] = {}
    for view in views:
        for use in take(view):
            found.setdefault(use.id, use)
    return tuple(sorted(found.values(), key=lambda item: item.location.start_line))
