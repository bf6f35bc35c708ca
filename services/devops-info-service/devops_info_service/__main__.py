"""Starts the service: settings from the environment, a socket, and the server until a signal comes."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

EARLY: list[int] = []  # signals that came before there was anything to stop


def remember(number: int, _frame: FrameType | None) -> None:
    """Keep a signal for the server: the first process of a container would otherwise never see an early one."""
    EARLY.append(number)


def main() -> int:
    """Run the service and return its exit code: 0 stopped, 1 the address can't be had, 2 a wrong setting."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, remember)
    from devops_info_service import NAME
    from devops_info_service.settings import SettingsError, read_settings

    try:
        settings = read_settings(os.environ)
    except SettingsError as error:
        print(f"{NAME}: {error}", file=sys.stderr)
        return 2
    from devops_info_service.server import ListenError, listen, run

    try:
        listener = listen(settings)
    except ListenError as error:
        print(f"{NAME}: {error}", file=sys.stderr)
        return 1
    return run(settings, listener, EARLY)


if __name__ == "__main__":
    sys.exit(main())
