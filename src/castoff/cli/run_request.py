"""From the options of `castoff run` and an image's config to a `ContainerRequest`."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from castoff.cli import run_values, values
from castoff.containers.container import ContainerRequest
from castoff.containers.ports import PortMapping
from castoff.errors import UsageError
from castoff.fs.changes import Added
from castoff.fs.ownership import DirectOwnership, Owner
from castoff.fs.union import UnionTree
from castoff.image import users
from castoff.mount import Mount, MountKind
from castoff.ops.staging import Staging
from castoff.plan.step import DEFAULT_PATH
from castoff.sandbox.spec import Network, ProcessSpec, RootSpec
from castoff.snapshot.materialise import write_changes

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Mapping

    from castoff.containers.volumes import VolumeStore
    from castoff.oci.config import ContainerConfig
    from castoff.snapshot.snapshotter import ActiveSnapshot, Snapshotter

_NETWORKS = {
    "bridge": Network.PRIVATE,
    "default": Network.PRIVATE,
    "private": Network.PRIVATE,
    "host": Network.HOST,
    "none": Network.NONE,
}


@dataclass(frozen=True, slots=True)
class Places:
    """Where the parts of a container are.

    Attributes:
        snapshotter: knows the image's files.
        new_folder: gives an empty folder that lives as long as the container, on the store's file system.
        volumes: the named volumes.
    """

    snapshotter: Snapshotter
    new_folder: Callable[[], str]
    volumes: VolumeStore


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the command line asks for, read and checked; None and "" leave it to the image."""

    network: Network
    volumes: tuple[run_values.Volume, ...]
    tmpfs: tuple[run_values.Tmpfs, ...]
    ports: tuple[PortMapping, ...]
    hosts: tuple[tuple[str, str], ...]
    rlimits: tuple[tuple[str, int, int], ...]
    shm_size: int
    stop_signal: int | None
    env_files: tuple[str, ...]
    env: tuple[str, ...]
    entrypoint: str | None
    arguments: tuple[str, ...]
    user: str
    workdir: str
    hostname: str
    tty: bool
    interactive: bool
    read_only: bool

    @classmethod
    def read(cls, args: Namespace) -> RunOptions:
        """Read the arguments.

        Raises:
            UsageError: a value is not well formed.
        """
        if args.network not in _NETWORKS:
            raise UsageError(f"--network has no mode {args.network!r}", hint="there are bridge, host and none")
        if args.workdir:
            run_values.workdir(args.workdir)
        return cls(
            network=_NETWORKS[args.network],
            volumes=tuple(run_values.volume(text) for text in args.volume),
            tmpfs=tuple(run_values.tmpfs(text) for text in args.tmpfs),
            ports=tuple(mapping for text in args.publish for mapping in PortMapping.parse(text)),
            hosts=tuple(values.host_entry(text) for text in args.add_host),
            rlimits=tuple(values.ulimit(text) for text in args.ulimit),
            shm_size=values.byte_size(args.shm_size, "--shm-size") if args.shm_size else 0,
            stop_signal=run_values.stop_signal(args.stop_signal) if args.stop_signal else None,
            env_files=tuple(args.env_file),
            env=tuple(args.env),
            entrypoint=args.entrypoint,
            arguments=tuple(args.command),
            user=args.user,
            workdir=args.workdir,
            hostname=args.hostname,
            tty=args.tty,
            interactive=args.interactive,
            read_only=args.read_only,
        )


def container_request(
    options: RunOptions,
    config: ContainerConfig,
    active: ActiveSnapshot,
    places: Places,
    environ: Mapping[str, str],
) -> ContainerRequest:
    """Return the container that the options and the image's config make together.

    Args:
        options: of the command line.
        config: of the image.
        active: the container's own snapshot; a missing working directory is made in it.
        places: where snapshots and volumes are.
        environ: the caller's environment, for ``-e KEY``.

    Raises:
        UsageError: there is no command.
        ContextError: the image has no such user, or the working directory can't be made.
    """
    tree = places.snapshotter.tree(active.parent)
    user = users.exec_user(tree, options.user or config.user)
    hostname = options.hostname or secrets.token_hex(6)
    env = run_values.environment(config.env, options.env_files, options.env, environ)
    env.setdefault("PATH", DEFAULT_PATH)
    env.setdefault("HOSTNAME", hostname)
    if options.tty:
        env.setdefault("TERM", "xterm")
    env.setdefault("HOME", user.home or "/")
    cwd = options.workdir or config.working_dir or "/"
    cwd = cwd if cwd.startswith("/") else f"/{cwd}"
    _make_directory(cwd, tree, active)
    spec = ProcessSpec(
        root=RootSpec(
            active.lowers,
            active.upper,
            active.work,
            active.userxattr,
            readonly=options.read_only,
            whole=active.whole,
        ),
        argv=command(options, config),
        env=tuple(f"{key}={value}" for key, value in env.items()),
        cwd=cwd,
        uid=user.uid,
        gid=user.gid,
        groups=user.groups,
        mounts=_mounts(options, config, tree, active, places),
        network=options.network,
        hostname=hostname,
        hosts=options.hosts,
        rlimits=options.rlimits,
    )
    if options.shm_size:
        spec = replace(spec, shm_size=options.shm_size)
    stop = run_values.stop_signal(config.stop_signal) if options.stop_signal is None else options.stop_signal
    return ContainerRequest(spec, options.ports, tty=options.tty, interactive=options.interactive, stop_signal=stop)


def command(options: RunOptions, config: ContainerConfig) -> tuple[str, ...]:
    """Return the argument vector: entrypoint and arguments, each of the command line or else of the image.

    An entrypoint of the command line drops the image's arguments too, and "" is none at all.

    Raises:
        UsageError: nothing is left to run.
    """
    if options.entrypoint is not None:
        argv = (*((options.entrypoint,) if options.entrypoint else ()), *options.arguments)
    else:
        argv = (*(config.entrypoint or ()), *(options.arguments or config.cmd or ()))
    if not argv:
        raise UsageError("the image has no command, and none was given", hint="castoff run IMAGE COMMAND")
    return argv


def _make_directory(path: str, tree: UnionTree, active: ActiveSnapshot) -> None:
    """Make a missing working directory, which is root's as in Docker."""
    staging = Staging(tree)
    where = staging.resolve(os.fsencode(path))
    staging.make_directories(where, users.Owner(0, 0))
    changes = staging.changes()
    if changes:
        write_changes(changes, active.upper, tree, DirectOwnership(), active.userxattr)


def _mounts(
    options: RunOptions, config: ContainerConfig, tree: UnionTree, active: ActiveSnapshot, places: Places
) -> tuple[Mount, ...]:
    """Return the mounts, outer ones first; the command line's take the place of the image's volumes."""
    mounts: dict[str, Mount] = {}
    for path in config.volumes:
        target = run_values.target_path(path if path.startswith("/") else f"/{path}", "VOLUME")
        mounts[target] = _fresh(target, tree, active, places)
    for volume in options.volumes:
        if volume.source:
            bind = Mount(MountKind.BIND, volume.target, source=volume.source, readonly=volume.readonly)
            mounts[volume.target] = bind
        elif volume.name:
            source = places.volumes.find(volume.name)
            if source is None:
                made = _fresh(volume.target, tree, active, places)
                source = places.volumes.adopt(volume.name, made.source)
            mounts[volume.target] = Mount(MountKind.BIND, volume.target, source=source, readonly=volume.readonly)
        else:
            mounts[volume.target] = _fresh(volume.target, tree, active, places)
    for empty in options.tmpfs:
        mounts[empty.target] = Mount(
            MountKind.TMPFS, empty.target, readonly=empty.readonly, size=empty.size, mode=empty.mode
        )
    return tuple(sorted(mounts.values(), key=lambda mount: mount.target.count("/")))


def _fresh(target: str, tree: UnionTree, active: ActiveSnapshot, places: Places) -> Mount:
    """Return the mount of a new volume, filled with what the image has at its place, as in Docker."""
    folder = places.new_folder()
    os.chmod(folder, 0o711)  # noqa: S103 - users of the container must get through
    source = os.path.join(folder, "volume")
    os.mkdir(source, 0o755)
    path = tree.resolve(os.fsencode(target))
    ownership = DirectOwnership()
    entries = tree.walk(path)
    top = next(entries, None)
    if top is not None and top.is_dir:
        cut = len(path) + 1 if path else 0
        content = (Added(replace(entry, path=entry.path[cut:], inode=None)) for entry in entries)
        write_changes(content, source, UnionTree(), ownership, active.userxattr)
        ownership.set_(b"", os.fsencode(source), Owner(top.mode, top.uid, top.gid, 0))
    return Mount(MountKind.BIND, target, source=source)
