"""One thread's loop over descriptors and timers."""

from __future__ import annotations

import selectors
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Loop:
    """Calls back when a descriptor can be read or written, or a time has come. Not thread-safe."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: dict[object, tuple[float, Callable[[], None]]] = {}

    def watch(self, descriptor: int, callback: Callable[[], None], *, writing: bool = False) -> None:
        """Call back whenever a descriptor can be read (or written); once more replaces what was said before."""
        events = selectors.EVENT_WRITE if writing else selectors.EVENT_READ
        if descriptor in self._selector.get_map():
            self._selector.modify(descriptor, events, callback)
        else:
            self._selector.register(descriptor, events, callback)

    def forget(self, descriptor: int) -> None:
        """Watch a descriptor no more; to be called before it is closed. Idempotent."""
        if descriptor in self._selector.get_map():
            self._selector.unregister(descriptor)

    def after(self, key: object, seconds: float, callback: Callable[[], None]) -> None:
        """Call back once, after some time; the same key replaces what was said before."""
        self._timers[key] = (time.monotonic() + seconds, callback)

    def cancel(self, key: object) -> None:
        """Forget a timer. Idempotent."""
        self._timers.pop(key, None)

    def turn(self, most: float | None = None) -> None:
        """Wait for what comes next, `most` seconds at most, and call back."""
        times = [deadline for deadline, _ in self._timers.values()]
        wait = min(times) - time.monotonic() if times else None
        if most is not None:
            wait = most if wait is None else min(wait, most)
        for key, _ in self._selector.select(None if wait is None else max(0.0, wait)):
            # An earlier callback of this turn may have forgotten it.
            if self._selector.get_map().get(key.fd) is key:
                key.data()
        now = time.monotonic()
        for name, (deadline, callback) in list(self._timers.items()):
            if deadline <= now and self._timers.get(name) == (deadline, callback):
                del self._timers[name]
                callback()

    def close(self) -> None:
        """Let go of everything. Idempotent."""
        self._timers.clear()
        self._selector.close()
