"""What verbs share when they begin: the store, and the namespace in which an ordinary user is root."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from castoff.cli.root import store_root
from castoff.errors import UnsupportedError, UsageError

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Mapping

    from castoff.cli.progress.observer import ProgressObserver
    from castoff.sandbox.userns import Tier
    from castoff.store.directory import DirectoryStore


def enter_namespace(environ: Mapping[str, str]) -> Tier:
    """Become root over a range of ids, once, before any thread starts; nothing happens for root.

    The path of the store must be known by then: it depends on who the user is.

    Raises:
        UnsupportedError: this machine lacks a feature; the hint says what to do.
        UsageError: CASTOFF_USERNS names no way.
    """
    from castoff.sandbox.userns import enter_user_namespace

    return enter_user_namespace(environ.get("CASTOFF_USERNS", ""))


def enter_for_container(environ: Mapping[str, str]) -> Tier:
    """Do as `enter_namespace` does, for a container, which can't be without namespaces.

    Raises:
        UnsupportedError: there are none here.
        UsageError: CASTOFF_USERNS names no way.
    """
    tier = enter_namespace(environ)
    if not tier.mounts:
        remedies = [remedy for _name, _fact, remedy in tier.refusals if remedy]
        raise UnsupportedError(
            "containers want namespaces, and there are none here",
            feature="namespaces",
            hint=remedies[-1] if remedies else "castoff doctor says what is lacking",
        )
    return tier


def open_store(args: Namespace, *, create: bool = True) -> DirectoryStore:
    """Open the store that the arguments and the environment name.

    Raises:
        StoreError: it can't be opened.
    """
    from castoff.store.directory import DirectoryStore

    return DirectoryStore.open_(store_root(args.root, os.environ), create=create)


def chosen_mode(args: Namespace) -> str:
    """Return the mode of progress that ``--progress`` and ``--quiet`` ask for.

    Raises:
        UsageError: there is no such mode.
    """
    from castoff.cli.replay import MODES, resolve_mode

    if args.progress not in MODES:
        raise UsageError(f"--progress has no mode {args.progress!r}", hint=f"there are {', '.join(MODES)}")
    return resolve_mode("quiet" if args.quiet else args.progress, sys.stderr, os.environ)


def show_progress(mode: str, started: float) -> ProgressObserver:
    """Return an observer that shows on standard error how things go; `started` is in seconds since the epoch."""
    from castoff.cli.progress.observer import PLAIN_PERIOD, TTY_PERIOD, ProgressObserver
    from castoff.cli.replay import open_display

    display = open_display(mode, sys.stderr, started, os.environ)
    return ProgressObserver(display, period=TTY_PERIOD if mode == "tty" else PLAIN_PERIOD)


def source_epoch(text: str) -> int | None:
    """Return the seconds since the epoch that SOURCE_DATE_EPOCH has; None for "".

    Raises:
        UsageError: it is no such number.
    """
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 11:
        raise UsageError(f"SOURCE_DATE_EPOCH is to be a number of seconds since 1970, not {text!r}")
    return int(text)
