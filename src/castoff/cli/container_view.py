"""What the verbs about containers share: finding them, and how they are shown."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

from castoff.cli.errors import report
from castoff.cli.root import store_root
from castoff.cli.table import ago, human_duration
from castoff.containers.containerstore import Container, ContainerStore
from castoff.errors import CastoffError

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Mapping

    from castoff.containers.record import ContainerRecord, ContainerState

SHORT = 12
_ALL = ("0.0.0.0", "[::]")  # noqa: S104 - where a port without an address is published


def container_store(args: Namespace) -> ContainerStore:
    """Return the containers of the store that the arguments and the environment name, which need not exist."""
    return ContainerStore(store_root(args.root, os.environ))


def warn(sentence: str) -> None:
    """Print a warning."""
    sys.stderr.write(f"warning: {sentence}\n")
    sys.stderr.flush()


def for_each(args: Namespace, act: Callable[[Container], None], found: Mapping[str, Container] | None = None) -> int:
    """Do something with each container that was named and print its name; return 1 if that failed for any.

    Args:
        args: of the verb, with the names.
        act: what to do.
        found: containers by name that were found already.
    """
    containers = container_store(args)
    code = 0
    for name in args.container:
        try:
            known = found.get(name) if found else None
            act(known or containers.find(name))
        except CastoffError as error:
            report(error, sys.stderr, os.environ)
            code = 1
            continue
        sys.stdout.write(f"{name}\n")
        sys.stdout.flush()
    return code


def status_text(state: ContainerState) -> str:
    """Return how a container is, in words: ``Up 3 minutes (healthy)``, ``Exited (0) 2 hours ago``."""
    now = time.time()
    if state.status == "running":
        health = "health: starting" if state.health == "starting" else state.health
        return f"Up {human_duration(now - state.started)}" + (f" ({health})" if health else "")
    if state.status == "restarting":
        return f"Restarting ({state.exit_code}) {ago(now - state.finished)}"
    if state.status == "exited":
        return f"Exited ({state.exit_code}) {ago(now - state.finished) if state.finished else 'at an unknown time'}"
    return state.status.capitalize()


def ports_text(ports: tuple[str, ...]) -> str:
    """Return published ports: ``0.0.0.0:8000->80/tcp, [::]:8000->80/tcp``."""
    return ", ".join(f"{where}->{inside}" for text in ports for where, inside in published(text))


def published(text: str) -> list[tuple[str, str]]:
    """Return where a published port, in the form of ``-p``, is on the host, and what it is inside."""
    from castoff.containers.ports import PortMapping

    found = []
    for port in PortMapping.parse(text):
        inside = f"{port.container_port}/{port.proto}"
        address = f"[{port.host_ip}]" if ":" in port.host_ip else port.host_ip
        addresses = [address] if address else list(_ALL)
        found += [(f"{each}:{port.host_port}", inside) for each in addresses]
    return found


def timestamp(seconds: float) -> str:
    """Return a time as RFC 3339 in UTC; Docker's zero time for 0."""
    if not seconds:
        return "0001-01-01T00:00:00Z"
    from castoff.store.images import format_time

    return format_time(seconds)


def document(container: Container, record: ContainerRecord, state: ContainerState) -> dict[str, Any]:
    """Return all that is known of a container, with Docker's names."""
    spec = record.spec
    current: dict[str, Any] = {
        "Status": state.status,
        "Running": state.status == "running",
        "Restarting": state.status == "restarting",
        "OOMKilled": state.oom_killed,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": timestamp(state.started),
        "FinishedAt": timestamp(state.finished),
    }
    if record.health is not None:
        current["Health"] = {
            "Status": state.health or "none",
            "FailingStreak": state.health_failures,
            "Output": state.health_output,
        }
    ports: dict[str, list[dict[str, str]]] = {}
    for text in state.ports:
        for where, inside in published(text):
            address, _, port = where.rpartition(":")
            ports.setdefault(inside, []).append({"HostIp": address.strip("[]"), "HostPort": port})
    return {
        "Id": record.id,
        "Name": record.name,
        "Created": timestamp(record.created),
        "Image": record.image_id,
        "Path": spec.argv[0],
        "Args": list(spec.argv[1:]),
        "State": current,
        "RestartCount": state.restarts,
        "LogPath": f"{container.path}/log.jsonl",
        "Config": {
            "Hostname": spec.hostname,
            "User": f"{spec.uid}:{spec.gid}",
            "Tty": record.tty,
            "OpenStdin": record.interactive,
            "Env": list(spec.env),
            "Image": record.image,
            "WorkingDir": spec.cwd,
            "Labels": dict(record.labels),
            "StopSignal": str(record.stop_signal),
            "StopTimeout": record.stop_timeout,
        },
        "HostConfig": {
            "AutoRemove": record.auto_remove,
            "NetworkMode": "bridge" if spec.network.value == "private" else spec.network.value,
            "ReadonlyRootfs": spec.root.readonly,
            "RestartPolicy": {"Name": record.restart.name, "MaximumRetryCount": record.restart.most},
            "Memory": record.limits.memory,
            "NanoCpus": int(record.limits.cpus * 1_000_000_000),
            "PidsLimit": record.limits.pids,
            "ShmSize": spec.shm_size,
        },
        "Mounts": [
            {
                "Type": mount.kind.value,
                "Source": mount.source,
                "Destination": mount.target,
                "RW": not mount.readonly,
            }
            for mount in spec.mounts
        ],
        "NetworkSettings": {"Ports": ports},
    }
