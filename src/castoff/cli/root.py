"""Where the store is; imports nothing heavy, since the fast path asks too."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

SYSTEM_ROOT = "/var/lib/castoff"


def store_root(option: str | None, environ: Mapping[str, str]) -> str:
    """Return the absolute path of the store's folder.

    Args:
        option: the value of ``--root``; None or "" where it was not given.
        environ: for CASTOFF_ROOT, XDG_DATA_HOME and HOME.
    """
    chosen = option or environ.get("CASTOFF_ROOT", "")
    if chosen:
        return os.path.abspath(chosen)
    if os.geteuid() == 0:
        return SYSTEM_ROOT
    data = environ.get("XDG_DATA_HOME", "")
    if not os.path.isabs(data):  # the specification says that a relative one is to be ignored
        data = os.path.join(environ.get("HOME", "") or os.path.expanduser("~"), ".local", "share")
    return os.path.abspath(os.path.join(data, "castoff"))
