"""The command line of castoff-freeze: arguments in, a tree and an exit code out."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from castoff_freeze import __version__
from castoff_freeze.entry import parse_entry, server_names
from castoff_freeze.errors import FreezeError, UsageError
from castoff_freeze.selection import MODES
from castoff_freeze.smoke import read_smoke

_EPOCH = 315532800
_DESCRIPTION = "Turn a Python service into a minimal runtime tree, to be copied onto an empty image."
_ENTRY_HELP = "module:object (ASGI or WSGI), a script's path, or a console script's name"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"{self.prog} --help lists what there is")


def parser(prog: str = "castoff-freeze") -> argparse.ArgumentParser:
    """Return the parser of all options."""
    made = _Parser(prog, description=_DESCRIPTION, allow_abbrev=False, epilog="What follows -- goes to the entry.")
    made.add_argument("entry", nargs="?", default="", metavar="ENTRY", help=_ENTRY_HELP)
    made.add_argument("-m", "--module", default="", metavar="MODULE", help="start a module, as python -m does")
    made.add_argument("-o", "--output", required=True, metavar="DIR", help="folder to make for the tree")
    made.add_argument(
        "--smoke", required=True, metavar="FILE", help="smoke description (TOML): what to ask, and answers"
    )
    made.add_argument(
        "--mode", choices=MODES, default="safe", help="how much is kept (default: safe; smallest is unsafe)"
    )
    made.add_argument(
        "--lock", default="", metavar="FILE", help="requirements file; without one all that is installed counts"
    )
    made.add_argument(
        "--server", default="", metavar="NAME", help=f"what serves module:object: {', '.join(server_names())}"
    )
    made.add_argument(
        "--path", action="append", default=[], metavar="DIR", help="import path (default: that of PYTHONPATH)"
    )
    made.add_argument("--app", action="append", default=[], metavar="PATH", help="file or folder of the application")
    made.add_argument(
        "--include", action="append", default=[], metavar="NAME", help="path or module to keep in any case"
    )
    made.add_argument("--exclude", action="append", default=[], metavar="NAME", help="path or module to leave out")
    made.add_argument("--split", action="store_true", help="write dependencies to DIR/deps, the application to DIR/app")
    made.add_argument(
        "--report", default="", metavar="DIR", help="folder for manifest, SBOM and sizes (default: DIR.report)"
    )
    made.add_argument(
        "--python", default=sys.executable, metavar="PATH", help="interpreter (default: the one that runs this)"
    )
    made.add_argument(
        "--isolation", choices=("auto", "namespaces", "chroot", "none"), default="auto", help="where the service runs"
    )
    made.add_argument(
        "--trace", choices=("auto", "fanotify", "inotify", "none"), default="auto", help="how files are seen"
    )
    made.add_argument(
        "--user", type=int, default=65532, metavar="UID", help="user that the service runs as (default: 65532)"
    )
    made.add_argument(
        "--retries", type=int, default=5, metavar="N", help="how often missing files are added (default: 5)"
    )
    made.add_argument(
        "--docstrings",
        choices=("all", "dependencies", "application", "none"),
        default="dependencies",
        help="which docstrings are kept",
    )
    made.add_argument("--no-strip", action="store_true", help="keep the symbols of extension modules")
    made.add_argument(
        "--launcher", default="/start", metavar="PATH", help="launcher inside of the tree (default: /start)"
    )
    made.add_argument("-q", "--quiet", action="store_true", help="print errors only")
    made.add_argument("--version", action="version", version=f"castoff-freeze {__version__}")
    return made


def main(argv: Sequence[str] | None = None, prog: str = "castoff-freeze") -> int:
    """Do what the command line asks, and return the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _main(words, prog, os.environ)
    except FreezeError as error:
        sys.stderr.write(f"{prog}: {error}\n")
        if error.hint:
            sys.stderr.write(f"  hint: {error.hint}\n")
        return error.code
    except KeyboardInterrupt:
        sys.stderr.write(f"{prog}: interrupted\n")
        return 130
    except OSError as error:
        sys.stderr.write(f"{prog}: {error.filename or 'the system'}: {error.strerror or error}\n")
        return 1


def _main(words: list[str], prog: str, environment: Mapping[str, str]) -> int:
    words, more = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    args = parser(prog).parse_args(words)
    entry = parse_entry(args.entry, module=args.module, server=args.server, arguments=more)
    smoke = read_smoke(args.smoke)
    if not args.launcher.startswith("/") or args.launcher.endswith("/"):
        raise UsageError(f"the launcher's path must be absolute, not {args.launcher}")
    if not 0 < args.user < 1 << 31 or args.retries < 0:
        raise UsageError("--user and --retries take numbers that make sense")
    from castoff_freeze.freeze import Frozen, freeze
    from castoff_freeze.surroundings import FreezeRequest

    def said(line: str) -> None:
        if not args.quiet:
            sys.stderr.write(f"{line}\n")

    request = FreezeRequest(
        entry=entry,
        smoke=smoke,
        output=args.output,
        python=args.python,
        mode=args.mode,
        lock=args.lock,
        paths=tuple(args.path),
        application=tuple(args.app),
        include=tuple(args.include),
        exclude=tuple(args.exclude),
        split=args.split,
        report=args.report,
        isolation=args.isolation,
        watch=args.trace,
        uid=args.user,
        retries=args.retries,
        docstrings=args.docstrings,
        strip=not args.no_strip,
        launcher=args.launcher,
        environment=dict(environment),
        epoch=_epoch(environment),
        weigh=not args.quiet,
        said=said,
    )
    frozen: Frozen = freeze(request)
    for remark in frozen.remarks:
        said(f"note: {remark}")
    if not args.quiet:
        sys.stdout.write(frozen.sizes.table())
        sys.stdout.write(f'wrote {frozen.output}; start it with ENTRYPOINT ["{frozen.launcher}"]\n')
    return 0


def _epoch(environment: Mapping[str, str]) -> int:
    text = environment.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return _EPOCH
    if not text.isascii() or not text.isdigit() or len(text) > 11:
        raise UsageError(f"SOURCE_DATE_EPOCH is not a number of seconds: {text}")
    return int(text)
