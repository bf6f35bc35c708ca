"""``RUN --mount=type=ssh``: the caller's ssh agent inside of a step, for listing keys and signing only.

A step never gets the agent's own socket: it gets one of castoff's, with the owner and mode that it asks for, and only
the two requests that an ssh client needs are passed on (draft-ietf-sshm-ssh-agent, sections 3.5 and 3.6). Key files are
loaded into an agent that lives as long as the build.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import threading
from typing import TYPE_CHECKING

from castoff.errors import UnsupportedError, UsageError
from castoff.mount import Mount, MountKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from castoff.plan.step import SshMount

_FAILURE = b"\x00\x00\x00\x01\x05"
_REQUEST_IDENTITIES = 11
_SIGN_REQUEST = 13
_MAX_MESSAGE = 256 << 10
_BACKLOG = 16
_FOLDER = "/run/buildkit"
_KEEPER = 'echo "$SSH_AGENT_PID" && exec cat'
"""Prints the agent's process id and lives until its standard input ends; the agent ends soon after it."""


class SshAgents:
    """The agents of one build, by id. Safe for several threads.

    Args:
        sources: by id, the host path of an agent's socket, or those of key files.
        environment: the caller's, for PATH.
        new_dir: makes empty folders that are removed with the session.
    """

    def __init__(
        self, sources: Mapping[str, tuple[str, ...]], environment: Mapping[str, str], new_dir: Callable[[], str]
    ) -> None:
        self._sources = sources
        self._environment = environment
        self._new_dir = new_dir
        self._lock = threading.Lock()
        self._started: dict[str, str] = {}
        self._stack = contextlib.ExitStack()

    def socket(self, name: str) -> str | None:
        """Return the host path of an agent's socket; an agent for key files is started. None where none was given.

        Raises:
            UsageError: a file is neither a socket nor a key that can be loaded without a passphrase.
            UnsupportedError: there are key files, and this machine has no ssh-agent.
        """
        paths = self._sources.get(name)
        if paths is None:
            return None
        if len(paths) == 1 and _is_socket(paths[0]):
            return paths[0]
        with self._lock:
            if name not in self._started:
                self._started[name] = self._start(name, paths)
            return self._started[name]

    def mount(self, mount: SshMount, number: int, stack: contextlib.ExitStack) -> Mount | None:
        """Return the mount of a socket that leads to the agent until `stack` ends; None where there is no agent.

        Args:
            mount: what the step asks for.
            number: of this mount among the step's ssh mounts.
            stack: what ends with the step.

        Raises:
            UsageError: a key can't be loaded.
            UnsupportedError: there are key files, and this machine has no ssh-agent.
        """
        agent = self.socket(mount.id)
        if agent is None:
            return None
        path = f"{self._new_dir()}/agent"
        stack.enter_context(_forwarding(path, agent))
        os.chmod(path, mount.mode)
        os.chown(path, mount.uid, mount.gid)
        return Mount(MountKind.BIND, mount.target or f"{_FOLDER}/ssh_agent.{number}", path)

    def close(self) -> None:
        """End the agents that were started. Idempotent."""
        self._stack.close()

    def _start(self, name: str, keys: tuple[str, ...]) -> str:
        """Start an agent and load keys into it; return the path of its socket."""
        path = self._environment.get("PATH", os.defpath)
        agent, add = shutil.which("ssh-agent", path=path), shutil.which("ssh-add", path=path)
        if agent is None or add is None:
            raise UnsupportedError(
                f"--ssh {name} gives a key file, and this machine has no ssh-agent to load it into",
                feature="ssh-agent",
                hint="install the package openssh-client, or give the socket of an agent",
            )
        folder = self._new_dir()
        environment = {"PATH": path, "LC_ALL": "C", "SSH_ASKPASS_REQUIRE": "never"}
        # Names relative to the folder: a socket's path may have 107 bytes only.
        keeper = subprocess.Popen(
            [agent, "-a", "keys", "/bin/sh", "-c", _KEEPER],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert keeper.stdout is not None
        text = keeper.stdout.readline().strip()
        self._stack.callback(_end, keeper, int(text) if text.isdigit() else 0)
        environment["SSH_AUTH_SOCK"] = "keys"
        for key in keys:
            added = subprocess.run(
                [add, "-q", "--", os.path.abspath(key)],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
            )
            if added.returncode:
                why = " ".join(added.stderr.decode("utf-8", "replace").split()) or "it is none, or has a passphrase"
                raise UsageError(
                    f"--ssh {name}: the key {key} can't be loaded: {why}",
                    hint="load a key that has a passphrase into an agent of your own (ssh-add), and give --ssh default",
                )
        return f"{folder}/keys"


def _end(keeper: subprocess.Popen[bytes], agent: int) -> None:
    if agent:
        with contextlib.suppress(ProcessLookupError):
            os.kill(agent, signal.SIGTERM)
    keeper.kill()
    keeper.communicate()


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError as error:
        raise UsageError(f"the ssh agent or key {path} can't be used: {error.strerror}") from error


@contextlib.contextmanager
def _short(path: str) -> Iterator[str]:
    """Give a short name of a socket, however long its folder's path is."""
    folder, name = os.path.split(path)
    descriptor = os.open(folder or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _forwarding(path: str, agent: str) -> Iterator[None]:
    """Listen at a path, and pass on what comes to an agent, until the context ends."""
    listener = socket.socket(socket.AF_UNIX)
    with listener:
        with _short(path) as short:
            listener.bind(short)
        listener.listen(_BACKLOG)
        forwarder = _Forwarder(listener, agent)
        thread = threading.Thread(target=forwarder.run, name="castoff-ssh", daemon=True)
        thread.start()
        try:
            yield
        finally:
            forwarder.stop()
            thread.join()


class _Forwarder:
    """Serves the connections to one listening socket, each in a thread."""

    def __init__(self, listener: socket.socket, agent: str) -> None:
        self._listener = listener
        self._agent = agent
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._stopped = False

    def run(self) -> None:
        """Accept until `stop` is called."""
        while True:
            try:
                client, _address = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), name="castoff-ssh-client", daemon=True).start()

    def stop(self) -> None:
        """End the listening and all connections."""
        with self._lock:
            self._stopped = True
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)

    def _serve(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as agent, contextlib.suppress(OSError):
            with self._lock:
                if self._stopped:
                    return
                self._open |= {client, agent}
            try:
                with _short(self._agent) as short:
                    agent.connect(short)
                while (request := _message(client)) is not None:
                    if request[4] in (_REQUEST_IDENTITIES, _SIGN_REQUEST):
                        agent.sendall(request)
                        answer = _message(agent)
                        if answer is None:
                            return
                        client.sendall(answer)
                    else:
                        # Adding, removing and locking keys, and extensions, are not a build's business.
                        client.sendall(_FAILURE)
            finally:
                with self._lock:
                    self._open -= {client, agent}


def _message(connection: socket.socket) -> bytes | None:
    """Return the next message with its length; None where the other side ended, or breaks the protocol."""
    head = _exactly(connection, 4)
    if head is None:
        return None
    length = int.from_bytes(head, "big")
    if not 0 < length <= _MAX_MESSAGE:
        return None
    body = _exactly(connection, length)
    return None if body is None else head + body


def _exactly(connection: socket.socket, size: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < size:
        part = connection.recv(size - len(parts))
        if not part:
            return None
        parts += part
    return bytes(parts)
