"""Ending a thread that has work to do for nobody."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from threading import Thread


def interrupt(thread: Thread) -> None:
    """Raise KeyboardInterrupt in another thread, between two of its bytecodes; nothing happens if it has ended.

    A system call that it is in goes on until it returns. What the thread holds by ``with`` and ``finally`` is let go.
    """
    if thread.ident is not None and thread.is_alive():
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(KeyboardInterrupt))
