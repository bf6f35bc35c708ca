"""What a process in a sandbox is to be, as values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from castoff.mount import Mount


class Network(Enum):
    """The network namespace of a process."""

    HOST = "host"
    """The host's own: services on its loopback can be reached."""
    NONE = "none"
    """A new one with nothing but loopback."""
    PRIVATE = "private"
    """A new one with loopback, unprivileged ports from 0, and what the executor's caller plugs into it."""


@dataclass(frozen=True, slots=True)
class RootSpec:
    """The root file system of a process.

    Attributes:
        lowers: host paths of the directories of an overlay, topmost first; may be empty.
        upper: host path of the directory that takes the changes; None for a root that can't be changed.
        work: overlayfs' work directory; None without an upper.
        userxattr: whether the overlay's attributes are in the ``user.`` namespace.
        readonly: whether the root is mounted read-only (mounts on top of it may be writable).
        whole: whether `upper` is the root as it stands, and no overlay is mounted; then there are no lowers.
    """

    lowers: tuple[str, ...]
    upper: str | None
    work: str | None
    userxattr: bool = False
    readonly: bool = False
    whole: bool = False


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """A process to run in isolation.

    Attributes:
        root: its root file system.
        argv: program and arguments; a program without a slash is looked for in the PATH of `env`, in the sandbox.
        env: ``KEY=value`` pairs, and nothing else from the host.
        cwd: absolute path inside the sandbox; it must exist.
        uid: user id inside the sandbox.
        gid: group id inside the sandbox.
        groups: supplementary group ids.
        mounts: further mounts, in order.
        network: its network namespace.
        netns: path of an existing network namespace to join, such as ``/proc/<pid>/ns/net``, with PRIVATE; "" for a
            new one.
        hostname: its host name; also written to its /etc/hostname and /etc/hosts.
        hosts: further lines of its /etc/hosts as (name, address).
        terminal: whether standard input, output and error are one pseudo-terminal, which becomes the controlling one.
        rlimits: resource limits as (name such as "nofile", soft, hard); -1 for no limit.
        shm_size: size of /dev/shm in bytes.
        privileged: all capabilities and no seccomp filter (RUN --security=insecure).
        umask: its umask.
    """

    root: RootSpec
    argv: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str = "/"
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    mounts: tuple[Mount, ...] = ()
    network: Network = Network.HOST
    hostname: str = "buildkitsandbox"
    hosts: tuple[tuple[str, str], ...] = ()
    terminal: bool = False
    rlimits: tuple[tuple[str, int, int], ...] = ()
    shm_size: int = 64 << 20
    privileged: bool = False
    umask: int = 0o022
    netns: str = ""
