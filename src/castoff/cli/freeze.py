"""castoff freeze: turn a Python service into a minimal runtime tree, with the distribution castoff-freeze.

That distribution knows nothing of castoff, so that a builder stage needs no more than it; where it is installed beside
castoff, this verb hands the command line over. The options are declared here once more so that help, completion and
manual pages know them without it; a test holds the two lists together.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from castoff.cli.parser import split_global
from castoff.errors import UnsupportedError

if TYPE_CHECKING:
    from argparse import Namespace

    from castoff.cli.parser import Parser


def add_arguments(parser: Parser) -> None:
    """Declare the options of `castoff freeze`."""
    parser.add_argument(
        "entry",
        nargs="*",
        metavar="ENTRY",
        help="module:object (ASGI or WSGI), a script's path, or a console script's name; what follows -- goes to it",
    )
    parser.one("-m", "--module", metavar="MODULE", text="start a module, as python -m does")
    parser.one("-o", "--output", metavar="DIR", text="folder to make for the tree")
    parser.one("--smoke", metavar="FILE", text="smoke description (TOML): what to ask, and what is answered")
    parser.one(
        "--mode", metavar="MODE", text="how much is kept: safe (the default), small, or smallest, which is unsafe"
    )
    parser.one("--lock", metavar="FILE", text="requirements file; without one all that is installed counts")
    parser.one("--server", metavar="NAME", text="what serves module:object (default: the first that is installed)")
    parser.many("--path", metavar="DIR", text="import path (default: that of PYTHONPATH)")
    parser.many("--app", metavar="PATH", text="file or folder of the application (default: found by the entry)")
    parser.many("--include", metavar="NAME", text="path or module to keep in any case")
    parser.many("--exclude", metavar="NAME", text="path or module to leave out")
    parser.flag("--split", text="write dependencies to DIR/deps and the application to DIR/app")
    parser.one("--report", metavar="DIR", text="folder for manifest, SBOM and sizes (default: DIR.report)")
    parser.one("--python", metavar="PATH", text="interpreter to freeze (default: the one that runs castoff)")
    parser.one("--isolation", metavar="KIND", text="where the service runs: auto, namespaces, chroot, none")
    parser.one("--trace", metavar="KIND", text="how opened files are seen: auto, fanotify, inotify, none")
    parser.one("--user", metavar="UID", text="user that the service runs as (default: 65532)")
    parser.one("--retries", metavar="N", text="how often missing files are added (default: 5)")
    parser.one(
        "--docstrings", metavar="WHOSE", text="whose are kept: all, dependencies (the default), application, none"
    )
    parser.flag("--no-strip", text="keep the symbols of extension modules")
    parser.one("--launcher", metavar="PATH", text="launcher inside of the tree (default: /start)")
    parser.flag("-q", "--quiet", text="print errors only")


def run(args: Namespace) -> int:
    """Hand the command line over, and return the exit code.

    Raises:
        UnsupportedError: castoff-freeze is not installed.
    """
    try:
        command = importlib.import_module("castoff_freeze.cli")
    except ImportError as error:
        raise UnsupportedError(
            "castoff freeze needs the distribution castoff-freeze, which is not installed",
            feature="freeze",
            hint="pip install castoff-freeze",
        ) from error
    _, rest = split_global(args.command_line)
    return int(command.main(rest[1:], prog="castoff freeze"))
