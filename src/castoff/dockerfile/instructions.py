"""Instructions: one class for each keyword of the Dockerfile reference."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from castoff.dockerfile.heredoc import Heredoc, chomp
from castoff.oci.config import Healthcheck as HealthcheckConfig

if TYPE_CHECKING:
    from castoff.location import SourceRange


@dataclass(frozen=True, slots=True)
class Variable:
    """A ``name=value`` pair.

    Attributes:
        name: as written; ENV and LABEL expand it.
        value: as written; None for an ARG without a default.
        legacy: whether it is in the old form without ``=``.
        description: the comment line above it that begins with its name, that name left out.
    """

    name: str
    value: str | None
    legacy: bool = False
    description: str = ""


@dataclass(frozen=True, slots=True)
class InlineSource:
    """A heredoc that COPY or ADD writes as a file.

    Attributes:
        name: the name of the file.
        content: its text, tabs of ``<<-`` dropped.
        expand: whether variables in it are to be expanded.
    """

    name: str
    content: str
    expand: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class InstructionBase:
    """What every instruction has.

    Attributes:
        keyword: as written, so that its case can be checked.
        text: the logical line, continuations joined, without heredocs.
        location: where it stands, heredocs included.
        comments: the comment lines right above.
        flags: its ``--flags`` as written.
    """

    keyword: str
    text: str
    location: SourceRange
    comments: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()

    kind: ClassVar[str] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class From(InstructionBase):
    """``FROM [--platform=P] base [AS name]``; `name` is in lower case, "" where there is none."""

    base: str
    name: str = ""
    platform: str = ""
    name_written: str = ""
    as_written: str = ""
    description: str = ""

    kind: ClassVar[str] = "FROM"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arg(InstructionBase):
    """``ARG name[=default] …``."""

    args: tuple[Variable, ...]

    kind: ClassVar[str] = "ARG"


@dataclass(frozen=True, slots=True, kw_only=True)
class Env(InstructionBase):
    """``ENV name=value …``."""

    env: tuple[Variable, ...]

    kind: ClassVar[str] = "ENV"


@dataclass(frozen=True, slots=True, kw_only=True)
class Label(InstructionBase):
    """``LABEL name=value …``."""

    labels: tuple[Variable, ...]

    kind: ClassVar[str] = "LABEL"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandBase(InstructionBase):
    """An instruction with a command line.

    Attributes:
        command: the argument vector of the exec form; in shell form the one text for the shell.
        shell_form: whether it is in shell form.
        heredocs: with their content.
    """

    command: tuple[str, ...]
    shell_form: bool
    heredocs: tuple[Heredoc, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(CommandBase):
    """``RUN [--mount=… --network=… --security=…] command``.

    Attributes:
        mounts: the values of ``--mount`` as written: variables in them are expanded later.
        network: ``default``, ``none`` or ``host``; "" where it is not said.
        security: ``sandbox`` or ``insecure``.
    """

    mounts: tuple[str, ...] = ()
    network: Literal["", "default", "none", "host"] = ""
    security: Literal["sandbox", "insecure"] = "sandbox"

    kind: ClassVar[str] = "RUN"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cmd(CommandBase):
    """``CMD``."""

    kind: ClassVar[str] = "CMD"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrypoint(CommandBase):
    """``ENTRYPOINT``."""

    kind: ClassVar[str] = "ENTRYPOINT"


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferBase(InstructionBase):
    """What COPY and ADD have in common; every text is as written, variables not expanded.

    Attributes:
        sources: paths, patterns, URLs.
        files: heredocs.
        dest: the last argument.
        json: whether the arguments were a JSON array.
        chown: ``--chown``.
        chmod: ``--chmod``.
        link: ``--link``.
        excludes: ``--exclude``, each.
    """

    sources: tuple[str, ...]
    dest: str
    files: tuple[InlineSource, ...] = ()
    json: bool = False
    chown: str = ""
    chmod: str = ""
    link: bool = False
    excludes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy(TransferBase):
    """``COPY``; `from_` is the value of ``--from``, "" where there is none."""

    from_: str = ""
    parents: bool = False

    kind: ClassVar[str] = "COPY"


@dataclass(frozen=True, slots=True, kw_only=True)
class Add(TransferBase):
    """``ADD``; `keep_git_dir` and `unpack` are None where they are not said."""

    checksum: str = ""
    keep_git_dir: bool | None = None
    unpack: bool | None = None

    kind: ClassVar[str] = "ADD"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workdir(InstructionBase):
    """``WORKDIR``."""

    path: str

    kind: ClassVar[str] = "WORKDIR"


@dataclass(frozen=True, slots=True, kw_only=True)
class User(InstructionBase):
    """``USER``."""

    user: str

    kind: ClassVar[str] = "USER"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expose(InstructionBase):
    """``EXPOSE``; ports sorted."""

    ports: tuple[str, ...]

    kind: ClassVar[str] = "EXPOSE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume(InstructionBase):
    """``VOLUME``."""

    volumes: tuple[str, ...]

    kind: ClassVar[str] = "VOLUME"


@dataclass(frozen=True, slots=True, kw_only=True)
class StopSignal(InstructionBase):
    """``STOPSIGNAL``."""

    signal: str

    kind: ClassVar[str] = "STOPSIGNAL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shell(InstructionBase):
    """``SHELL``."""

    shell: tuple[str, ...]

    kind: ClassVar[str] = "SHELL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Healthcheck(InstructionBase):
    """``HEALTHCHECK``."""

    check: HealthcheckConfig = field(default=HealthcheckConfig())

    kind: ClassVar[str] = "HEALTHCHECK"


@dataclass(frozen=True, slots=True, kw_only=True)
class OnBuild(InstructionBase):
    """``ONBUILD``; `expression` is the trigger's text, with its heredocs."""

    expression: str

    kind: ClassVar[str] = "ONBUILD"


@dataclass(frozen=True, slots=True, kw_only=True)
class Maintainer(InstructionBase):
    """``MAINTAINER``."""

    name: str

    kind: ClassVar[str] = "MAINTAINER"


Instruction = (
    From
    | Arg
    | Env
    | Label
    | Run
    | Copy
    | Add
    | Workdir
    | User
    | Expose
    | Volume
    | Entrypoint
    | Cmd
    | Shell
    | StopSignal
    | Healthcheck
    | OnBuild
    | Maintainer
)

KEYWORDS = (
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
)
"""Every keyword of the dialect."""


def inline_source(heredoc: Heredoc) -> InlineSource:
    """Return a heredoc as a file to copy."""
    content = chomp(heredoc.content) if heredoc.chomp else heredoc.content
    return InlineSource(heredoc.name, content, heredoc.expand)
