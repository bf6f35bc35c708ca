"""The supervisor of a step where only one user id is mapped: it lets processes be root, and other users.

Where castoff is root of a user namespace with one id, the kernel knows no other owners and users. A filter has the
calls that set or tell them answered here. The supervisor is a process beside the sandbox: outside of its process id
namespace, so that no step can signal or trace it, and inside of its mount namespace and root, so that no path leads it
elsewhere. It has the capabilities of the step, and those to look into the step's processes, in the same user namespace;
nothing that protects the host rests on what it finds there.

Imports little (see `castoff.sandbox.zygote`).
"""

from __future__ import annotations

import _socket
import os
import select
import signal
import sys

from castoff.fs.ownertable import decode
from castoff.linux import namespaces, notify, syscalls
from castoff.sandbox.filecalls import FileCalls, RefusedError
from castoff.sandbox.idcalls import PR_SET_KEEPCAPS, IdCalls
from castoff.sandbox.identities import Identities
from castoff.sandbox.inodes import Tree
from castoff.sandbox.namecalls import OPEN_FLAGS, NameCalls
from castoff.sandbox.supervision import ID, THREAD, Scene

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from castoff.sandbox.supervision import Call, Handler

_NUMBER = 3
_CAP_SYS_PTRACE = 19
_CAP_SYS_NICE = 23
# Docker's default set but for SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, NET_RAW, SYS_CHROOT, AUDIT_WRITE; and the two
# that it takes to read what a process means and to give it a token.
_CAPABILITIES = (0, 1, 3, 4, 27, 31, _CAP_SYS_PTRACE, _CAP_SYS_NICE)
_BY_FLAGS = {"openat": (2, OPEN_FLAGS), "open": (1, OPEN_FLAGS), "prctl": (0, PR_SET_KEEPCAPS)}
_ACK = b"k"


def step_filter(machine: str) -> bytes:
    """Return the filter of a supervised step.

    Raises:
        ValueError: there is none for this architecture.
    """
    return notify.trap_filter(machine, _trapped(), _BY_FLAGS)


def _trapped() -> list[str]:
    return [name for name in notify.call_names() if name not in (*_BY_FLAGS, "io_uring_setup")]


class Ward:
    """A sandbox' child as it puts itself under supervision."""

    def __init__(self, channel: _socket.socket, program: bytes) -> None:
        """Take the child's end of the channel to the supervisor, and the filter."""
        self._channel = channel
        self._program = program

    def begin(self) -> None:
        """Install the filter and wait for the supervisor to be ready.

        Raises:
            OSError: the kernel refuses the filter (EBUSY where this process is supervised already), or the supervisor
                ended.
        """
        descriptor = notify.install(self._program)
        raw = descriptor.to_bytes(4, sys.byteorder)
        self._channel.sendmsg([b"f"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, raw)])
        os.close(descriptor)
        if self._channel.recv(1) != _ACK:
            raise OSError(3, "the supervisor ended")
        self._channel.close()


def supervise(channel: _socket.socket, first: int, descriptors: tuple[int, int], request: dict[str, Any]) -> None:
    """Answer the calls of a sandbox until its last process is gone, and write down who owns what.

    To be called in a process of its own, which ends afterwards.

    Args:
        channel: the other end of that of the sandbox' `Ward`.
        first: number of the sandbox' first process, which is still root and not confined.
        descriptors: the same process as a descriptor, and one more that is to stay open.
        request: a request of `castoff.sandbox.wire`.

    Raises:
        OSError: the sandbox can't be supervised, or a table can't be written.
        ValueError: a table is damaged.
    """
    pidfd, report = descriptors
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    processes = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    trees = [_tree(*given) for given in request["trees"]]
    descriptor = _listener(channel)
    if descriptor < 0:
        return
    kept = {channel.fileno(), pidfd, report, processes, descriptor}
    kept.update(each for tree in trees for each in (tree.source, tree.folder))
    _close_all_but(kept)
    syscalls.setns(pidfd, namespaces.CLONE_NEWNS)
    os.close(pidfd)
    _drop_capabilities()
    listener = notify.Listener(descriptor)
    scene = Scene(listener, processes, Identities(processes, first), foreign_roots=request["privileged"])
    for tree in trees:
        scene.owners.load(tree)
    names = NameCalls(scene)
    channel.sendall(_ACK)
    channel.close()
    _Loop(scene, names).run(descriptor)
    names.settle(0)
    for tree in trees:
        scene.owners.save(tree)


def _tree(target: bytes, owners: bytes, source: bytes | None, table: bytes | None) -> Tree:
    tree = Tree(target, decode(owners))
    if source is not None and table is not None:
        tree.keep(source, table)
    return tree


def _listener(channel: _socket.socket) -> int:
    """Return the listener that the child sends; -1 if it ended before."""
    data, ancillary, _, _ = channel.recvmsg(1, _socket.CMSG_SPACE(4))
    if not data or not ancillary:
        return -1
    return int.from_bytes(ancillary[0][2][:4], sys.byteorder)


def _close_all_but(kept: set[int]) -> None:
    """Close all other descriptors, and the standard streams but for errors: those of a step must see its end."""
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    start = 3
    for descriptor in sorted(each for each in kept if each > 2):
        os.closerange(start, descriptor)
        start = descriptor + 1
    os.closerange(start, 1 << 20)


def _drop_capabilities() -> None:
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    mask = sum(1 << number for number in _CAPABILITIES)
    syscalls.capset(mask, mask, 0)


class _Loop:
    """Takes calls one by one, and answers them."""

    def __init__(self, scene: Scene, names: NameCalls) -> None:
        self._scene = scene
        self._names = names
        files = FileCalls(scene)
        numbers = notify.call_numbers(syscalls.machine())
        strict = IdCalls(scene).handlers() | files.strict() | names.strict()
        lenient = files.lenient() | names.lenient()
        self._handlers: dict[int, tuple[Handler, bool]] = {}
        for handlers, is_strict in ((strict, True), (lenient, False)):
            for name, handler in handlers.items():
                if name in numbers:
                    self._handlers[numbers[name]] = (handler, is_strict)

    def run(self, descriptor: int) -> None:
        """Answer calls until nobody is left to make any."""
        listener = self._scene.listener
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        wait = poll.poll
        while True:
            events = wait()
            if not events[0][1] & select.POLLIN:
                return
            call = listener.receive()
            if call is not None:
                self._answer(call)

    def _answer(self, call: Call) -> None:
        scene, names = self._scene, self._names
        if names.is_waiting:
            names.settle(call[THREAD])
        handler, is_strict = self._handlers[call[_NUMBER]]
        try:
            value = handler(call)
        except RefusedError as error:
            scene.listener.refuse(call[ID], error.errno or 1)
        except OSError as error:
            if is_strict:
                scene.listener.refuse(call[ID], error.errno or 1)
            else:
                scene.listener.pass_on(call[ID])
        else:
            if value is None:
                scene.listener.pass_on(call[ID])
            else:
                scene.listener.answer(call[ID], value)
