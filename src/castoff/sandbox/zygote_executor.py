"""An executor that has a fork server of its own start the processes."""

from __future__ import annotations

import errno
import marshal
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from typing import TYPE_CHECKING, Any

from castoff.errors import SandboxError, SyscallError, UnsupportedError
from castoff.sandbox.interpreter import start_python
from castoff.sandbox.wire import encode_request

if TYPE_CHECKING:
    from castoff.sandbox.spec import ProcessSpec

_MAX_INLINE = 60_000
_MAX_REPLY = 1 << 16
_CLOSE_TIMEOUT = 10.0


class ZygoteProcess:
    """A process that a `ZygoteExecutor` started."""

    def __init__(self, channel: socket.socket, pid: int, pidfd: int) -> None:
        """Take the executor's end of the process' channel, and the descriptor of the process, as its own."""
        self._channel = channel
        self._pid = pid
        self._pidfd = pidfd
        self._lock = threading.Lock()
        # Reentrant: a signal handler of the main thread may interrupt itself here.
        self._signal_lock = threading.RLock()
        self._code: int | None = None
        self._error: SandboxError | None = None

    @property
    def pid(self) -> int:
        """Its process id on the host."""
        return self._pid

    def wait(self, timeout: float | None = None) -> int | None:
        """Return its exit code (128 + N where signal N ended it), or None after `timeout` seconds. Idempotent.

        Raises:
            SandboxError: the sandbox could not be set up, or its fork server ended.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        if not self._lock.acquire(timeout=-1 if timeout is None else max(timeout, 0)):
            return None
        try:
            while self._code is None and self._error is None:
                if not self._receive(deadline):
                    return None
        finally:
            self._lock.release()
        if self._error is not None:
            raise self._error
        return self._code

    def _receive(self, deadline: float | None) -> bool:
        """Take one message; tell whether one came in time."""
        if deadline is not None:
            poll = select.poll()
            poll.register(self._channel, select.POLLIN)
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                return False
        message = _load(self._channel.recv(_MAX_REPLY))
        if message[0] == "failed":
            failed: tuple[str, int, str] = message[1:]
            # The child's exit follows; without it the sandbox may still be there.
            _load(self._channel.recv(_MAX_REPLY))
            self._end(None, setup_error(*failed))
        elif message[0] == "exited":
            self._end(message[1], None)
        else:
            self._end(None, SandboxError("the sandbox' fork server ended unexpectedly", hint=_KILLED_HINT))
        return True

    def _end(self, code: int | None, error: SandboxError | None) -> None:
        self._code, self._error = code, error
        with self._signal_lock:
            pidfd, self._pidfd = self._pidfd, -1
            os.close(pidfd)
        self._channel.close()

    def signal(self, number: int) -> None:
        """Send a signal to the process; nothing happens if it has ended."""
        with self._signal_lock:
            if self._pidfd < 0:
                return
            try:
                signal.pidfd_send_signal(self._pidfd, number)
            except ProcessLookupError:
                return

    def kill(self) -> None:
        """End the process and everything that it started, at once. Idempotent."""
        self.signal(signal.SIGKILL)

    def __del__(self) -> None:
        """Let go of the descriptors; the process goes on."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._channel.close()


class ZygoteExecutor:
    """Starts processes in namespaces through a fork server, which starts with the first of them.

    The caller must be root in its user namespace (see `castoff.sandbox.userns`). Safe for several threads.
    """

    def __init__(self, folder: str | None = None) -> None:
        """Create an executor; nothing is started yet.

        Args:
            folder: a folder for the executor alone, existing, empty, on the file system of the snapshots: elsewhere,
                files of a sandbox may change their inode number when they are first written. None for a temporary one.
        """
        self._folder = folder
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._output: int = -1
        self._temporary: str | None = None
        self._closed = False

    def start(self, spec: ProcessSpec, stdin: int, stdout: int, stderr: int) -> ZygoteProcess:
        """Start a process with three open descriptors, which stay the caller's. See `Executor.start`.

        Raises:
            SandboxError: the sandbox could not be started, or the executor is closed.
        """
        data = encode_request(spec)
        control = self._connect()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        memory = -1
        try:
            descriptors = [stdin, stdout, stderr, theirs.fileno()]
            if len(data) > _MAX_INLINE:
                memory = _memory_file(data)
                descriptors.append(memory)
                data = b"m"
            try:
                socket.send_fds(control, [data], descriptors)
            except OSError as error:
                raise self._server_error() from error
            theirs.close()
            return self._started(ours)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            if memory >= 0:
                os.close(memory)

    def _started(self, channel: socket.socket) -> ZygoteProcess:
        reply, received, _, _ = socket.recv_fds(channel, _MAX_REPLY, 1, socket.MSG_CMSG_CLOEXEC)
        message = _load(reply)
        if message[0] == "started":
            return ZygoteProcess(channel, message[1], received[0])
        if message[0] == "failed":
            raise setup_error(*message[1:])
        raise self._server_error()

    def _connect(self) -> socket.socket:
        with self._lock:
            if self._closed:
                raise SandboxError("the sandbox is closed already")
            if self._control is None:
                self._start_server()
            assert self._control is not None
            return self._control

    def _start_server(self) -> None:
        if not sys.executable:
            raise UnsupportedError("Python does not know its own program, which runs the sandbox", feature="python")
        folder = self._folder
        if folder is None:
            folder = self._temporary = tempfile.mkdtemp(prefix="castoff-")
            os.chmod(folder, 0o711)  # noqa: S103 - users of a sandbox must get through to its stubs
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._output = os.memfd_create("castoff-zygote", os.MFD_CLOEXEC)
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "zygote.py")
        source = os.path.dirname(os.path.dirname(os.path.dirname(script)))
        arguments = ["-I", "-S", script, str(theirs.fileno()), os.path.abspath(folder), source]
        try:
            self._server = start_python(
                arguments + (["owned"] if self._temporary else []),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._output,
                pass_fds=(theirs.fileno(),),
                # Signals of the terminal are castoff's to deal with.
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            raise SandboxError(f"the sandbox' fork server can't be started: {error.strerror}") from error
        finally:
            theirs.close()
        self._control = ours

    def _server_error(self) -> SandboxError:
        """Return why the fork server does not answer."""
        control, server = self._control, self._server
        if control is not None:
            try:
                message = _load(control.recv(_MAX_REPLY, socket.MSG_DONTWAIT))
            except OSError:
                message = ("",)
            if message[0] == "failed":
                return setup_error(*message[1:])
        if server is not None:
            try:
                server.wait(_CLOSE_TIMEOUT)
            except subprocess.TimeoutExpired:
                server.kill()
        said = os.pread(self._output, 1 << 16, 0).decode(errors="replace").strip() if self._output >= 0 else ""
        detail = f": {said.splitlines()[-1]}" if said else ""
        return SandboxError(f"the sandbox' fork server ended unexpectedly{detail}", hint=_KILLED_HINT)

    def close(self) -> None:
        """Kill what still runs and let go of all resources. Idempotent."""
        with self._lock:
            self._closed = True
            control, self._control = self._control, None
            server, self._server = self._server, None
            if control is not None:
                control.close()
            if server is not None:
                try:
                    server.wait(_CLOSE_TIMEOUT)
                except subprocess.TimeoutExpired:
                    server.kill()
                    server.wait()
            if self._output >= 0:
                os.close(self._output)
                self._output = -1
            if self._temporary is not None:
                shutil.rmtree(self._temporary, ignore_errors=True)
                self._temporary = None

    def __enter__(self) -> ZygoteExecutor:
        """Return the executor itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()


_KILLED_HINT = "it may have been killed for lack of memory; the kernel's log would say so"


def _load(data: bytes) -> Any:
    return marshal.loads(data) if data else ("ended",)  # noqa: S302 - from a process of our own


def _memory_file(data: bytes) -> int:
    descriptor = os.memfd_create("castoff-request", os.MFD_CLOEXEC)
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    return descriptor


def setup_error(step: str, code: int, sentence: str) -> SandboxError:
    """Return the error for a step of the set-up that failed with an errno (0 for none) and a sentence."""
    text = os.strerror(code) if code else sentence
    message = f"the sandbox can't be set up: {step}: {text}"
    if step == "mount overlay":
        if code == errno.ENODEV:
            return UnsupportedError(
                f"{message}; this kernel has no overlayfs", feature="overlay", hint="load it with: modprobe overlay"
            )
        if code == errno.EINVAL:
            return UnsupportedError(
                f"{message}; the store's file system can't hold the changes of an overlay",
                feature="overlay",
                hint="put the store on ext4, xfs, btrfs or tmpfs with --root (castoff doctor says what was found)",
            )
        if code == errno.EPERM:
            return UnsupportedError(
                f"{message}; overlayfs in a user namespace needs Linux 5.11", feature="overlay", hint=_DOCTOR
            )
    if code in (errno.EPERM, errno.EACCES) and step in _NAMESPACE_STEPS:
        return UnsupportedError(message, feature="namespaces", hint=_DOCTOR)
    if code == errno.ENOSYS:
        return UnsupportedError(f"{message} ({sentence})", feature="kernel", hint="RUN needs Linux 5.12 or newer")
    return SyscallError(message, errno=code, hint=None)


_DOCTOR = "castoff doctor says what this machine lacks"
_NAMESPACE_STEPS = ("unshare the mount namespace", "start a process in new namespaces", "mount /proc")
