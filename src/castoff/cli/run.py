"""castoff run: a process in a new container from an image, in the foreground."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from castoff.cli.session import enter_namespace, open_store

if TYPE_CHECKING:
    from argparse import Namespace

    from castoff.cli.parser import Parser
    from castoff.events import WarningEvent
    from castoff.oci.platform import Platform


def add_arguments(parser: Parser) -> None:
    """Declare the options of `castoff run`, which are those of `docker run`; the image ends them."""
    parser.many("--add-host", metavar="HOST:IP", text="add a line to /etc/hosts")
    parser.flag("-d", "--detach")
    parser.one("--entrypoint", metavar="PROGRAM", text="run this instead of the image's entrypoint", default=None)
    parser.many("-e", "--env", metavar="KEY=VALUE", text="set a variable (KEY alone takes it from the environment)")
    parser.many("--env-file", metavar="FILE", text="set the variables of a file")
    parser.one("-h", "--hostname", metavar="NAME", text="host name inside")
    parser.flag("-i", "--interactive", text="pass standard input on")
    parser.add_argument("--name", default="", help=argparse.SUPPRESS)
    parser.one("--network", "--net", metavar="MODE", text="bridge (its own), host or none", default="bridge")
    parser.one("--platform", metavar="PLATFORM", text="which image of several platforms (default: this machine's)")
    parser.many("-p", "--publish", metavar="[IP:]HOST:CONTAINER", text="publish a port on this machine")
    parser.flag("--read-only", text="mount the root read-only")
    parser.flag("--rm", text="remove the container when it ends (it always is)")
    parser.one("--shm-size", metavar="SIZE", text="size of /dev/shm, such as 64m")
    parser.one("--stop-signal", metavar="SIGNAL", text="the signal that asks it to stop")
    parser.many("--tmpfs", metavar="PATH[:OPTIONS]", text="mount an empty file system in memory: size=, mode=, ro")
    parser.flag("-t", "--tty", text="give it a terminal")
    parser.many("--ulimit", metavar="NAME=SOFT[:HARD]", text="set a resource limit")
    parser.one("-u", "--user", metavar="USER[:GROUP]", text="run as this user, by name or id")
    parser.many("-v", "--volume", metavar="SOURCE:TARGET[:ro]", text="mount a host folder or file")
    parser.one("-w", "--workdir", metavar="DIR", text="working directory inside")
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
    """Run the container, and return the exit code of its process."""
    from castoff.cli.run_request import RunOptions, container_request

    options = RunOptions.read(args)

    from castoff.cli.imagefs import filesystem_of, open_workspace
    from castoff.containers.container import run_container
    from castoff.image.image import StoredImage
    from castoff.oci.platform import Platform

    wanted = Platform.parse(args.platform) if args.platform else None
    store = open_store(args, create=False)
    tier = enter_namespace(os.environ)
    with store, open_workspace(store, tier) as workspace:
        image = StoredImage.open_(store.blobs, store.images.find(args.image).descriptor, wanted)
        config = image.config()
        _check_platform(config.platform, args.image)
        parent = filesystem_of(image, workspace).snapshot()
        active = workspace.snapshotter.prepare(parent or None)
        try:
            request = container_request(options, config.config, active, workspace, os.environ)
            sys.stdout.flush()
            return run_container(request, workspace.executor(), _Warnings())
        finally:
            workspace.close()
            workspace.snapshotter.discard(active)


def _check_platform(platform: Platform, name: str) -> None:
    from castoff.oci.platform import Platform

    host = Platform.host()
    if (platform.os, platform.architecture) != (host.os, host.architecture):
        sys.stderr.write(f"warning: {name} is for {platform}, and this machine is {host}\n")
