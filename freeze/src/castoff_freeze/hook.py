"""Note what a Python process opens and imports; copied as ``sitecustomize.py`` to where the traced process finds it.

Nothing may be imported here that is not imported anyway, or the trace would hold it. One line an event, fields
separated by tabs, written with one call, so that lines of several processes do not mix.
"""

from __future__ import annotations

import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_EVENTS = {
    "open": 1,
    "import": 2,
    "ctypes.dlopen": 1,
    "subprocess.Popen": 1,
    "os.exec": 1,
    "os.posix_spawn": 1,
}
"""Which events are noted, and how many of their arguments."""


class _Missed:
    """The last finder: is asked only for what no other one has found."""

    def __init__(self, note: Callable[[str, tuple[object, ...]], None]) -> None:
        self._note = note

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> None:
        self._note("missed", (name,))


def _install() -> None:
    path = posix.environ.get(b"CASTOFF_FREEZE_TRACE")
    if not path:
        return
    try:
        # A number that no program expects, so that one that closes its lower descriptors does not end the trace.
        log = posix.open(path, posix.O_WRONLY | posix.O_APPEND | posix.O_CLOEXEC)
    except OSError:
        return

    def note(event: str, arguments: tuple[object, ...]) -> None:
        wanted = _EVENTS.get(event)
        if wanted is None and event != "missed":
            return
        fields = [event]
        for value in arguments[: wanted or 1]:
            text = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
            fields.append(text.replace("\t", " ").replace("\n", " ") if isinstance(text, str) else "")
        if event == "open" and len(arguments) > 2 and isinstance(arguments[2], int):
            fields.append("w" if arguments[2] & 3 else "r")
        try:  # noqa: SIM105 - contextlib may not be imported here
            posix.write(log, ("\t".join(fields) + "\n").encode("utf-8", "surrogateescape"))
        except (OSError, UnicodeError):
            pass

    for name in list(sys.modules):
        note("import", (name,))
    sys.addaudithook(note)
    sys.meta_path.append(_Missed(note))


def _go_on() -> None:
    """Take this folder off the import path and run the environment's own sitecustomize, if there is one."""
    here = __file__.rpartition("/")[0]
    sys.path[:] = [entry for entry in sys.path if entry != here]
    own = sys.modules.pop("sitecustomize", None)
    try:
        import sitecustomize  # type: ignore[import-not-found]  # noqa: F401
    except ImportError:
        if own is not None:
            sys.modules["sitecustomize"] = own


_install()
_go_on()
