"""Giving up what another thread does: a build, a pull, a push."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from castoff.errors import CanceledError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Cancellation:
    """Is given to an operation, and ends it when another thread says so. Safe for several threads.

    One may be given to several operations; it stays canceled once it is.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._canceled = False
        self._callbacks: list[Callable[[], object]] = []

    @property
    def canceled(self) -> bool:
        """Whether `cancel` was called."""
        return self._canceled

    def cancel(self) -> None:
        """End the operations that this was given to: they raise `CanceledError` soon. Idempotent; returns at once."""
        with self._lock:
            self._canceled = True
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def check(self) -> None:
        """Raise where it was canceled.

        Raises:
            CanceledError: it was.
        """
        if self._canceled:
            raise CanceledError("the caller gave up")

    @contextmanager
    def ending(self, callback: Callable[[], object]) -> Iterator[None]:
        """Call something that ends the block's work when `cancel` is called; and raise, where it was, at the end.

        Raises:
            CanceledError: it was canceled, before the block or in it; a failure of the block is its cause.
        """
        with self._lock:
            canceled = self._canceled
            if not canceled:
                self._callbacks.append(callback)
        if canceled:
            self.check()
        try:
            yield
        except Exception as error:
            if self._canceled:
                raise CanceledError("the caller gave up") from error
            raise
        finally:
            with self._lock:
                if callback in self._callbacks:
                    self._callbacks.remove(callback)
