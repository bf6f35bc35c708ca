"""The protocol by which processes are run in isolation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from castoff.sandbox.spec import ProcessSpec


class Process(Protocol):
    """A process that an executor started."""

    @property
    def pid(self) -> int:
        """Its process id on the host."""

    def wait(self, timeout: float | None = None) -> int | None:
        """Return its exit code (128 + N where signal N ended it), or None after `timeout` seconds. Idempotent.

        Raises:
            SandboxError: the sandbox could not be set up; `errno` and the step that failed are in the message.
            UnsupportedError: this machine lacks a feature that the sandbox needs.
        """

    def signal(self, number: int) -> None:
        """Send a signal to the process; nothing happens if it has ended. Idempotent where the signal is."""

    def kill(self) -> None:
        """End the process and everything that it started, at once. Idempotent."""


class Executor(Protocol):
    """Starts processes in isolation. Safe for several threads; owns nothing but the processes that it started."""

    def start(self, spec: ProcessSpec, stdin: int, stdout: int, stderr: int) -> Process:
        """Start a process with three open descriptors, which stay the caller's (they may be closed on return).

        Everything that the process leaves behind when it ends is killed, and no mount outlives it. A program that is
        not found gives exit code 127, one that can't be executed 126, with one sentence on `stderr`.

        Not idempotent.

        Raises:
            SandboxError: the sandbox could not be started.
        """

    def close(self) -> None:
        """Kill what still runs and let go of all resources. Idempotent."""
