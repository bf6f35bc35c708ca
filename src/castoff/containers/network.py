"""A container's own network: its namespace, its published ports, its way out."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

from castoff.containers.ports import Listener, PortMapping, listen
from castoff.errors import SandboxError

if TYPE_CHECKING:
    from collections.abc import Callable

_MAX_ANSWER = 1 << 16
_CLOSE_TIMEOUT = 5.0
_NO_PASTA = "the container has no outbound network: pasta is not installed (Debian, Ubuntu: apt-get install passt)"


class ContainerNetwork:
    """A network namespace with forwarded ports; ends with `close`, and with this process however it ends."""

    def __init__(self, ports: tuple[PortMapping, ...], warn: Callable[[str], None]) -> None:
        """Listen on the host's ports and make the namespace.

        Args:
            ports: what to publish.
            warn: called with one sentence where there is no way out.

        Raises:
            SandboxError: a port can't be had, or there is no namespace.
        """
        listeners = listen(ports)
        self.ports = tuple(listener.mapping for listener in listeners)
        pasta = shutil.which("pasta") or ""
        try:
            try:
                reason = self._start("nobody", pasta, listeners)
            except SandboxError:
                reason = self._start("plain", pasta, listeners)
        finally:
            # The forwarder has its own.
            for listener in listeners:
                listener.socket.close()
        if not pasta:
            warn(_NO_PASTA)
        elif reason:
            warn(f"the container has no outbound network: pasta: {reason}")

    @property
    def path(self) -> str:
        """The namespace, as `ProcessSpec.netns` wants it."""
        return f"/proc/{self._process.pid}/ns/net"

    def _start(self, mode: str, pasta: str, listeners: list[Listener]) -> str:
        """Start the forwarder; return why there is no way out, "" if there is one."""
        ours, theirs = socket.socketpair()
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "forwarder.py")
        source = os.path.dirname(os.path.dirname(os.path.dirname(script)))
        arguments = [sys.executable, "-I", "-S", script, str(theirs.fileno()), source, mode, pasta]
        arguments += [f"{one.socket.fileno()}:{one.mapping.proto}:{one.mapping.container_port}" for one in listeners]
        try:
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), *[listener.socket.fileno() for listener in listeners]),
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            raise SandboxError(f"the network of the container can't be started: {error.strerror}") from error
        finally:
            theirs.close()
        answer = b""
        while not answer.endswith(b"\n"):
            chunk = ours.recv(_MAX_ANSWER)
            if not chunk:
                break
            answer += chunk
        word, _, sentence = answer.decode(errors="replace").strip().partition(" ")
        if word != "ready":
            ours.close()
            process.wait()
            raise SandboxError(f"the network of the container can't be set up: {sentence or 'its program ended'}")
        self._control, self._process = ours, process
        return sentence

    def close(self) -> None:
        """End forwarding, and pasta. Idempotent."""
        self._control.close()
        try:
            self._process.wait(_CLOSE_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
