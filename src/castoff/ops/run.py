"""RUN: a process in a sandbox on top of a snapshot, whose changes become the next one."""

from __future__ import annotations

import contextlib
import os
import select
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from castoff.errors import RunError, StepError, UnsupportedError
from castoff.oci.platform import Platform
from castoff.ops.filesystem import FileSystem, Forms, restored
from castoff.ops.runmounts import MountPlan
from castoff.ops.workspace import DEFAULT_EPOCH
from castoff.plan.step import CacheMount
from castoff.sandbox.spec import Network, ProcessSpec, RootSpec
from castoff.solve.explain import KeyParts, key_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from castoff.ops.sources import Result
    from castoff.ops.sshagent import SshAgents
    from castoff.ops.workspace import Workspace
    from castoff.plan.step import RunStep
    from castoff.solve.cache import CacheRecord
    from castoff.solve.cachekey import CacheKey
    from castoff.solve.progress import VertexProgress

_CHUNK = 1 << 16
_TAIL = 16 << 10
_CANT_EXECUTE = 126
_FOREIGN = b"exec format error"
"""What the sandbox, and shells, say of a program that the kernel does not know how to run."""


class SecretGetter(Protocol):
    """Gives secrets by id."""

    def get(self, name: str, /) -> bytes | None:
        """Return the content of a secret; None where it was not given."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What a build gives to all of its RUN steps.

    Attributes:
        network: the mode of steps that say nothing: ``host`` or ``none``.
        hosts: (name, address) pairs for /etc/hosts.
        rlimits: (name, soft, hard).
        shm_size: of /dev/shm, in bytes; 0 for the default.
        secrets: content by id.
        agents: ssh agents by id.
        allowed: entitlements, such as ``security.insecure``.
        platform: what a step runs for.
    """

    network: str = "host"
    hosts: tuple[tuple[str, str], ...] = ()
    rlimits: tuple[tuple[str, int, int], ...] = ()
    shm_size: int = 0
    secrets: SecretGetter | None = None
    agents: SshAgents | None = None
    allowed: frozenset[str] = frozenset()
    platform: str = ""


class RunOp:
    """Runs a process on top of the file system of its first input; further inputs are sources of mounts."""

    def __init__(self, workspace: Workspace, step: RunStep, options: RunOptions) -> None:
        self._workspace = workspace
        self._step = step
        self._options = options
        self.parts: KeyParts = ()

    def _network(self) -> str:
        step = self._step
        return self._options.network if step.network == "default" else step.network

    def key(self, inputs: Sequence[Result], progress: VertexProgress) -> CacheKey | None:
        """Return the key: the chain so far, the process, its mounts and the content of those that are bound."""
        del progress
        step, options = self._step, self._options
        if step.security == "insecure" and "security.insecure" not in options.allowed:
            # Here, so that a result from the cache wants the same leave.
            raise StepError(
                "--security=insecure is not allowed", hint="allow it with castoff build --allow security.insecure"
            )
        epoch = self._workspace.variant.epoch
        self.parts = (
            ("below", _below(inputs).key),
            ("command", step.argv),
            ("environment", step.env),
            ("working directory", step.workdir),
            ("user", step.user),
            ("heredocs", tuple((script.name, script.data, script.mode) for script in step.scripts)),
            ("mounts", MountPlan(self._workspace, step, inputs).key()),
            ("network mode", self._network()),
            ("security mode", step.security),
            ("platform", options.platform),
            ("hosts", tuple(sorted(name for name, _address in options.hosts))),
            ("SOURCE_DATE_EPOCH", None if epoch == DEFAULT_EPOCH else str(epoch)),
        )
        return key_of("run", self.parts)

    def restore(self, key: CacheKey, record: CacheRecord, inputs: Sequence[Result]) -> FileSystem | None:
        """Return the recorded result."""
        return restored(self._workspace, _below(inputs), key, record, None)

    def execute(self, key: CacheKey | None, inputs: Sequence[Result], progress: VertexProgress) -> FileSystem:
        """Run the process; the snapshot is committed if it ends with 0, and thrown away if not.

        Raises:
            RunError: it ended with another code.
            StepError: a secret that it requires was not given.
            SandboxError: it can't be isolated on this machine.
        """
        assert key is not None
        workspace, below = self._workspace, _below(inputs)
        workspace.executor()  # Where there can be none, nothing is written in vain.
        parent = below.snapshot()
        active = workspace.snapshotter.prepare(parent or None)
        try:
            with contextlib.ExitStack() as stack:
                mounts = MountPlan(workspace, self._step, inputs)
                root = RootSpec(
                    active.lowers,
                    active.upper,
                    active.work,
                    active.userxattr,
                    whole=active.whole,
                )
                spec = self._spec(root, below, mounts, stack)
                self._run(spec, progress)
            name = workspace.snapshotter.commit(active)
        except BaseException:
            workspace.snapshotter.discard(active)
            raise
        return FileSystem(workspace, below, key, Forms(name, present=True))

    def record(self, result: Result) -> CacheRecord | None:
        """Return what to remember."""
        assert isinstance(result, FileSystem)
        return result.record()

    def cache_mounts(self, inputs: Sequence[Result]) -> dict[str, str]:
        """Return the ids of the step's cache mounts by the names of their folders."""
        mounts = MountPlan(self._workspace, self._step, inputs)
        caches = [mount for mount in self._step.mounts if isinstance(mount, CacheMount)]
        return {mounts.cache_name(mount): mount.id for mount in caches}

    def _spec(self, root: RootSpec, below: FileSystem, mounts: MountPlan, stack: contextlib.ExitStack) -> ProcessSpec:
        step, options = self._step, self._options
        user = self._workspace.exec_user(below.tree(), step.user)
        prepared = mounts.prepare(stack, options.secrets or {}, options.agents)
        env = dict(item.partition("=")[::2] for item in (*step.proxy_env, *step.env))
        env.setdefault("HOME", user.home or "/")
        epoch = self._workspace.variant.epoch
        if epoch is not None:
            env.setdefault("SOURCE_DATE_EPOCH", str(epoch))
        env |= prepared.env
        spec = ProcessSpec(
            root=root,
            argv=step.argv,
            env=tuple(f"{key}={value}" for key, value in env.items()),
            cwd=step.workdir,
            uid=user.uid,
            gid=user.gid,
            groups=user.groups,
            mounts=prepared.mounts,
            network=Network.NONE if self._network() == "none" else Network.HOST,
            hosts=options.hosts,
            rlimits=options.rlimits,
            privileged=step.security == "insecure",
        )
        return replace(spec, shm_size=options.shm_size) if options.shm_size else spec

    def _run(self, spec: ProcessSpec, progress: VertexProgress) -> None:
        """Run a process to its end, its output going to the observers.

        Raises:
            RunError: it ended with another code than 0.
        """
        tail = _Tail()
        with contextlib.ExitStack() as stack:
            null = stack.enter_context(open(os.devnull, "rb", buffering=0))
            out_read, out_write = os.pipe()
            stack.callback(os.close, out_read)
            err_read, err_write = os.pipe()
            stack.callback(os.close, err_read)
            try:
                process = self._workspace.executor().start(spec, null.fileno(), out_write, err_write)
            finally:
                os.close(out_write)
                os.close(err_write)
            stack.callback(process.kill)
            _pump({out_read: 1, err_read: 2}, progress, tail)
            code = process.wait()
        if code == _CANT_EXECUTE and _FOREIGN in tail.data() and self._options.platform != str(Platform.host()):
            platform = self._options.platform
            raise UnsupportedError(
                f"a program of the step can't be executed here: it seems to be made for {platform}",
                feature=f"running programs for {platform}",
                hint="register an emulator (binfmt_misc; on Debian: apt-get install qemu-user-static binfmt-support),"
                " or do the work in a stage FROM --platform=$BUILDPLATFORM",
            )
        if code:
            raise RunError(
                f'process "{" ".join(spec.argv)}" did not complete successfully: exit code: {code}',
                returncode=code,
                name=progress.name,
                tail=tail.data(),
                hint=_hint(code),
            )


class _Tail:
    """The last bytes that a process printed."""

    def __init__(self) -> None:
        self._parts: deque[bytes] = deque()
        self._size = 0

    def add(self, data: bytes) -> None:
        """Append bytes and forget old ones."""
        self._parts.append(data)
        self._size += len(data)
        while self._size - len(self._parts[0]) >= _TAIL:
            self._size -= len(self._parts.popleft())

    def data(self) -> bytes:
        """Return what is kept."""
        return b"".join(self._parts)[-_TAIL:]


def _pump(streams: dict[int, int], progress: VertexProgress, tail: _Tail) -> None:
    """Pass on what a process prints until it has ended, and all that writes to its output with it."""
    poll = select.poll()
    for descriptor in streams:
        poll.register(descriptor, select.POLLIN)
    left = dict(streams)
    while left:
        for descriptor, _event in poll.poll():
            data = os.read(descriptor, _CHUNK)
            if data:
                tail.add(data)
                progress.log(data, left[descriptor])
            else:
                poll.unregister(descriptor)
                del left[descriptor]


def _hint(code: int) -> str | None:
    if code == 127:
        return "127 means that a command was not found: is it installed in this stage?"
    if code == 126:
        return "126 means that a command can't be executed: check its mode, and that its interpreter is in this stage"
    if code == 137:
        return "137 means that it was killed, often for using more memory than the machine has"
    return None


def _below(inputs: Sequence[Result]) -> FileSystem:
    below = inputs[0]
    assert isinstance(below, FileSystem)
    return below
