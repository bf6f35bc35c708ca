"""castoff run: a process in a new container from an image."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from castoff.cli.session import enter_for_container, open_store

if TYPE_CHECKING:
    from argparse import Namespace

    from castoff.cli.parser import Parser
    from castoff.cli.run_life import LifeOptions
    from castoff.cli.run_request import RunOptions
    from castoff.containers.containerstore import Container
    from castoff.events import WarningEvent
    from castoff.image.image import StoredImage
    from castoff.oci.platform import Platform
    from castoff.ops.workspace import Workspace
    from castoff.store.directory import DirectoryStore


def add_arguments(parser: Parser) -> None:
    """Declare the options of `castoff run`, which are those of `docker run`; the image ends them."""
    from castoff.cli import run_life

    parser.many("--add-host", metavar="HOST:IP", text="add a line to /etc/hosts")
    parser.one("--entrypoint", metavar="PROGRAM", text="run this instead of the image's entrypoint", default=None)
    parser.many("-e", "--env", metavar="KEY=VALUE", text="set a variable (KEY alone takes it from the environment)")
    parser.many("--env-file", metavar="FILE", text="set the variables of a file")
    parser.one("-h", "--hostname", metavar="NAME", text="host name inside")
    parser.flag("-i", "--interactive", text="pass standard input on")
    parser.one("--network", "--net", metavar="MODE", text="bridge (its own), host or none", default="bridge")
    parser.one("--platform", metavar="PLATFORM", text="which image of several platforms (default: this machine's)")
    parser.many("-p", "--publish", metavar="[IP:]HOST:CONTAINER", text="publish a port on this machine")
    parser.flag("--read-only", text="mount the root read-only")
    parser.one("--shm-size", metavar="SIZE", text="size of /dev/shm, such as 64m")
    parser.one("--stop-signal", metavar="SIGNAL", text="the signal that asks it to stop")
    parser.many("--tmpfs", metavar="PATH[:OPTIONS]", text="mount an empty file system in memory: size=, mode=, ro")
    parser.flag("-t", "--tty", text="give it a terminal")
    parser.many("--ulimit", metavar="NAME=SOFT[:HARD]", text="set a resource limit")
    parser.one("-u", "--user", metavar="USER[:GROUP]", text="run as this user, by name or id")
    parser.many("-v", "--volume", metavar="SOURCE:TARGET[:ro]", text="mount a host folder or file, or a named volume")
    parser.one("-w", "--workdir", metavar="DIR", text="working directory inside")
    run_life.add_arguments(parser)
    parser.add_argument("image", metavar="IMAGE", help="reference or id of an image in the store")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="ARG", help="arguments, instead of the image's")


class _Warnings:
    """An observer that prints warnings and nothing else."""

    def warning(self, event: WarningEvent) -> None:
        """Print a warning."""
        sys.stderr.write(f"warning: {event.message}\n")
        sys.stderr.flush()

    def _ignore(self, event: object) -> None:
        del event

    vertex = status = log = _ignore


def run(args: Namespace) -> int:
    """Run the container, and return the exit code of its process; 0 for one that stays in the background."""
    from castoff.cli.run_life import LifeOptions
    from castoff.cli.run_request import RunOptions

    options = RunOptions.read(args)
    life = LifeOptions.read(args)

    from castoff.cli.imagefs import open_workspace

    store = open_store(args, create=False)
    tier = enter_for_container(os.environ)
    with store, open_workspace(store, tier) as workspace:
        image = _open_image(store, args)
        if not (life.has_monitor or options.ports or life.health(image.config().config)):
            return _run_alone(image, workspace, options)
        container, lock = _begin_to_live(args.image, image, workspace, (options, life))
    return _live(container, lock, options, life)


def _open_image(store: DirectoryStore, args: Namespace) -> StoredImage:
    from castoff.image.image import StoredImage
    from castoff.oci.platform import Platform

    wanted = Platform.parse(args.platform) if args.platform else None
    image = StoredImage.open_(store.blobs, store.images.find(args.image).descriptor, wanted)
    _check_platform(image.config().platform, args.image)
    return image


def _run_alone(image: StoredImage, workspace: Workspace, options: RunOptions) -> int:
    """Run a container that is castoff's own child and leaves nothing: what nobody but its caller has to know of."""
    from castoff.cli.imagefs import filesystem_of
    from castoff.cli.run_request import Places, container_request
    from castoff.containers.container import run_container
    from castoff.containers.volumes import VolumeStore

    parent = filesystem_of(image, workspace).snapshot()
    active = workspace.snapshotter.prepare(parent or None)
    places = Places(workspace.snapshotter, workspace.session.new_dir, VolumeStore(workspace.store.root))
    try:
        request = container_request(options, image.config().config, active, places, os.environ)
        sys.stdout.flush()
        return run_container(request, workspace.executor(), _Warnings())
    finally:
        workspace.close()
        workspace.snapshotter.discard(active)


def _begin_to_live(
    name: str, image: StoredImage, workspace: Workspace, asked: tuple[RunOptions, LifeOptions]
) -> tuple[Container, int]:
    """Make a container that lives on its own, and return it with what holds its lock."""
    from castoff.containers.containerstore import ContainerStore
    from castoff.containers.control import sweep
    from castoff.errors import UsageError

    options, life = asked
    if options.tty and options.interactive and not life.detach and not os.isatty(0):
        raise UsageError("the input device is no terminal", hint="leave out -t")
    sweep(ContainerStore(workspace.store.root))
    return _create(name, image, workspace, asked)


def _live(container: Container, lock: int, options: RunOptions, life: LifeOptions) -> int:
    """Start a container's monitor, and attach to it unless it is to stay in the background."""
    from castoff.cli.attach import follow
    from castoff.cli.container_view import warn
    from castoff.containers.control import start_monitor

    try:
        _write_id(life.cidfile, container.id)
        started = start_monitor(container, lock, attach=not life.detach)
    except BaseException:
        _discard(container)
        raise
    for sentence in started.warnings:
        warn(sentence)
    if life.detach:
        if started.code is not None:
            sys.stderr.write(f"error: {started.error}\n")
            return started.code
        sys.stdout.write(f"{container.id}\n")
        return 0
    _tell_ports(options, started.ports)
    assert started.client is not None
    with started.client as client:
        return follow(container, client, terminal=options.tty, interactive=options.interactive)


def _tell_ports(options: RunOptions, ports: tuple[str, ...]) -> None:
    """Say which free ports were chosen: who waits in the foreground has no other way to know."""
    from castoff.cli.container_view import ports_text

    if ports and any(not mapping.host_port for mapping in options.ports):
        sys.stderr.write(f"published: {ports_text(ports)}\n")
        sys.stderr.flush()


def _create(
    name: str, image: StoredImage, workspace: Workspace, asked: tuple[RunOptions, LifeOptions]
) -> tuple[Container, int]:
    """Make a container, and return it with what holds its lock."""
    import time

    from castoff.cli.imagefs import filesystem_of
    from castoff.cli.run_request import Places, container_request
    from castoff.containers.containerstore import ContainerStore
    from castoff.containers.record import ContainerRecord
    from castoff.containers.volumes import VolumeStore

    options, life = asked
    config = image.config().config
    parent = filesystem_of(image, workspace).snapshot()
    containers = ContainerStore(workspace.store.root)
    container, lock = containers.new()
    try:
        active = workspace.snapshotter.prepare(parent or None)
        root = f"{container.path}/root"
        os.rename(active.key, root)
        active = replace(
            active,
            key=root,
            upper=root + active.upper.removeprefix(active.key),
            work=root + active.work.removeprefix(active.key),
        )
        places = Places(workspace.snapshotter, container.new_folder, VolumeStore(workspace.store.root))
        options = replace(options, hostname=options.hostname or container.id[:12])
        request = container_request(options, config, active, places, os.environ)
        record = ContainerRecord(
            id=container.id,
            name=life.name,
            image=name,
            image_id=str(image.config_digest()),
            created=time.time(),
            snapshot=parent,
            spec=request.spec,
            ports=tuple(str(port) for port in request.ports),
            tty=options.tty,
            interactive=options.interactive,
            stop_signal=request.stop_signal,
            stop_timeout=life.stop_timeout,
            auto_remove=life.remove,
            restart=life.restart,
            limits=life.limits,
            health=life.health(config),
            labels=tuple(sorted((dict(config.labels) | dict(life.labels)).items())),
        )
        containers.register(container, record)
    except BaseException:
        container.remove()
        os.close(lock)
        raise
    return container, lock


def _write_id(path: str, text: str) -> None:
    from castoff.errors import UsageError

    if path:
        try:
            with open(path, "x", encoding="ascii") as file:
                file.write(text)
        except OSError as error:
            raise UsageError(f"--cidfile {path} can't be written: {error.strerror}") from error


def _discard(container: Container) -> None:
    """Remove a container that did not come to life."""
    from castoff.containers.containerstore import NoContainerError
    from castoff.containers.control import stop

    stop(container, timeout=0)
    try:
        lock = container.take()
    except NoContainerError:
        return  # its monitor was to remove it
    container.remove()
    os.close(lock)


def _check_platform(platform: Platform, name: str) -> None:
    from castoff.oci.platform import Platform

    host = Platform.host()
    if (platform.os, platform.architecture) != (host.os, host.architecture):
        sys.stderr.write(f"warning: {name} is for {platform}, and this machine is {host}\n")
