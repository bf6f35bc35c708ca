"""The door of the command line: a build that has nothing to do is answered here, all else by `castoff.cli`.

A build that went well leaves a record of all that decided it (`castoff.cli.noop`). If the same command is given again
and nothing of it has changed, the recorded outcome is shown again, without a parser, a plan, or a key. This module has
to be quick: it imports nothing but what the interpreter has loaded anyway, and small modules of its own.
"""

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def main(argv: list[str] | None = None) -> int:
    """Run the command line `argv` (without the program's name) and return the exit code."""
    started = time.time()
    arguments = sys.argv[1:] if argv is None else argv
    if None in (sys.stdin, sys.stdout, sys.stderr):
        _open_streams()
    try:
        code = _repeat(arguments, os.environ, started) if "build" in arguments[:4] else None
        if code is not None:
            return code
        from castoff.cli.main import main as run
    except KeyboardInterrupt:
        return 130
    return run(arguments)


def _repeat(arguments: list[str], environ: Mapping[str, str], started: float) -> int | None:
    """Show the outcome of the same build again, if nothing changed since; None where the build must be done."""
    from castoff.cli import replay, verify
    from castoff.cli.root import store_root

    root = None
    for index, argument in enumerate(arguments):
        if argument == "build":
            break
        if argument == "--root" and index + 1 < len(arguments):
            root = arguments[index + 1]
        elif argument.startswith("--root="):
            root = argument[len("--root=") :]
    record = verify.load(store_root(root, environ), arguments, environ)
    if record is None:
        return None
    try:
        for path, data in record["writes"]:
            with open(path, "wb") as file:
                file.write(data)
    except OSError:
        return None
    try:
        replay.replay(record["events"], record["mode"], sys.stderr, started=started)
        if record["prints"][1]:
            sys.stderr.write(record["prints"][1])
    except OSError:
        _silence(2)  # as with a build: that nobody looks on is no failure
    try:
        text = record["prints"][0]
        if replay.resolve_mode(record["mode"], sys.stderr, environ) == "quiet":
            text += record["image_id"] + "\n"
        if text:
            sys.stdout.write(text)
            sys.stdout.flush()
    except OSError as error:
        from castoff.cli.errors import report

        _silence(1)
        return report(error, sys.stderr, environ)
    return 0


def _open_streams() -> None:
    """Open the standard streams that were closed, before a file of the store takes the number of one."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  (it stays open)


def _silence(descriptor: int) -> None:
    """Let what is still in a stream's buffer go nowhere, so that Python does not fail with it when it ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)


if __name__ == "__main__":
    sys.exit(main())
