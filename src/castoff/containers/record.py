"""What is known of a container that lives: how it was made, which never changes, and how it is."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from castoff.errors import UsageError
from castoff.mount import Mount, MountKind
from castoff.sandbox.spec import Network, ProcessSpec, RootSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

LOST_CODE = 255
"""The exit code of a container whose monitor ended without writing one down."""
DEFAULT_STOP_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a container may use; 0 for no limit.

    Attributes:
        memory: bytes.
        cpus: processors' worth of time.
        pids: processes and threads.
    """

    memory: int = 0
    cpus: float = 0.0
    pids: int = 0

    def __bool__(self) -> bool:
        """Tell whether there is any limit."""
        return bool(self.memory or self.cpus or self.pids)


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """When a container is started again after its end: ``no``, ``on-failure`` or ``always``.

    Attributes:
        name: the policy.
        most: how often, for ``on-failure``; 0 for any number of times.
    """

    name: str = "no"
    most: int = 0

    @classmethod
    def parse(cls, text: str) -> RestartPolicy:
        """Read ``no``, ``always``, ``unless-stopped`` or ``on-failure[:N]``.

        Raises:
            UsageError: it is none of them.
        """
        name, colon, most = text.partition(":")
        if name in ("", "no", "always", "unless-stopped") and not colon:
            # What was stopped stays so until it is started: there is no daemon that comes up and thinks otherwise.
            return cls({"": "no", "unless-stopped": "always"}.get(name, name))
        if name == "on-failure" and (not colon or (most.isascii() and most.isdigit())):
            return cls(name, int(most or 0))
        raise UsageError(f"--restart has no policy {text!r}", hint="there are no, always and on-failure[:N]")

    def __str__(self) -> str:
        """Return the policy in the form that `parse` reads."""
        return f"{self.name}:{self.most}" if self.most else self.name

    def applies(self, code: int, restarts: int) -> bool:
        """Tell whether a container that ended with a code, after so many restarts, is started again."""
        if self.name == "always":
            return True
        return self.name == "on-failure" and code != 0 and (not self.most or restarts < self.most)


@dataclass(frozen=True, slots=True)
class HealthPlan:
    """How a container's health is checked; times in seconds.

    Attributes:
        argv: the command that tells, by its exit code.
        interval: from the end of one check to the beginning of the next.
        timeout: how long a check may take.
        start_period: how long after the start failures do not count.
        start_interval: the interval while the start period lasts.
        retries: how many failures in a row make it unhealthy.
    """

    argv: tuple[str, ...]
    interval: float = 30.0
    timeout: float = 30.0
    start_period: float = 0.0
    start_interval: float = 5.0
    retries: int = 3


@dataclass(frozen=True, slots=True)
class ContainerRecord:
    """How a container was made.

    Attributes:
        id: 64 hexadecimal digits.
        name: what people call it; unique in a store.
        image: the reference that was given.
        image_id: digest of the image's config.
        created: seconds since the epoch.
        snapshot: name of the snapshot below its own files; "" for none. It must stay while the container does.
        spec: its process.
        ports: what to publish, in the form of ``-p``.
        tty: whether it has a pseudo-terminal.
        interactive: whether its standard input stays open for those who attach.
        stop_signal: the signal that asks it to end.
        stop_timeout: how long it then has, in seconds.
        auto_remove: whether it is removed when it ends.
        restart: when it is started again.
        limits: what it may use.
        health: how its health is checked; None for not at all.
        labels: those of the image and of the command line.
    """

    id: str
    name: str
    image: str
    image_id: str
    created: float
    snapshot: str
    spec: ProcessSpec
    ports: tuple[str, ...] = ()
    tty: bool = False
    interactive: bool = False
    stop_signal: int = 15
    stop_timeout: float = DEFAULT_STOP_TIMEOUT
    auto_remove: bool = False
    restart: RestartPolicy = RestartPolicy()
    limits: Limits = Limits()
    health: HealthPlan | None = None
    labels: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        value = asdict(self)
        value["spec"] = spec_to_json(self.spec)
        value["labels"] = dict(self.labels)
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ContainerRecord:
        """Read what `to_json` gave.

        Raises:
            KeyError: a field is missing.
            TypeError: a field is of another type.
            ValueError: a field has a value that makes no sense.
        """
        fields = dict(value)
        health = fields.pop("health")
        if health is not None:
            health = HealthPlan(**{**health, "argv": tuple(health["argv"])})
        return cls(
            **{
                **fields,
                "spec": spec_from_json(fields["spec"]),
                "ports": tuple(fields["ports"]),
                "restart": RestartPolicy(**fields["restart"]),
                "limits": Limits(**fields["limits"]),
                "labels": tuple(sorted(fields["labels"].items())),
            },
            health=health,
        )


def spec_to_json(spec: ProcessSpec) -> dict[str, Any]:
    """Return a process as JSON values; content of files is not kept."""
    value = asdict(spec)
    value["network"] = spec.network.value
    for mount, item in zip(spec.mounts, value["mounts"], strict=True):
        item["kind"] = mount.kind.value
        del item["data"]
    return value


def spec_from_json(value: Mapping[str, Any]) -> ProcessSpec:
    """Read what `spec_to_json` gave.

    Raises:
        KeyError: a field is missing.
        TypeError: a field is of another type.
        ValueError: a field has a value that makes no sense.
    """
    root = value["root"]
    mounts = [
        Mount(**{**item, "kind": MountKind(item["kind"]), "lowers": tuple(item["lowers"])}) for item in value["mounts"]
    ]
    return ProcessSpec(
        **{
            **value,
            "root": RootSpec(**{**root, "lowers": tuple(root["lowers"])}),
            "network": Network(value["network"]),
            "mounts": tuple(mounts),
            **{name: tuple(value[name]) for name in ("argv", "env", "groups")},
            "hosts": tuple((name, address) for name, address in value["hosts"]),
            "rlimits": tuple((name, soft, hard) for name, soft, hard in value["rlimits"]),
        }
    )


@dataclass(frozen=True, slots=True)
class ContainerState:
    """How a container is.

    Attributes:
        status: ``created``, ``running``, ``restarting`` or ``exited``.
        pid: the process id of its first process on the host; 0 for none.
        monitor: the process id of its monitor; 0 for none.
        started: seconds since the epoch; 0 for never.
        finished: seconds since the epoch; 0 for never.
        exit_code: of its last end.
        error: one sentence where castoff could not go on with it.
        oom_killed: whether the kernel killed something in it for lack of memory.
        restarts: how often its restart policy has started it again.
        health: ``starting``, ``healthy``, ``unhealthy``, or "" where it is not checked.
        health_failures: failures in a row.
        health_output: the end of what the last check printed.
        ports: published ports, with those of the host filled in.
    """

    status: str = "created"
    pid: int = 0
    monitor: int = 0
    started: float = 0.0
    finished: float = 0.0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    restarts: int = 0
    health: str = ""
    health_failures: int = 0
    health_output: str = ""
    ports: tuple[str, ...] = ()

    @property
    def is_live(self) -> bool:
        """Whether it runs, or is about to again."""
        return self.status in ("running", "restarting")

    def to_json(self) -> dict[str, Any]:
        """Return the state as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ContainerState:
        """Read what `to_json` gave.

        Raises:
            TypeError: a field is unknown, or of another type.
        """
        fields = {**value, "ports": tuple(value.get("ports", ()))}
        fields.pop("monitor_start", None)  # of castoff 0.1
        return cls(**fields)

    def ended(self, code: int, error: str = "") -> ContainerState:
        """Return the state after the end of the container."""
        return replace(
            self,
            status="exited",
            pid=0,
            monitor=0,
            finished=time.time(),
            exit_code=code,
            error=error,
            health="",
            ports=(),
        )

    def lost(self, when: float) -> ContainerState:
        """Return the state of a container whose monitor is gone: killed, or the machine was restarted."""
        return replace(self.ended(LOST_CODE, "its monitor was killed, or the machine was restarted"), finished=when)
