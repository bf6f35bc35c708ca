"""castoff rm: removes containers with all their files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from castoff.cli.container_view import container_store, for_each
from castoff.cli.session import enter_namespace
from castoff.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from castoff.cli.parser import Parser
    from castoff.containers.containerstore import Container


def add_arguments(parser: Parser) -> None:
    """Declare the options of `castoff rm`."""
    parser.add_argument("container", nargs="+", metavar="CONTAINER", help="name or id")
    parser.flag("-f", "--force", text="kill those that run; say nothing of those that are not there")
    parser.flag("-v", "--volumes", text="accepted; volumes without a name always go with their container")


def run(args: Namespace) -> int:
    """Remove, and return the exit code."""
    from castoff.containers.containerstore import NoContainerError
    from castoff.containers.control import forget_groups, stop

    containers = container_store(args)
    if args.force:
        args.container = [name for name in args.container if _exists(containers.find, name)]
    # Files of a container belong to ids that an ordinary user has in castoff's namespace only.
    enter_namespace(os.environ)

    def remove(container: Container) -> None:
        if args.force:
            stop(container, timeout=0)
        elif container.is_alive() and container.state().is_live:
            raise UsageError(
                f"the container {container.id[:12]} is running",
                hint=f"castoff rm -f {container.id[:12]} kills it first",
            )
        try:
            lock = container.take()
        except NoContainerError:
            return  # its monitor has removed it
        try:
            forget_groups(container)
            container.remove()
        finally:
            os.close(lock)

    return for_each(args, remove)


def _exists(find: object, name: str) -> bool:
    from castoff.containers.containerstore import NoContainerError

    assert callable(find)
    try:
        find(name)
    except NoContainerError:
        return False
    return True
