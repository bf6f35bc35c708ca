"""What the supervisor of a sandbox has at hand while it answers a call, and how its answers look.

Imports little (see `castoff.sandbox.zygote`).
"""

from __future__ import annotations

import errno
import os
import stat

from castoff.linux.filestatus import MODE, StatusReader
from castoff.sandbox.credentials import ROOT
from castoff.sandbox.inodes import InodeOwners
from castoff.sandbox.tracee import Tracee

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from castoff.linux.filestatus import Status
    from castoff.linux.notify import Listener
    from castoff.sandbox.credentials import Identity
    from castoff.sandbox.identities import Identities

    Call = tuple[int, ...]
    """As `Listener.receive` gives it."""
    Handler = Callable[[Call], int | None]
    """Answers a call: the value that it returns, or None for the kernel's own; OSError for a failure."""

ID, THREAD, FIRST = 0, 1, 6
"""Where in a call its id, its thread and its first argument are."""
READ, WRITE, SEARCH = 4, 2, 1


class Scene:
    """What all handlers share.

    Attributes:
        listener: tells whether a call still waits.
        reader: reads status.
        tracee: reads what threads mean.
        identities: who threads are.
        owners: who owns what.
    """

    def __init__(self, listener: Listener, processes: int, identities: Identities, *, foreign_roots: bool) -> None:
        self.listener = listener
        self.identities = identities
        self.reader = StatusReader()
        self.tracee = Tracee(processes, self.reader, foreign_roots=foreign_roots)
        self.owners = InodeOwners(self.reader)

    def check(self, call: Call) -> None:
        """Make sure that what was found by a thread's number is of the thread that made a call.

        Raises:
            OSError: the thread is gone (ESRCH).
        """
        if not self.listener.is_waiting(call[ID]):
            raise failure(errno.ESRCH)

    def put(self, call: Call, address: int, data: bytes | bytearray) -> None:
        """Write to the memory of the thread that made a call.

        Raises:
            OSError: it can't be written (EFAULT).
        """
        memory = self.tracee.open_memory(call[THREAD])
        try:
            self.check(call)
            if os.pwrite(memory, data, address) != len(data):
                raise failure(errno.EFAULT)
        except OSError as error:
            raise failure(errno.EFAULT if error.errno == errno.EIO else error.errno or errno.EFAULT) from error
        finally:
            os.close(memory)

    def may(self, identity: Identity, status: Status, wanted: int, *, real: bool = False) -> bool:
        """Tell whether the permission bits of a file or directory let an identity do something.

        Args:
            identity: who wants to.
            status: of the file; other kinds than files and directories are never refused, since the streams of a step
                and the devices of a sandbox belong to nobody.
            wanted: READ, WRITE, SEARCH.
            real: whether the real ids count (access(2)), and not those for the file system.
        """
        position = 0 if real else 3
        uid = identity.uids[position]
        mode = status[MODE]
        if uid == 0 or identity is ROOT or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            return True
        owner = self.owners.of(status)
        if uid == owner[0]:
            bits = mode >> 6
        elif owner[1] == identity.gids[position] or owner[1] in identity.groups:
            bits = mode >> 3
        else:
            bits = mode
        return bits & wanted == wanted


def failure(code: int) -> OSError:
    """Return the error with an errno."""
    return OSError(code, os.strerror(code))


def signed(value: int) -> int:
    """Return an argument as the C type int."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >= 1 << 31 else value
