"""Which ids each supervised thread has: the kernel carries a token for it from thread to thread.

What a process is must go to its children, through any number of forks and execs, and no filter tells of a fork's
result. The timer slack of a thread (man 2 PR_SET_TIMERSLACK) goes to its children and stays at exec, a supervisor can
read and set it, and some nanoseconds more or less mean nothing. A step that sets its own is taken for root, as which it
does not gain anything: it has the rights of its only real user anyway.

Imports little (see `castoff.sandbox.zygote`).
"""

from __future__ import annotations

import errno
import os

from castoff.sandbox.credentials import ROOT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from castoff.sandbox.credentials import Identity

_MAX_IDENTITIES = 10_000


class Identities:
    """The ids of threads. For one thread.

    Attributes:
        any_: whether there was ever a thread that is not root throughout.
    """

    def __init__(self, processes: int, first: int) -> None:
        """Take an open /proc, and the number of the first thread, which is root.

        Raises:
            OSError: the thread is gone, or the kernel does not let its timer slack be set.
        """
        self.any_ = False
        self._processes = processes
        self._base = int(self._read(first) or 0)
        # Whether it can be set is to be known now, and not in the middle of a step.
        self._write(first, self._base)
        self._by_token: dict[int, Identity] = {}
        self._tokens: dict[Identity, int] = {ROOT: self._base}

    def of(self, thread: int) -> Identity:
        """Return the ids of a thread.

        Raises:
            OSError: the thread is gone.
        """
        if not self.any_:
            return ROOT
        return self._by_token.get(int(self._read(thread) or 0), ROOT)

    def set_(self, thread: int, identity: Identity) -> None:
        """Give a thread other ids.

        Raises:
            OSError: the thread is gone, or there are too many identities (EAGAIN).
        """
        token = self._tokens.get(identity)
        if token is None:
            if len(self._tokens) > _MAX_IDENTITIES:
                raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            token = self._tokens[identity] = self._base + len(self._tokens)
            self._by_token[token] = identity
            self.any_ = True
        self._write(thread, token)

    def _read(self, thread: int) -> bytes:
        descriptor = os.open(b"%d/timerslack_ns" % thread, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._processes)
        try:
            return os.read(descriptor, 64)
        finally:
            os.close(descriptor)

    def _write(self, thread: int, token: int) -> None:
        descriptor = os.open(b"%d/timerslack_ns" % thread, os.O_WRONLY | os.O_CLOEXEC, dir_fd=self._processes)
        try:
            os.write(descriptor, b"%d" % token)
        finally:
            os.close(descriptor)
