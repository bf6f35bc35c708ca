"""Stages as the rules see them: what is in scope, what they stand on, and which of them a target needs."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from castoff.dockerfile.instructions import Copy, OnBuild, Run
from castoff.dockerfile.mounts import mount_from
from castoff.dockerfile.parser import parse_trigger
from castoff.errors import ParseError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from castoff.dockerfile.instructions import From, Instruction
    from castoff.dockerfile.lint.heads import ArgumentInfo, Head
    from castoff.location import SourceRange
    from castoff.oci.config import ImageConfig

SCRATCH = "scratch"
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class SecretUse:
    """A secret or an ssh agent that a RUN mounts: its id, whether it must be given, and where it is first named."""

    id: str
    required: bool
    location: SourceRange


@dataclass(slots=True)
class StageView:
    """One stage.

    Attributes:
        index: its place in the Dockerfile.
        head: its FROM.
        expanded: the same with variables expanded.
        commands: its instructions.
        base: the earlier stage that it stands on.
        replaced: whether a named context stands in for it.
        env: the variables that are set.
        knows_env: whether `env` is all that is set; not so where the base image is not known.
        args: names of the arguments that were declared here or below.
        has_shell: whether SHELL was given here or below.
        workdir_set: whether a WORKDIR was given here or below.
        declared: the arguments that it declares itself.
        used: names of arguments in use.
        secrets: by id.
        ssh: by id.
        latest: the last CMD, ENTRYPOINT and HEALTHCHECK, by kind.
    """

    index: int
    head: From
    expanded: Head
    commands: list[Instruction]
    base: StageView | None = None
    replaced: bool = False
    env: dict[str, str] = field(default_factory=dict)
    knows_env: bool = True
    args: set[str] = field(default_factory=set)
    has_shell: bool = False
    workdir_set: bool = False
    declared: dict[str, ArgumentInfo] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    secrets: dict[str, SecretUse] = field(default_factory=dict)
    ssh: dict[str, SecretUse] = field(default_factory=dict)
    latest: dict[str, SourceRange] = field(default_factory=dict)

    def start(self, config: ImageConfig | None) -> list[str]:
        """Begin with what the base has, and return the triggers that it brings in.

        `config` is that of the image that it stands on; None where that is scratch or not known.
        """
        if self.base is not None:
            below = self.base
            self.env, self.knows_env = dict(below.env), below.knows_env
            self.args |= below.args
            self.has_shell, self.workdir_set = below.has_shell, below.workdir_set
            return [item.expression for item in below.commands if isinstance(item, OnBuild)]
        if config is not None:
            pairs = (item.partition("=") for item in config.config.env)
            self.env = {name: value for name, _, value in pairs}
            self.has_shell = bool(config.config.shell)
        elif self.replaced or self.expanded.base != SCRATCH:
            self.knows_env = False
        self.env.setdefault("PATH", _DEFAULT_PATH)
        return [] if config is None or self.replaced else list(config.config.on_build)

    def take_triggers(self, triggers: Sequence[str]) -> None:
        """Put the triggers of the base before the stage's own instructions; one that can't be read is left out."""
        found = []
        for text in triggers:
            try:
                found.append(parse_trigger(text, self.head.location))
            except ParseError:
                continue
        self.commands[:0] = found


class Stages:
    """The stages of a Dockerfile, by number and by name.

    Attributes:
        all: in order.
        arguments: those that are declared before the first of them.
    """

    def __init__(self) -> None:
        self.arguments: dict[str, ArgumentInfo] = {}
        self.all: list[StageView] = []
        self._by_name: dict[str, StageView] = {}

    def add(self, view: StageView) -> None:
        """Take in the next stage; the earlier one that it stands on is found here."""
        if not view.replaced:
            view.base = self._by_name.get(view.expanded.base.lower())
        self.all.append(view)
        if view.head.name:
            self._by_name[view.head.name] = view

    def find(self, name: str) -> StageView | None:
        """Return the stage of a name or a number; None where there is none."""
        found = self._by_name.get(name.lower())
        if found is None and re.fullmatch(r"[0-9]{1,9}", name, re.ASCII) and int(name) < len(self.all):
            found = self.all[int(name)]
        return found

    def target(self, name: str) -> StageView | None:
        """Return the stage that is built: by name or number, or the last one for ""."""
        return self.find(name) if name else self.all[-1] if self.all else None

    def needs(self, view: StageView) -> list[StageView]:
        """Return the earlier stages that a stage copies from or mounts, each once, in order."""
        found: dict[int, StageView] = {}
        for item in view.commands:
            for name in _sources(item):
                stage = self.find(name)
                if stage is not None and stage.index < view.index:
                    found.setdefault(stage.index, stage)
        return list(found.values())

    def reachable(self, view: StageView) -> set[int]:
        """Return the indexes of a stage and of all that it needs."""
        found: set[int] = set()
        pending = [view]
        while pending:
            here = pending.pop()
            if here.index in found:
                continue
            found.add(here.index)
            if not here.replaced:
                pending += [here.base] if here.base is not None else []
                pending += self.needs(here)
        return found


def _sources(item: Instruction) -> list[str]:
    if isinstance(item, Copy):
        return [item.from_] if item.from_ else []
    if isinstance(item, Run):
        return [name for name in map(_mount_source, item.mounts) if name]
    return []


def _mount_source(text: str) -> str:
    try:
        return mount_from(text)
    except ParseError:
        return ""
