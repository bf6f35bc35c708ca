"""The fork server: a small, single-threaded process that clones itself for each process in a sandbox.

It is started by its path with ``python -I -S`` (which knows no site-packages, so it gets castoff's parent folder as an
argument) and serves one socket; when that is closed, because castoff ended or was killed, it kills what it started,
removes its files and ends. A clone of a small process is cheap, and a process without threads may be cloned without
exec, which is what makes a sandbox cost milliseconds.

Everything that it and its children need is imported at the start, and then importing is switched off: in a child the
root file system becomes the image's, from which nothing may ever be imported. For the same reason, and for speed, the
modules that it imports are few: no dataclasses, no enum of castoff's, no typing.

Arguments: the descriptor of the socket, the folder for its files, the folder to import castoff from, and ``owned`` if
the first folder is to be removed at the end. Messages: `castoff.sandbox.wire`.
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

    from castoff.sandbox.staging import Staging

_MAX_MESSAGE = 1 << 17
_MSG_CMSG_CLOEXEC = 0x40000000
_MSG_NOSIGNAL = 0x4000
_RECORD = "made-{}"


class _Child:
    """A process in a sandbox, as the server sees it."""

    def __init__(self, number: int, pid: int, channel: _socket.socket, upper: bytes) -> None:
        self.number = number
        self.pid = pid
        self.channel = channel
        self.upper = upper


class _Server:
    """Serves one executor."""

    def __init__(self, control: _socket.socket, staging: Staging, rootless: bool) -> None:
        from castoff.linux import namespaces, seccomp, syscalls
        from castoff.sandbox import launch, rootfs, targets

        self._control = control
        self._staging = staging
        self._rootless = rootless
        self._namespaces, self._syscalls = namespaces, syscalls
        self._launch, self._rootfs, self._targets = launch, rootfs, targets
        self._filter = seccomp.default_policy(syscalls.machine())
        self._last_capability = launch.last_capability()
        self._children: dict[int, _Child] = {}
        self._next = 0
        self._poll = select.poll()
        self._poll.register(control.fileno(), select.POLLIN)

    def serve(self) -> None:
        """Serve until the executor closes its end."""
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor != self._control.fileno():
                    self._reap(descriptor)
                elif not self._receive():
                    self._kill_all()
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
        number = self._next
        namespaces = self._namespaces
        flags = namespaces.CLONE_NEWNS | namespaces.CLONE_NEWPID | namespaces.CLONE_NEWIPC | namespaces.CLONE_NEWUTS
        if request["network"] != "host" and not request["netns"]:
            flags |= namespaces.CLONE_NEWNET
        step = "prepare the sandbox"
        try:
            self._staging.prepare(number, request)
            step = "start a process in new namespaces"
            pid, pidfd = self._syscalls.clone(flags)
        except OSError as error:
            self._staging.release(number)
            _send(channel, ("failed", step, error.errno or 0, str(error)))
            return
        if pid == 0:
            self._run_child(number, request, stdio, channel)
        _send(channel, ("started", pid), pidfd)
        self._children[pidfd] = _Child(number, pid, channel, request["upper"])
        self._poll.register(pidfd, select.POLLIN)

    def _run_child(self, number: int, request: dict[str, Any], stdio: list[int], channel: _socket.socket) -> NoReturn:
        """Be the process in the sandbox; never returns."""
        builder: Any = None
        step = "prepare the process"
        try:
            self._syscalls.prctl(self._syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
            for target, descriptor in enumerate(stdio):
                os.dup2(descriptor, target)
            if request["netns"]:
                step = "join the network namespace"
                self._namespaces.join(os.fsdecode(request["netns"]), self._namespaces.CLONE_NEWNET)
            elif request["network"] != "host":
                step = "bring the loopback interface up"
                self._namespaces.loopback_up()
            step = "set the host name"
            self._syscalls.sethostname(request["hostname"])
            step = "open the upper directory"
            maker = self._targets.TargetMaker(os.fsdecode(request["upper"]))
            records = os.open("../files", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            builder = self._rootfs.RootBuilder(request, self._rootless, maker)
            builder.build()
            record = maker.record()
            if record is not None:
                _write_record(records, number, record)
            # No folder of the host may be open when a path of the image is followed next.
            os.close(records)
            maker.close()
            builder = self._launch.Launcher(request, self._filter, self._last_capability)
            builder.confine()
            builder.execute()
        except OSError as error:
            _send(channel, ("failed", builder.step if builder else step, error.errno or 0, str(error)))
        except BaseException as error:  # noqa: BLE001 - the child must end here, whatever happens
            _send(channel, ("failed", builder.step if builder else step, 0, repr(error)))
        finally:
            os._exit(125)

    def _reap(self, pidfd: int) -> None:
        child = self._children.pop(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(child.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        self._clean(child)
        _send(child.channel, ("exited", code if code >= 0 else 128 - code))
        child.channel.close()

    def _clean(self, child: _Child) -> None:
        """Remove the mount points that were made for the sandbox, before anyone looks at its upper directory."""
        path = "../files/" + _RECORD.format(child.number)
        try:
            with open(path, "rb") as file:
                made, copied = marshal.loads(file.read())  # noqa: S302 - written by our own child
            os.unlink(path)
            self._targets.unmake(os.fsdecode(child.upper), made, copied)
        except FileNotFoundError:
            pass
        self._staging.release(child.number)

    def _kill_all(self) -> None:
        for pidfd in self._children:
            try:
                self._syscalls.pidfd_send_signal(pidfd, signal.SIGKILL)
            except ProcessLookupError:
                continue
        for pidfd in list(self._children):
            self._reap(pidfd)


def _write_record(folder: int, number: int, record: Any) -> None:
    name = _RECORD.format(number)
    descriptor = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=folder)
    os.write(descriptor, marshal.dumps(record))
    os.close(descriptor)


def _send(channel: _socket.socket, message: tuple[str | int, ...], descriptor: int | None = None) -> None:
    """Send a reply; the executor may have gone."""
    ancillary = []
    if descriptor is not None:
        ancillary.append((_socket.SOL_SOCKET, _socket.SCM_RIGHTS, descriptor.to_bytes(4, sys.byteorder)))
    try:
        channel.sendmsg([marshal.dumps(message)], ancillary, _MSG_NOSIGNAL)
    except OSError:
        return


def _reset_signals() -> None:
    """Give all signals their default action, which children inherit; castoff's parent may have ignored some."""
    for number in range(1, signal.NSIG):
        try:
            if signal.getsignal(number) != signal.SIG_DFL:
                signal.signal(number, signal.SIG_DFL)
        except (OSError, ValueError):
            continue
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def main(arguments: list[str]) -> None:
    """Set the server up and serve."""
    control = _socket.socket(fileno=int(arguments[0]))
    folder = arguments[1]
    sys.path.append(arguments[2])
    from castoff.linux import namespaces, syscalls
    from castoff.sandbox import staging

    step = "unshare the mount namespace"
    _reset_signals()
    os.umask(0)
    gc.disable()
    try:
        rootless = not namespaces.in_initial_user_namespace()
        syscalls.unshare(namespaces.CLONE_NEWNS)
        # Later mounts of the host are to appear here, and none of these there.
        syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_SLAVE)
        step = "prepare the folder of the sandbox"
        files = staging.Staging(folder)
    except OSError as error:
        _send(control, ("failed", step, error.errno or 0, str(error)))
        return
    server = _Server(control, files, rootless)
    sys.path.clear()
    sys.meta_path.clear()
    try:
        server.serve()
    finally:
        files.close()
        if arguments[3:] == ["owned"]:
            os.rmdir(folder)


if __name__ == "__main__":
    main(sys.argv[1:])
