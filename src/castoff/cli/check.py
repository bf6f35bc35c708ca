"""castoff check: checks a Dockerfile without building it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from castoff.cli import values
from castoff.cli.root import store_root
from castoff.errors import ContextError, UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from castoff.cli.parser import Parser


def add_arguments(parser: Parser) -> None:
    """Declare the options of `castoff check`."""
    parser.add_argument(
        "path", metavar="PATH", nargs="?", default=".", help="a Dockerfile, its folder, or - for stdin (default: .)"
    )
    parser.many("--build-arg", metavar="KEY=VALUE", text="set an ARG (KEY alone takes it from the environment)")
    parser.many("--build-context", metavar="NAME=VALUE", text="name a folder, docker-image://REF or oci-layout://DIR")
    parser.one("-f", "--file", metavar="FILE", text="the Dockerfile (default: PATH/Dockerfile)")
    parser.one("--format", metavar="FORM", text="text, json or sarif", default="text")
    parser.many("--platform", metavar="PLATFORM", text="check for this platform, such as linux/amd64")
    parser.one("--target", metavar="STAGE", text="check this stage and what it needs (default: every stage)")


def run(args: Namespace) -> int:
    """Print the report; return 3 for a Dockerfile that can't be built, 1 for findings, else 0."""
    from castoff.cli.build_request import find_dockerfile
    from castoff.cli.call import check
    from castoff.cli.check_report import FORMS
    from castoff.oci.platform import Platform
    from castoff.request import BuildRequest

    if args.format not in FORMS:
        raise UsageError(f"--format has no form {args.format!r}", hint=f"there are {', '.join(FORMS)}")
    context, file = _split(args.path, args.file)
    source = find_dockerfile(context, file)
    platforms = values.split_commas(args.platform)
    for platform in platforms:
        Platform.parse(platform)
    request = BuildRequest(
        store=store_root(args.root, os.environ),
        context=source.context,
        dockerfile=source.path,
        dockerfile_data=source.data,
        target=args.target,
        build_args=tuple(values.optional_pair(text, "--build-arg") for text in args.build_arg),
        build_contexts=tuple(values.pair(text, "--build-context") for text in args.build_context),
        platforms=platforms,
        environment=tuple(os.environ.items()),
    )
    return check(request, args.format)


def _split(path: str, file: str) -> tuple[str, str]:
    """Return the folder of the context and the Dockerfile in it.

    Raises:
        UsageError: there are two Dockerfiles.
        ContextError: there is nothing at `path`.
    """
    if path == "-" or os.path.isdir(path):
        return path, file
    if not os.path.exists(path):
        raise ContextError(f"there is no Dockerfile at {path}", hint="give a Dockerfile or its folder")
    if file:
        raise UsageError(f"{path} is a file, and -f names another", hint="give the folder with -f")
    return os.path.dirname(path) or ".", path
