"""The parts of a container that lives: its network, its control groups, its first process, its health checks."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from castoff.containers.cgroups import Cgroup
from castoff.containers.further import Check, Further, exec_request
from castoff.containers.health import Health
from castoff.containers.network import ContainerNetwork
from castoff.containers.ports import PortMapping
from castoff.errors import CastoffError
from castoff.sandbox.spec import Network
from castoff.sandbox.zygote_executor import ZygoteExecutor
from castoff.store.removal import remove_tree

if TYPE_CHECKING:
    from collections.abc import Callable

    from castoff.containers.containerstore import Container
    from castoff.containers.loop import Loop
    from castoff.containers.record import ContainerRecord
    from castoff.sandbox.zygote_executor import ZygoteProcess

_EXEC_TIMEOUT = 10.0
_POLL = 0.002


class Supervisor:
    """Starts a container's process, again if it must be, and writes down how it is.

    Attributes:
        state: how the container is.
        warnings: what the user should know of the start.
        hint: what to do about the last error.
    """

    def __init__(
        self,
        container: Container,
        record: ContainerRecord,
        loop: Loop,
        exited: Callable[[int, str, float], None],
    ) -> None:
        """Take a container whose lock is held.

        Args:
            container: its folder.
            record: how it was made.
            loop: calls back.
            exited: called with the exit code, an error in one sentence ("" for none), and for how many seconds it ran.
        """
        self._container = container
        self._record = record
        self._loop = loop
        self._exited = exited
        self._network: ContainerNetwork | None = None
        self._cgroup: Cgroup | None = None
        self._executor: ZygoteExecutor | None = None
        self._process: ZygoteProcess | None = None
        self._pidfd = -1
        self._spec = record.spec
        self._further: set[Further] = set()
        self._check: Check | None = None
        self._health = Health()
        self._begun = 0.0
        self.state = replace(container.state(), status="created", error="", restarts=0, oom_killed=False)
        self.warnings: list[str] = []
        self.hint: str | None = None

    @property
    def is_running(self) -> bool:
        """Whether the container's process runs."""
        return self._process is not None

    def prepare(self) -> None:
        """Make what stays through restarts: ports, network, control groups, executor.

        Raises:
            SandboxError: a port is in use, or this machine can't do it.
            OSError: the store can't be written.
        """
        record = self._record
        ports = tuple(mapping for text in record.ports for mapping in PortMapping.parse(text))
        if record.spec.network is Network.PRIVATE:
            self._network = ContainerNetwork(ports, self.warnings.append)
            self._spec = replace(record.spec, netns=self._network.path)
            ports = self._network.ports
        elif ports:
            self.warnings.append(f"ports are not published with the network mode {record.spec.network.value}")
            ports = ()
        if record.limits:
            self._cgroup = Cgroup.create(record.id[:12], record.limits)
        folder = f"{self._container.path}/sandbox"
        remove_tree(folder)
        os.mkdir(folder, 0o711)
        self._executor = ZygoteExecutor(folder)
        self.state = replace(self.state, ports=tuple(dict.fromkeys(str(port) for port in ports)))

    def start(self, streams: tuple[int, int, int], *, restarted: bool) -> None:
        """Start the process with three descriptors, which stay the caller's.

        Raises:
            SandboxError: the sandbox can't be set up.
            OSError: the store can't be written, or a limit not be set.
        """
        assert self._executor is not None
        self._clear_work()
        spec = replace(self._spec, terminal=self._record.tty)
        if self._cgroup is None:
            process = self._executor.start(spec, *streams)
        else:
            # The fork server is started inside the groups, and so is what it starts; then it and this leave them.
            self._cgroup.enter()
            try:
                process = self._executor.start(spec, *streams)
            finally:
                self._cgroup.leave()
        self._process = process
        self._begun = time.monotonic()
        self._health = Health()
        self.state = replace(
            self.state,
            status="running",
            pid=process.pid,
            monitor=os.getpid(),
            started=time.time(),
            finished=0.0,
            exit_code=0,
            restarts=self.state.restarts + restarted,
            health=self._health.status if self._record.health else "",
            health_failures=0,
        )
        self._container.write_state(self.state)
        self._pidfd = process.open_pidfd()
        self._loop.watch(self._pidfd, self._reap)
        if self._record.health is not None:
            self._loop.after("health", self._health.pause(0, self._record.health), self._check_health)

    def _clear_work(self) -> None:
        """Make overlayfs' work directory anew: a volatile overlay can't be mounted a second time with its old one."""
        work = self._spec.root.work
        if work is not None:
            remove_tree(work)
            os.makedirs(work, 0o755, exist_ok=True)

    def failed_to_execute(self) -> bool:
        """Wait until the process has become its program; tell whether it ended instead."""
        process = self._process
        assert process is not None
        deadline = time.monotonic() + _EXEC_TIMEOUT
        while time.monotonic() < deadline:
            if _has_ended(self._pidfd):
                return True
            try:
                with open(f"/proc/{process.pid}/cmdline", "rb") as file:
                    line = file.read(1 << 16)
            except OSError:
                line = b""
            # It is empty for a moment while the program takes the place of the fork server's, and at the end.
            if line and b"/sandbox/zygote.py\0" not in line:
                return False
            time.sleep(_POLL)
        return False

    def _reap(self) -> None:
        """Take the end of the process."""
        process = self._process
        assert process is not None
        self._loop.forget(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        error = ""
        try:
            code = process.wait()
        except CastoffError as failure:
            code, error, self.hint = 125, failure.message, failure.hint
        self._process = None
        self._loop.cancel("health")
        self._finish_further()
        if self._cgroup is not None and self._cgroup.oom_killed():
            self.state = replace(self.state, oom_killed=True)
        assert code is not None
        self._exited(code, error, time.monotonic() - self._begun)

    def note_restart(self, code: int) -> None:
        """Write down that the container is about to be started again."""
        self.state = replace(
            self.state, status="restarting", pid=0, exit_code=code, finished=time.time(), health="", health_failures=0
        )
        self._write_state()

    def _write_state(self) -> None:
        with contextlib.suppress(OSError):  # a full disk must not end the container
            self._container.write_state(self.state)

    def signal(self, number: int) -> None:
        """Send the process a signal; nothing happens where none runs."""
        if self._process is not None and 0 < number < signal.NSIG:
            self._process.signal(number)

    def execute(self, request: dict[str, Any], stdio: tuple[int, int, int], ended: Callable[[int], None]) -> Further:
        """Start a further process in the container; its streams stay the caller's.

        Raises:
            ValueError: the request makes no sense.
            OSError: the container does not run, or no process can be started.
        """
        if self._process is None:
            raise ProcessLookupError(3, "it is about to be restarted")

        def finished(code: int) -> None:
            self._further.discard(further)
            ended(code)

        procs = self._cgroup.procs if self._cgroup is not None else ()
        further = Further(self._loop, exec_request(self._spec, request, procs), self._pidfd, stdio, finished)
        self._further.add(further)
        return further

    def _check_health(self) -> None:
        plan = self._record.health
        if plan is None or self._process is None:
            return
        age = time.monotonic() - self._begun

        def ended(passed: bool, text: str) -> None:
            self._check = None
            self._health = self._health.after(passed=passed, age=age, plan=plan)
            state = replace(
                self.state,
                health=self._health.status,
                health_failures=self._health.failures,
                health_output=text,
            )
            if state != self.state:
                self.state = state
                self._write_state()
            pause = self._health.pause(time.monotonic() - self._begun, plan)
            self._loop.after("health", pause, self._check_health)

        check = Check(self._loop, plan.timeout, ended)
        procs = self._cgroup.procs if self._cgroup is not None else ()
        try:
            check.start(exec_request(self._spec, {"argv": plan.argv}, procs), self._pidfd)
        except (OSError, ValueError) as error:
            ended(False, f"the check can't be started: {error}")
            return
        self._check = check

    def _finish_further(self) -> None:
        """Wait for the end of what ran beside the process: with it, all of the container has been killed."""
        if self._check is not None:
            self._check.finish()
            self._check = None
        for further in list(self._further):
            further.finish()

    def close(self) -> None:
        """End all of it. Idempotent."""
        if self._executor is not None:
            self._executor.close()
            self._executor = None
            remove_tree(f"{self._container.path}/sandbox")
        self._finish_further()
        if self._network is not None:
            self._network.close()
            self._network = None
        if self._cgroup is not None:
            self._cgroup.remove()
            self._cgroup = None


def _has_ended(pidfd: int) -> bool:
    poll = select.poll()  # unlike select, it takes any number of a descriptor
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))
