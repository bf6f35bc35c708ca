"""The second step of reading a Dockerfile: a node becomes a typed instruction."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from castoff.dockerfile import instructions as ins
from castoff.dockerfile.flags import FlagKind, Flags
from castoff.dockerfile.forms import ADD_FLAGS, COPY_FLAGS, HEALTH_FLAGS, NO_FLAGS, RUN_FLAGS, example
from castoff.dockerfile.heredoc import maybe_heredoc
from castoff.dockerfile.mounts import mount_from
from castoff.dockerfile.suggest import hint
from castoff.dockerfile.text import SPACE, format_duration, parse_duration, quote
from castoff.errors import ParseError
from castoff.oci.config import Healthcheck as HealthcheckConfig

if TYPE_CHECKING:
    from castoff.dockerfile.nodes import Node
    from castoff.dockerfile.source import Source
    from castoff.location import SourceRange

_STAGE_NAME = re.compile(r"[a-z][a-z0-9-_.]*\Z")
_ON_BUILD = re.compile(r"[\t\n\f\r ]*ONBUILD[\t\n\f\r ]*", re.IGNORECASE)
_MIN_INTERVAL = 1_000_000


@dataclass(frozen=True, slots=True)
class _Request:
    """A node on its way to an instruction."""

    node: Node
    args: list[str]
    name: str
    location: SourceRange

    def base(self) -> dict[str, Any]:
        return {
            "keyword": self.node.keyword,
            "text": self.node.original.strip(SPACE),
            "location": self.location,
            "comments": self.node.comments,
            "flags": self.node.flags,
        }

    def flags(self, known: Mapping[str, FlagKind] = NO_FLAGS) -> Flags:
        return Flags(self.node.flags, known)

    def description(self, name: str) -> str:
        for comment in self.node.comments:
            if name and comment.startswith(name + " "):
                return comment[len(name) + 1 :]
        return ""

    def at_least_one(self) -> None:
        if not self.args:
            raise ParseError(f"{self.name} requires at least one argument", hint=example(self.name))

    def the_one(self) -> str:
        if len(self.args) != 1:
            raise ParseError(f"{self.name} requires exactly one argument", hint=example(self.name))
        return self.args[0]


def interpret(node: Node, source: Source, location: SourceRange | None = None) -> ins.Instruction:
    """Turn a node into an instruction.

    Args:
        node: what the first step gave.
        source: where its words are looked up for messages.
        location: what messages point at instead of the node's own lines.

    Raises:
        ParseError: the instruction is unknown, or its flags or arguments are wrong.
    """
    where = location or source.range(node.start_line, node.end_line)
    name = node.keyword.upper()
    try:
        return _reader(node.keyword)(_Request(node, node.words(), name, where))
    except ParseError as error:
        if error.location is None:
            error.location = where if location else source.find(where, _culprit(error.message, node))
        raise


def _reader(keyword: str) -> Callable[[_Request], ins.Instruction]:
    reader = _READERS.get(keyword.upper())
    if reader is None:
        near = hint(keyword, ins.KEYWORDS, case_sensitive=False) if len(keyword) > 2 else None
        raise ParseError(
            f"unknown instruction: {keyword}",
            hint=near or "if this goes on from the line above, that line must end with a backslash",
        )
    return reader


def _culprit(message: str, node: Node) -> str:
    """Return the word of the instruction that a message is about."""
    for flag in node.flags:
        written, _, value = flag.partition("=")
        if f": {written}" in message or f"flag {written}" in message:
            return written
        if value and (quote(value) in message or repr(value) in message):
            return flag
    if message.startswith(("failed to parse csv", "'from'")):
        return "--mount"
    if message.startswith("unknown instruction"):
        return node.keyword
    for arg in node.words():
        if arg and quote(arg) in message:
            return arg
    return node.keyword


def _from(request: _Request) -> ins.From:
    args = request.args
    written = name = ""
    if len(args) == 3 and args[1].lower() == "as":
        written, name = args[2], args[2].lower()
        if not _STAGE_NAME.match(name):
            raise ParseError(
                f"invalid name for build stage: {quote(written)}, name can't start with a number or contain symbols"
            )
    elif len(args) != 1:
        near = hint(args[1], ("as",), case_sensitive=False) if len(args) == 3 else None
        raise ParseError("FROM requires either one or three arguments", hint=near or "write FROM base AS name")
    flags = request.flags({"platform": "text"})
    return ins.From(
        **request.base(),
        base=args[0],
        name=name,
        platform=flags.text("platform"),
        name_written=written,
        as_written=args[1] if written else "",
        description=request.description(name),
    )


def _arg(request: _Request) -> ins.Arg:
    request.at_least_one()
    found = []
    for arg in request.args:
        name, separator, value = arg.partition("=")
        if separator and not name:
            raise ParseError("ARG names can not be blank")
        found.append(ins.Variable(name, value if separator else None, False, request.description(name)))
    return ins.Arg(**request.base(), args=tuple(found))


def _pairs(request: _Request) -> tuple[ins.Variable, ...]:
    request.flags()
    request.at_least_one()
    args = request.args
    if len(args) % 3:
        raise ParseError(f"Bad input to {request.name}, too many arguments")
    if not all(args[::3]):
        raise ParseError(f"{request.name} names can not be blank")
    return tuple(
        ins.Variable(name, value, not separator)
        for name, value, separator in zip(args[::3], args[1::3], args[2::3], strict=True)
    )


def _env(request: _Request) -> ins.Env:
    return ins.Env(**request.base(), env=_pairs(request))


def _label(request: _Request) -> ins.Label:
    return ins.Label(**request.base(), labels=_pairs(request))


def _command(request: _Request, args: list[str]) -> dict[str, Any]:
    node = request.node
    if args and not node.json:
        args = [" ".join(args)]
    return {
        **request.base(),
        "command": tuple(args),
        "shell_form": not node.json,
        "heredocs": node.heredocs,
    }


def _run(request: _Request) -> ins.Run:
    flags = request.flags(RUN_FLAGS)
    network = flags.text("network")
    security = flags.text("security")
    mounts = flags.texts("mount")
    for mount in mounts:
        mount_from(mount)
    if "network" in flags and network not in ("default", "none", "host"):
        raise ParseError(f"invalid network mode {quote(network)}", hint="it is default, none or host")
    if "security" in flags and security not in ("sandbox", "insecure"):
        raise ParseError(f"security {quote(security)} is not valid", hint="it is sandbox or insecure")
    return ins.Run(
        **_command(request, request.args),
        mounts=mounts,
        network=cast("Any", network),
        security=cast("Any", security or "sandbox"),
    )


def _cmd(request: _Request) -> ins.Cmd:
    request.flags()
    return ins.Cmd(**_command(request, request.args))


def _entrypoint(request: _Request) -> ins.Entrypoint:
    request.flags()
    return ins.Entrypoint(**_command(request, request.args))


def _transfer(request: _Request, flags: Flags) -> dict[str, Any]:
    node = request.node
    *sources, dest = request.args
    if maybe_heredoc(dest):
        raise ParseError(f"{request.name} cannot accept a heredoc as a destination")
    contents = {heredoc.name: heredoc for heredoc in node.heredocs}
    paths = []
    files = []
    for source in sources:
        heredoc = maybe_heredoc(source)
        if heredoc is None:
            paths.append(source)
        elif heredoc.name in contents:
            files.append(ins.inline_source(contents[heredoc.name]))
        else:
            files.append(ins.InlineSource(heredoc.name, "", heredoc.expand))
    return {
        **request.base(),
        "sources": tuple(paths),
        "dest": dest,
        "files": tuple(files),
        "json": node.json,
        "chown": flags.text("chown"),
        "chmod": flags.text("chmod"),
        "link": flags.boolean("link"),
        "excludes": flags.texts("exclude"),
    }


def _need_destination(request: _Request) -> None:
    if len(request.args) < 2:
        raise ParseError(
            f"{request.name} requires at least two arguments, but only one was provided. "
            "Destination could not be determined",
            hint=f"write {request.name} source destination",
        )


def _copy(request: _Request) -> ins.Copy:
    _need_destination(request)
    flags = request.flags(COPY_FLAGS)
    return ins.Copy(**_transfer(request, flags), from_=flags.text("from"), parents=flags.boolean("parents"))


def _add(request: _Request) -> ins.Add:
    _need_destination(request)
    flags = request.flags(ADD_FLAGS)
    return ins.Add(
        **_transfer(request, flags),
        checksum=flags.text("checksum"),
        keep_git_dir=flags.optional("keep-git-dir"),
        unpack=flags.optional("unpack"),
    )


def _workdir(request: _Request) -> ins.Workdir:
    path = request.the_one()
    request.flags()
    return ins.Workdir(**request.base(), path=path)


def _user(request: _Request) -> ins.User:
    user = request.the_one()
    request.flags()
    return ins.User(**request.base(), user=user)


def _expose(request: _Request) -> ins.Expose:
    request.at_least_one()
    request.flags()
    return ins.Expose(**request.base(), ports=tuple(sorted(request.args)))


def _volume(request: _Request) -> ins.Volume:
    request.at_least_one()
    request.flags()
    volumes = tuple(arg.strip(SPACE) for arg in request.args)
    if not all(volumes):
        raise ParseError("VOLUME specified can not be an empty string")
    return ins.Volume(**request.base(), volumes=volumes)


def _stop_signal(request: _Request) -> ins.StopSignal:
    return ins.StopSignal(**request.base(), signal=request.the_one())


def _shell(request: _Request) -> ins.Shell:
    request.flags()
    request.at_least_one()
    if not request.node.json:
        raise ParseError(
            f"SHELL requires the arguments to be in JSON form, not: {request.node.original.strip(SPACE)}",
            hint='write SHELL ["/bin/sh", "-c"]',
        )
    return ins.Shell(**request.base(), shell=tuple(request.args))


def _healthcheck(request: _Request) -> ins.Healthcheck:
    request.at_least_one()
    kind, *args = request.args
    kind = kind.upper()
    if kind == "NONE":
        if args:
            raise ParseError("HEALTHCHECK NONE takes no arguments")
        return ins.Healthcheck(**request.base(), check=HealthcheckConfig(("NONE",)))
    flags = request.flags(HEALTH_FLAGS)
    if kind != "CMD":
        raise ParseError(f"Unknown type {quote(kind)} in HEALTHCHECK (try CMD)")
    if not args:
        raise ParseError("Missing command after HEALTHCHECK CMD")
    test = ("CMD", *args) if request.node.json else ("CMD-SHELL", " ".join(args))
    check = HealthcheckConfig(
        test=test,
        interval=_interval(flags, "interval"),
        timeout=_interval(flags, "timeout"),
        start_period=_interval(flags, "start-period"),
        start_interval=_interval(flags, "start-interval"),
        retries=_retries(flags.text("retries")),
    )
    return ins.Healthcheck(**request.base(), check=check)


def _interval(flags: Flags, name: str) -> int:
    text = flags.text(name)
    duration = parse_duration(text) if text else 0
    if duration and duration < _MIN_INTERVAL:
        raise ParseError(f"Interval {quote(name)} cannot be less than {format_duration(_MIN_INTERVAL)}")
    return duration


def _retries(text: str) -> int:
    if not text:
        return 0
    if not re.fullmatch(r"[+-]?[0-9]{1,10}", text, re.ASCII) or not -(1 << 31) <= int(text) < 1 << 31:
        raise ParseError(f"--retries wants a number, not {quote(text)}")
    if int(text) < 0:
        raise ParseError(f"--retries cannot be negative ({int(text)})")
    return int(text)


def _on_build(request: _Request) -> ins.OnBuild:
    request.at_least_one()
    request.flags()
    trigger = request.args[0].strip(SPACE).upper()
    if trigger == "ONBUILD":
        raise ParseError("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if trigger in ("MAINTAINER", "FROM"):
        raise ParseError(f"{trigger} isn't allowed as an ONBUILD trigger")
    node = request.node
    expression = _ON_BUILD.sub("", node.original, count=1) if _ON_BUILD.match(node.original) else node.original
    for heredoc in node.heredocs:
        expression += f"\n{heredoc.content}{heredoc.name}"
    return ins.OnBuild(**request.base(), expression=expression)


def _maintainer(request: _Request) -> ins.Maintainer:
    name = request.the_one()
    request.flags()
    return ins.Maintainer(**request.base(), name=name)


_READERS: Mapping[str, Callable[[_Request], ins.Instruction]] = {
    "ADD": _add,
    "ARG": _arg,
    "CMD": _cmd,
    "COPY": _copy,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "FROM": _from,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "MAINTAINER": _maintainer,
    "ONBUILD": _on_build,
    "RUN": _run,
    "SHELL": _shell,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
