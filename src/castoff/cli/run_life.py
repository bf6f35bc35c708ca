"""The options of `castoff run` that say how a container lives: its name, its end, its limits, its health checks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from castoff.cli import values
from castoff.containers.health import health_plan
from castoff.containers.record import DEFAULT_STOP_TIMEOUT, HealthPlan, Limits, RestartPolicy
from castoff.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from castoff.cli.parser import Parser
    from castoff.oci.config import ContainerConfig

_SHELL = ("/bin/sh", "-c")
_UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_HEALTH_TIMES = ("interval", "timeout", "start_period", "start_interval")
_LEAST_MEMORY = 6 << 20


def add_arguments(parser: Parser) -> None:
    """Declare the options."""
    parser.one("--cidfile", metavar="FILE", text="write the container's id to a new file")
    parser.one("--cpus", metavar="NUMBER", text="how many processors' time it may use, such as 1.5")
    parser.flag("-d", "--detach", text="let it run in the background, and print its id")
    parser.one("--health-cmd", metavar="COMMAND", text="check its health with this, instead of as the image says")
    parser.one("--health-interval", metavar="TIME", text="time between two checks, such as 30s")
    parser.one("--health-retries", metavar="NUMBER", text="how many failures in a row make it unhealthy")
    parser.one("--health-start-interval", metavar="TIME", text="time between two checks in the start period")
    parser.one("--health-start-period", metavar="TIME", text="for how long after the start failures do not count")
    parser.one("--health-timeout", metavar="TIME", text="how long a check may take")
    parser.many("-l", "--label", metavar="KEY=VALUE", text="give the container a label")
    parser.one("-m", "--memory", metavar="SIZE", text="how much memory it may use, such as 256m")
    parser.one("--name", metavar="NAME", text="the container's name")
    parser.flag("--no-healthcheck", text="do not check its health")
    parser.one("--pids-limit", metavar="NUMBER", text="how many processes it may have; -1 for any number")
    parser.one("--restart", metavar="POLICY", text="start it again when it ends: no, always, on-failure[:N]")
    parser.flag("--rm", text="remove the container when it ends")
    parser.one("--stop-timeout", metavar="SECONDS", text="how long it has to stop before it is killed (default: 10)")


@dataclass(frozen=True, slots=True)
class LifeOptions:
    """What the command line says, read and checked; None leaves it to the image."""

    name: str
    detach: bool
    remove: bool
    cidfile: str
    restart: RestartPolicy
    limits: Limits
    stop_timeout: float
    labels: tuple[tuple[str, str], ...]
    check_health: bool
    health_command: str
    health_times: tuple[tuple[str, float], ...]
    health_retries: int
    has_monitor: bool

    @classmethod
    def read(cls, args: Namespace) -> LifeOptions:
        """Read the arguments.

        Raises:
            UsageError: a value is not well formed, or two contradict each other.
        """
        restart = RestartPolicy.parse(args.restart)
        if args.rm and restart.name != "no":
            raise UsageError("--rm and --restart contradict each other")
        if args.no_healthcheck and args.health_cmd:
            raise UsageError("--no-healthcheck and --health-cmd contradict each other")
        limits = Limits(_memory(args.memory), _cpus(args.cpus), _pids(args.pids_limit))
        times = [(name, getattr(args, f"health_{name}")) for name in _HEALTH_TIMES]
        on_a_terminal = args.tty and args.interactive
        return cls(
            name=args.name,
            detach=args.detach,
            remove=args.rm or not (args.detach or args.name or restart.name != "no"),
            cidfile=args.cidfile,
            restart=restart,
            limits=limits,
            stop_timeout=seconds(args.stop_timeout, "--stop-timeout") if args.stop_timeout else DEFAULT_STOP_TIMEOUT,
            labels=tuple(values.pair(text if "=" in text else f"{text}=", "--label") for text in args.label),
            check_health=not args.no_healthcheck,
            health_command=args.health_cmd,
            health_times=tuple((name, duration(text, f"--health-{name}")) for name, text in times if text),
            health_retries=_count(args.health_retries, "--health-retries") if args.health_retries else 0,
            has_monitor=bool(
                args.detach
                or args.name
                or args.cidfile
                or args.label
                or restart.name != "no"
                or limits
                or on_a_terminal
                or args.health_cmd
            ),
        )

    def health(self, config: ContainerConfig) -> HealthPlan | None:
        """Return how the container's health is checked, by the command line and the image's config."""
        if not self.check_health:
            return None
        plan = health_plan(config.healthcheck, config.shell)
        if self.health_command:
            plan = replace(plan or HealthPlan(()), argv=(*(config.shell or _SHELL), self.health_command))
        if plan is None:
            return None
        times = dict(self.health_times)
        plan = replace(
            plan,
            interval=times.get("interval", plan.interval),
            timeout=times.get("timeout", plan.timeout),
            start_period=times.get("start_period", plan.start_period),
            start_interval=times.get("start_interval", plan.start_interval),
        )
        return replace(plan, retries=self.health_retries) if self.health_retries else plan


def duration(text: str, option: str) -> float:
    """Return the seconds of a time such as ``30s``, ``1m30s`` or ``500ms``.

    Raises:
        UsageError: it is none.
    """
    import re

    parts = re.findall(r"(\d+(?:\.\d+)?)(ns|us|ms|s|m|h)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise UsageError(f"{option.replace('_', '-')} wants a time such as 30s or 1m30s, not {text!r}")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def seconds(text: str, option: str) -> float:
    """Return a number of seconds; -1 is for ever.

    Raises:
        UsageError: it is no such number.
    """
    if text != "-1" and not (text.isascii() and text.isdigit() and len(text) < 10):
        raise UsageError(f"{option} wants a number of seconds, not {text!r}")
    return float(text)


def _count(text: str, option: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text[:10]) > 0 and len(text) < 10):
        raise UsageError(f"{option} wants a number from 1 on, not {text!r}")
    return int(text)


def _memory(text: str) -> int:
    size = values.byte_size(text, "--memory") if text else 0
    if text and size < _LEAST_MEMORY:
        raise UsageError(f"--memory {text}: no container starts with less than 6m")
    return size


def _cpus(text: str) -> float:
    try:
        number = float(text or 0)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1 << 20 or (text and number < 0.01):
        raise UsageError(f"--cpus wants a number such as 0.5 or 2, not {text!r}")
    return number


def _pids(text: str) -> int:
    return 0 if text in ("", "-1", "0") else _count(text, "--pids-limit")
