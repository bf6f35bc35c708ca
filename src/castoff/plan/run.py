"""RUN: its command line, scripts and mounts."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from castoff.dockerfile.heredoc import chomp, maybe_heredoc
from castoff.dockerfile.mounts import MountFlag, parse_mount
from castoff.errors import PlanError
from castoff.plan.paths import clean, join
from castoff.plan.stagescope import Made, StageScope, capitalised
from castoff.plan.step import (
    SCRIPT_FOLDER,
    BindMount,
    CacheMount,
    ContextSource,
    InlineFile,
    RunMount,
    RunStep,
    ScratchSource,
    SecretMount,
    Sharing,
    Source,
    SshMount,
    TmpfsMount,
)

if TYPE_CHECKING:
    from castoff.dockerfile.instructions import Run
    from castoff.dockerfile.mounts import MountFlag

_SHARING: dict[str, Sharing] = {"": "shared", "shared": "shared", "private": "private", "locked": "locked"}


@dataclass(frozen=True, slots=True)
class CommandLine:
    """The command line of a RUN: its whole argument vector, its scripts, and what progress adds to the line."""

    argv: tuple[str, ...]
    scripts: tuple[InlineFile, ...] = ()
    summary: str = ""


def run(item: Run, scope: StageScope) -> Made:
    """Take a RUN.

    Raises:
        ExpansionError: a variable in a mount can't be expanded.
        PlanError: a mount or the command is not one that RUN can have.
    """
    state = scope.state
    mounts = tuple(
        run_mount(parse_mount(text, scope.word), state.workdir, lambda name: scope.source(name, item.location))
        for text in item.mounts
    )
    line = command_line(item, state.shell())
    step = RunStep(
        argv=line.argv,
        env=state.environment(),
        workdir=clean(state.workdir),
        user=state.config.user,
        shell_form=item.shell_form,
        scripts=line.scripts,
        mounts=mounts,
        network=item.network if item.network in ("none", "host") else scope.build.network,
        security=item.security,
        proxy_env=tuple(pair for pair in scope.build.proxy_env if pair.partition("=")[0] not in state.env),
        arguments=tuple(state.args),
    )
    hidden = {mount.env: "****" for mount in mounts if isinstance(mount, SecretMount) and mount.env}
    name = capitalised(item.text + line.summary, scope.build.lexer.for_display(), ChainMap(hidden, state.env))
    return Made(step, f"RUN {_arguments_in_use(scope)}{' '.join(line.argv)} # buildkit", name)


def _arguments_in_use(scope: StageScope) -> str:
    state = scope.state
    values = [f"{name}={state.env.get(name, value)}" for name, value in state.args.items()]
    return " ".join((f"|{len(values)}", *values, "")) if values else ""


def command_line(item: Run, shell: tuple[str, ...]) -> CommandLine:
    """Return the command line of a RUN.

    A lone heredoc is the script itself: run by the program of its ``#!`` line, else given to the shell as a text. In
    any other line heredocs are left to the shell.

    Raises:
        PlanError: the exec form is empty.
    """
    if not item.shell_form:
        if not item.command:
            raise PlanError("RUN [] has no command", hint='write RUN ["program", "argument"]', location=item.location)
        return CommandLine(item.command)
    text = " ".join(item.command)
    if not item.heredocs:
        return CommandLine((*shell, text))
    if not maybe_heredoc(text):
        whole = text + "".join(f"\n{doc.content}{doc.name}" for doc in item.heredocs)
        return CommandLine((*shell, whole))
    first = item.heredocs[0]
    content = chomp(first.content) if first.chomp else first.content
    shown = f" ({_summary(first.content)})"
    if not content.startswith("#!"):
        return CommandLine((*shell, content), (), shown)
    script = InlineFile(first.name, content.encode("utf-8", "surrogateescape"), 0o755)
    return CommandLine((*shell, clean(f"{SCRIPT_FOLDER}/{first.name}")), (script,), shown)


def _summary(content: str) -> str:
    """Return the first line of a heredoc, as progress shows it."""
    lines = content.strip().replace("\r\n", "\n").split("\n")
    return lines[0] + ("..." if len(lines) > 1 else "")


def run_mount(flag: MountFlag, workdir: str, find: Callable[[str], Source]) -> RunMount:
    """Turn a ``--mount`` into a mount of the plan.

    Raises:
        PlanError: its target is missing, or is the root.
    """
    if flag.type == "secret":
        return _secret(flag, workdir)
    if flag.type == "ssh":
        return SshMount(
            id=flag.id or "default",
            target=join(workdir, flag.target) if flag.target else None,
            required=flag.required,
            mode=0o600 if flag.mode is None else flag.mode,
            uid=flag.uid or 0,
            gid=flag.gid or 0,
        )
    target = clean(join(workdir, flag.target))
    if not flag.target or target == "/":
        raise PlanError(f'invalid mount target "{flag.target}"', hint="a mount needs target=/a/folder")
    if flag.type == "tmpfs":
        return TmpfsMount(target, flag.size, flag.read_only)
    source_path = clean("/" + flag.source)
    if flag.type == "bind":
        source = find(flag.from_) if flag.from_ else ContextSource()
        return BindMount(target, source, source_path, flag.read_only)
    return CacheMount(
        target=target,
        id=flag.id or clean(flag.target),
        sharing=_SHARING[flag.sharing],
        source=find(flag.from_) if flag.from_ else ScratchSource(),
        source_path=source_path,
        read_only=flag.read_only,
        mode=flag.mode,
        uid=flag.uid,
        gid=flag.gid,
    )


def _secret(flag: MountFlag, workdir: str) -> SecretMount:
    name = flag.source or flag.id
    if not name:
        name = clean(flag.target).rpartition("/")[2]
    target = join(workdir, flag.target) if flag.target else None
    if flag.env is None and target is None:
        target = "/run/secrets/" + clean(name).rpartition("/")[2]
    return SecretMount(
        id=name,
        target=target,
        env=flag.env,
        required=flag.required,
        mode=0o400 if flag.mode is None else flag.mode,
        uid=flag.uid or 0,
        gid=flag.gid or 0,
    )
