"""The server of processes in a changed root: a small, single-threaded process that forks a keeper for each of them.

It is started as `castoff.sandbox.zygote` is, and speaks as it does, but makes no namespaces. A keeper prepares the
root, starts the process in it, and is the one to whom the kernel gives every orphan among its descendants: when the
process has ended, or castoff is gone, it kills them all, one generation after the other, and puts the root in order.

Arguments and messages: those of `castoff.sandbox.zygote`.
"""

from __future__ import annotations

import _socket
import gc
import marshal
import os
import select
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

_MAX_MESSAGE = 1 << 17
_MSG_CMSG_CLOEXEC = 0x40000000
_MSG_NOSIGNAL = 0x4000


class _Server:
    """Serves one executor."""

    def __init__(self, control: _socket.socket, folder: str) -> None:
        from castoff.linux import seccomp, syscalls
        from castoff.sandbox import chroot_launch, chroot_root, launch

        self._control = control
        self._folder = folder
        self._syscalls, self._root, self._launch = syscalls, chroot_root, chroot_launch
        self._filter = seccomp.default_policy(syscalls.machine(), chroot_launch.REFUSED)
        self._last_capability = launch.last_capability()
        self._keepers: dict[int, tuple[int, _socket.socket]] = {}
        self._next = 0
        # Its reading end tells the keepers, by being closed at the other, that the server is gone.
        self._life = os.pipe()
        self._poll = select.poll()
        self._poll.register(control.fileno(), select.POLLIN)

    def serve(self) -> None:
        """Serve until the executor closes its end."""
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor != self._control.fileno():
                    self._reap(descriptor)
                elif not self._receive():
                    os.close(self._life[1])
                    for pidfd in list(self._keepers):
                        self._reap(pidfd)
                    return

    def _receive(self) -> bool:
        """Take one request; tell whether there may be more."""
        data, ancillary, _, _ = self._control.recvmsg(_MAX_MESSAGE, _socket.CMSG_SPACE(4 * 5), _MSG_CMSG_CLOEXEC)
        descriptors: list[int] = []
        for _, _, raw in ancillary:
            descriptors += [int.from_bytes(raw[at : at + 4], sys.byteorder) for at in range(0, len(raw) // 4 * 4, 4)]
        if not data:
            return False
        channel = _socket.socket(fileno=descriptors[3])
        try:
            if len(descriptors) > 4:
                data = os.pread(descriptors[4], os.fstat(descriptors[4]).st_size, 0)
            self._start(marshal.loads(data), descriptors[:3], channel)  # noqa: S302 - from castoff
        finally:
            for descriptor in descriptors[:3] + descriptors[4:]:
                os.close(descriptor)
        return True

    def _start(self, request: dict[str, Any], stdio: list[int], channel: _socket.socket) -> None:
        self._next += 1
        folder = os.path.join(self._folder, f"aside-{self._next}")
        try:
            os.mkdir(folder, 0o700)
            pid, pidfd = self._syscalls.clone(0)
        except OSError as error:
            _send(channel, ("failed", "start a process", error.errno or 0, str(error)))
            return
        if pid == 0:
            self._keep(request, stdio, channel, folder)
        self._keepers[pidfd] = (pid, channel)
        self._poll.register(pidfd, select.POLLIN)

    def _reap(self, pidfd: int) -> None:
        pid, channel = self._keepers.pop(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        os.waitpid(pid, 0)
        channel.close()

    def _keep(self, request: dict[str, Any], stdio: list[int], channel: _socket.socket, folder: str) -> NoReturn:
        """Be the keeper of one process; never returns."""
        root: Any = None
        step = "open the root"
        code = 125
        try:
            os.close(self._life[1])
            self._control.close()
            self._syscalls.prctl(self._syscalls.PR_SET_CHILD_SUBREAPER, 1)
            root = self._root.PlainRoot(request, folder)
            root.prepare()
            step = "start a process"
            pid, pidfd = self._syscalls.clone(0)
            if pid == 0:
                self._be(request, stdio, channel, root)
            for descriptor in stdio:
                os.close(descriptor)
            _send(channel, ("started", pid), pidfd)
            code = self._wait(pid, pidfd)
        except OSError as error:
            _send(channel, ("failed", root.step if root else step, error.errno or 0, str(error)))
        except BaseException as error:  # noqa: BLE001 - the keeper must go on to the end
            _send(channel, ("failed", root.step if root else step, 0, repr(error)))
        try:
            kill_descendants()
            if root is not None:
                root.restore()
        finally:
            _send(channel, ("exited", code if code >= 0 else 128 - code))
            os._exit(0)

    def _wait(self, pid: int, pidfd: int) -> int:
        """Wait until the process ends, or the server has ended and the process is killed; return its code."""
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.register(self._life[0], select.POLLIN)
        ready = [descriptor for descriptor, _ in poll.poll()]
        if pidfd not in ready:
            self._syscalls.pidfd_send_signal(pidfd, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        os.close(pidfd)
        return os.waitstatus_to_exitcode(status)

    def _be(self, request: dict[str, Any], stdio: list[int], channel: _socket.socket, root: Any) -> NoReturn:
        """Be the process itself; never returns."""
        launcher: Any = None
        try:
            self._syscalls.prctl(self._syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
            for target, descriptor in enumerate(stdio):
                os.dup2(descriptor, target)
            launcher = self._launch.PlainLauncher(request, self._filter, self._last_capability)
            root.enter()
            launcher.confine()
            launcher.execute()
        except OSError as error:
            _send(channel, ("failed", launcher.step if launcher else "enter the root", error.errno or 0, str(error)))
        except BaseException as error:  # noqa: BLE001 - the child must end here, whatever happens
            _send(channel, ("failed", launcher.step if launcher else "enter the root", 0, repr(error)))
        finally:
            os._exit(125)


def kill_descendants() -> None:
    """Kill all children, those that become children by that, and so on, until there are none."""
    own = os.getpid()
    while True:
        for pid in _children(own):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children(parent: int) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(name))
    return found


def _send(channel: _socket.socket, message: tuple[str | int, ...], descriptor: int | None = None) -> None:
    """Send a reply; the executor may have gone."""
    ancillary = []
    if descriptor is not None:
        ancillary.append((_socket.SOL_SOCKET, _socket.SCM_RIGHTS, descriptor.to_bytes(4, sys.byteorder)))
    try:
        channel.sendmsg([marshal.dumps(message)], ancillary, _MSG_NOSIGNAL)
    except OSError:
        return


def main(arguments: list[str]) -> None:
    """Set the server up and serve."""
    control = _socket.socket(fileno=int(arguments[0]))
    folder = arguments[1]
    sys.path.append(arguments[2])
    from castoff.sandbox.zygote import reset_signals

    reset_signals()
    os.umask(0)
    gc.disable()
    server = _Server(control, folder)
    sys.path.clear()
    sys.meta_path.clear()
    try:
        server.serve()
    finally:
        from castoff.sandbox.staging import remove_tree

        for name in os.listdir(folder):
            remove_tree(os.path.join(folder, name))
        if arguments[3:] == ["owned"]:
            os.rmdir(folder)


if __name__ == "__main__":
    main(sys.argv[1:])
