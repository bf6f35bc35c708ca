"""Steps: what one instruction of a stage does, as plain values.

What a step shows (its name, its line of history, its place in the Dockerfile) is kept in `Step`; what it does is kept
in the payload. A cache key is made of payloads only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from castoff.location import SourceRange
    from castoff.plan.resolver import ResolvedBase

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""The PATH of an image that says nothing of it."""

SCRIPT_FOLDER = "/dev/pipes"
"""Where RUN finds the script of a heredoc that begins with a shebang: a read-only folder for the time of the step."""

NetworkMode = Literal["default", "none", "host"]
SecurityMode = Literal["sandbox", "insecure"]
Sharing = Literal["shared", "private", "locked"]


@dataclass(frozen=True, slots=True)
class StageSource:
    """The result of another stage; `index` is its `Stage.index`."""

    index: int


@dataclass(frozen=True, slots=True)
class ImageSource:
    """An image that is no stage: the file system of `base`."""

    name: str
    base: ResolvedBase


@dataclass(frozen=True, slots=True)
class ContextSource:
    """A build context: the main one (``""``), or the named context `name` that is a tree of files."""

    name: str = ""


@dataclass(frozen=True, slots=True)
class ScratchSource:
    """Nothing: an empty folder (``from=scratch``)."""


Source = StageSource | ImageSource | ContextSource | ScratchSource


@dataclass(frozen=True, slots=True)
class InlineFile:
    """A file whose content the Dockerfile holds (a heredoc); `mode` is its permission bits."""

    name: str
    data: bytes
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class BindMount:
    """``--mount=type=bind``: `source_path` of `source` at `target` for the time of the step.

    `target` is absolute and clean. `source_path` is absolute within the source. A mount that is not `read_only` takes
    writes and drops them with the step.
    """

    target: str
    source: Source
    source_path: str = "/"
    read_only: bool = True


@dataclass(frozen=True, slots=True)
class CacheMount:
    """``--mount=type=cache``: a folder that stays between builds, kept under `id`.

    `source` (with `source_path`) fills a cache that is new; `mode`, `uid` and `gid` are those of a new empty one.
    """

    target: str
    id: str
    sharing: Sharing = "shared"
    source: Source = ScratchSource()
    source_path: str = "/"
    read_only: bool = False
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None


@dataclass(frozen=True, slots=True)
class TmpfsMount:
    """``--mount=type=tmpfs``: an empty file system in memory; `size` in bytes, 0 for no limit of its own."""

    target: str
    size: int = 0
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class SecretMount:
    """``--mount=type=secret``: the secret `id` as a file at `target`, as the variable `env`, or both.

    At least one of `target` and `env` is set. A secret that is not given is skipped unless `required`.
    """

    id: str
    target: str | None
    env: str | None = None
    required: bool = False
    mode: int = 0o400
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True)
class SshMount:
    """``--mount=type=ssh``: the socket of the agent `id`; without a `target` the executor chooses the place.

    SSH_AUTH_SOCK names the socket of the first such mount.
    """

    id: str = "default"
    target: str | None = None
    required: bool = False
    mode: int = 0o600
    uid: int = 0
    gid: int = 0


RunMount = BindMount | CacheMount | TmpfsMount | SecretMount | SshMount


@dataclass(frozen=True, slots=True)
class RunStep:
    """A RUN instruction, ready to be executed.

    Attributes:
        argv: the whole argument vector; in shell form it begins with the shell, and heredocs are folded in.
        env: the process's environment as ``KEY=value``, image's variables and arguments in use alike, sorted as set;
            PATH is always there.
        workdir: absolute.
        user: as USER gives it (``""`` is root): name or id, with ``:group`` or not; looked up in the image's files.
        shell_form: whether `argv` was made with the stage's SHELL.
        scripts: files to be put, read-only, into `SCRIPT_FOLDER` for the time of the step.
        mounts: in the order of the instruction.
        network: the mode of the step; ``default`` is the mode of the request.
        security: ``insecure`` wants the request's leave.
        proxy_env: proxy variables of the request for the process only: in no cache key, no history and no image.
        arguments: names of the variables in `env` that are ARGs, for messages: in no cache key.
    """

    argv: tuple[str, ...]
    env: tuple[str, ...]
    workdir: str = "/"
    user: str = ""
    shell_form: bool = True
    scripts: tuple[InlineFile, ...] = ()
    mounts: tuple[RunMount, ...] = ()
    network: NetworkMode = "default"
    security: SecurityMode = "sandbox"
    proxy_env: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CopyStep:
    """A COPY or ADD instruction, ready to be executed.

    Attributes:
        sources: paths and patterns in `source` (for ADD also URLs and git references), variables expanded, as written;
            a path without a leading slash counts from the root of the source.
        files: heredocs, to be copied after `sources`.
        dest: absolute (joined with WORKDIR); a trailing ``/`` (or ``/.``) is kept and means a folder.
        source: where `sources` are looked up.
        chown: ``--chown`` as written, "" for 0:0; names are looked up in the image's files.
        chmod: ``--chmod`` as written, octal or symbolic; "" keeps modes.
        link: the step is a layer of its own that does not look at what lies below.
        parents: source paths keep their parents (from a ``/./`` on).
        excludes: patterns of ``--exclude``, in the .dockerignore language.
        is_add: archives are unpacked and URLs fetched.
        checksum: ``--checksum`` of the one remote source; "" for none.
        keep_git_dir: ``--keep-git-dir``; None where it is not said.
        unpack: ``--unpack``; None for the default (local archives are, remote ones are not).
        workdir: the working directory of the moment.
        user: the user of the moment; nothing is owned by it (COPY without ``--chown`` is 0:0).
    """

    sources: tuple[str, ...]
    dest: str
    source: Source = ContextSource()
    files: tuple[InlineFile, ...] = ()
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    excludes: tuple[str, ...] = ()
    is_add: bool = False
    checksum: str = ""
    keep_git_dir: bool | None = None
    unpack: bool | None = None
    workdir: str = "/"
    user: str = ""

    @property
    def dest_is_folder(self) -> bool:
        """Whether the destination was written as a folder."""
        return self.dest.endswith(("/", "/."))


@dataclass(frozen=True, slots=True)
class WorkdirStep:
    """A WORKDIR instruction: make `path` (absolute) and every missing parent, 0755, owned by `user` (""  is root)."""

    path: str
    user: str = ""
    mode: int = 0o755


@dataclass(frozen=True, slots=True)
class ConfigStep:
    """An instruction that only sets config: a line of history with an empty layer.

    `text` is its line of history, which tells it from others.
    """

    text: str


Payload = RunStep | CopyStep | WorkdirStep | ConfigStep


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction of a stage.

    Attributes:
        index: its place among the stage's instructions, from 0; triggers of the base come first.
        payload: what it does. Only this belongs in a cache key.
        created_by: its line in the image's history.
        name: what progress shows (``[builder 2/5] WORKDIR /build``); "" for a step that is not shown.
        number: its number in that name, the second of ``2/5``'s two being `total`; 0 for a step that is not shown.
        total: the number of shown steps of the stage, the base among them.
        location: where it is written; for a trigger of the base, the place of FROM.
        on_build: whether it is a trigger of the base.
    """

    index: int
    payload: Payload
    created_by: str
    name: str = ""
    number: int = 0
    total: int = 0
    location: SourceRange | None = None
    on_build: bool = False

    @property
    def empty_layer(self) -> bool:
        """Whether the step makes no layer."""
        return isinstance(self.payload, ConfigStep)

    @property
    def shown(self) -> bool:
        """Whether progress shows the step."""
        return bool(self.name)
