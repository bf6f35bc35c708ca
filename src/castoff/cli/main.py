"""The command line: argv in, exit code out. Everything that can go wrong ends here, as one sentence."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from castoff.cli.errors import EXIT_BROKEN_PIPE, Interrupted, report

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

EXIT_RUN_FAILED = 125
"""What `run` returns where castoff itself failed, so that it can be told from the process's own codes."""


def main(argv: list[str]) -> int:
    """Do what the command line asks (`argv` without the program's name), and return the exit code."""
    _prepare_streams()
    with _raising_on_signals():
        verb = ""
        try:
            from castoff.cli.parser import split_global, split_verb

            root, rest = split_global(argv)
            if rest and not _asks_about_castoff(rest[0]):
                verb, rest = split_verb(rest)
            code = _run(verb, rest, root, argv)
            sys.stdout.flush()
        except SystemExit as end:  # argparse after --help
            code = end.code if isinstance(end.code, int) else 0
        except BaseException as error:  # noqa: BLE001 - this is where every error becomes a sentence
            code = _failed(_interruption(error) or error, verb)
        return code


def _interruption(error: BaseException) -> BaseException | None:
    """Return the signal that an error came of: what is torn out of its work may fail in its own tidying up."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__context__
    return cause


def _asks_about_castoff(word: str) -> bool:
    return word in ("-h", "--help", "help", "--version", "version")


def _run(verb: str, rest: list[str], root: str | None, argv: list[str]) -> int:
    from castoff.cli.parser import help_text, parse_verb

    if verb:
        command = parse_verb(verb, rest, root)
        command.args.command_line = argv
        return command.run(command.args)
    if rest and rest[0] in ("--version", "version"):
        from castoff import __version__

        sys.stdout.write(f"castoff {__version__}\n")
    else:
        sys.stdout.write(help_text())
    return 0


def _failed(error: BaseException, verb: str) -> int:
    if isinstance(error, BrokenPipeError):
        # Nobody reads any more; what is left in the buffer must not raise again when Python ends.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)
    try:
        sys.stdout.flush()
        code = report(error, sys.stderr, os.environ)
        sys.stderr.flush()
    except BrokenPipeError:
        return EXIT_BROKEN_PIPE
    if verb == "run" and not isinstance(error, KeyboardInterrupt | BrokenPipeError):
        return EXIT_RUN_FAILED
    return code


def _prepare_streams() -> None:
    """Let no name in an image, and no locale, make printing fail."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


@contextmanager
def _raising_on_signals() -> Iterator[None]:
    """Turn the signals that ask castoff to end into exceptions, so that everything is put in order on the way out."""
    previous = {}
    interrupt = _Interrupt()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # One that is ignored (nohup) stays ignored.
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            with suppress(ValueError):  # outside the main thread the program that called us has its own handlers
                previous[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class _Interrupt:
    """Handles the signals that ask castoff to end.

    The first one begins the end; a second, as of somebody impatient, would only disturb the tidying up. The third ends
    castoff on the spot, which is as safe as any crash: the fork server kills what runs, and the next build sweeps.
    """

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        """Take a signal."""
        self._count += 1
        if self._count == 1:
            raise Interrupted(number)
        if self._count > 2:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
