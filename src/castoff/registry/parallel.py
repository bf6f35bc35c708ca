"""Several transfers at the same time: the first that fails ends all."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from castoff.registry.transport import CanceledTransferError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAX_TRANSFERS = 6
"""How many blobs are transferred at the same time."""
_LOOK = 0.3
_GRACE = 5.0


def run_all(tasks: Sequence[Callable[[], None]], give_up: Callable[[], None], limit: int = MAX_TRANSFERS) -> None:
    """Run tasks in threads and return when all are done.

    The threads never keep the program from ending.

    Args:
        tasks: what to do; begun in their order.
        give_up: called once where a task has failed, or this thread is interrupted: it makes the other tasks fail soon.
        limit: how many run at the same time.

    Raises:
        BaseException: what the first task to fail raised; no task is begun after that.
    """
    if len(tasks) == 1:
        tasks[0]()
        return
    run = _Run(tasks)
    threads = [
        threading.Thread(target=run.work, name="castoff-transfer", daemon=True) for _ in range(min(limit, len(tasks)))
    ]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            # Not without end, so that a signal that comes just before this thread sleeps is seen.
            while thread.is_alive() and run.failure is None:
                thread.join(_LOOK)
    except BaseException:
        _end(run, threads, give_up)
        raise
    if run.failure is not None:
        _end(run, threads, give_up)
        raise run.failure


def _end(run: _Run, threads: Sequence[threading.Thread], give_up: Callable[[], None]) -> None:
    """End what is under way, and wait a little for it."""
    run.stop()
    give_up()
    for thread in threads:
        if thread.ident is not None:
            thread.join(_GRACE)


class _Run:
    """Tasks that threads take one by one."""

    def __init__(self, tasks: Sequence[Callable[[], None]]) -> None:
        self._tasks = list(reversed(tasks))
        self._lock = threading.Lock()
        self.failure: BaseException | None = None

    def work(self) -> None:
        while True:
            with self._lock:
                if not self._tasks:
                    return
                task = self._tasks.pop()
            try:
                task()
            except BaseException as error:  # noqa: BLE001  (raised again by run_all)
                with self._lock:
                    # What was given up says less than why.
                    if self.failure is None or isinstance(self.failure, CanceledTransferError):
                        self.failure = error
                    self._tasks.clear()
                return

    def stop(self) -> None:
        """Begin no further task."""
        with self._lock:
            self._tasks.clear()
