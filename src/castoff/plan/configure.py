"""Instructions that only set config: each changes the state of the stage and gives a line of history."""

from __future__ import annotations

from typing import TYPE_CHECKING

from castoff.dockerfile import instructions as ins
from castoff.dockerfile.text import format_duration, quote_all
from castoff.errors import PlanError
from castoff.plan.ports import check_signal, exposed_ports
from castoff.plan.scope import NOT_IN_ENVIRONMENT

if TYPE_CHECKING:
    from castoff.oci.config import Healthcheck
    from castoff.plan.stagescope import StageScope

ConfigInstruction = (
    ins.Arg
    | ins.Env
    | ins.Label
    | ins.User
    | ins.Expose
    | ins.Volume
    | ins.StopSignal
    | ins.Shell
    | ins.Healthcheck
    | ins.Cmd
    | ins.Entrypoint
    | ins.Maintainer
)


def configure(item: ConfigInstruction, scope: StageScope) -> str:
    """Take one instruction; return its line of history.

    Raises:
        ExpansionError: a variable can't be expanded.
        PlanError: a port, signal or volume is not valid.
    """
    match item:
        case ins.Arg():
            return _arg(item, scope)
        case ins.Env():
            return _env(item, scope)
        case ins.Label():
            return _label(item, scope)
        case ins.User():
            user = scope.word(item.user)
            scope.state.set_config(user=user)
            text = f"USER {user}"
        case ins.Expose():
            return _expose(item, scope)
        case ins.Volume():
            return _volume(item, scope)
        case ins.StopSignal():
            signal = scope.word(item.signal)
            check_signal(signal)
            scope.state.set_config(stop_signal=signal)
            text = f"STOPSIGNAL {signal}"
        case ins.Shell():
            scope.state.set_config(shell=item.shell)
            text = f"SHELL [{' '.join(item.shell)}]"
        case ins.Healthcheck():
            scope.state.set_config(healthcheck=item.check)
            text = f"HEALTHCHECK {_health_text(item.check)}"
        case ins.Cmd():
            text = _cmd(item, scope)
        case ins.Entrypoint():
            text = _entrypoint(item, scope)
        case ins.Maintainer():
            scope.state.author = item.name
            text = f"MAINTAINER {item.name}"
    return text


def _arg(item: ins.Arg, scope: StageScope) -> str:
    shown = []
    for variable in item.args:
        name, value = variable.name, variable.value
        if name in scope.build.build_args:
            value = scope.build.build_args[name]
        elif value is not None:
            value = scope.word(value)
        else:
            value = scope.build.global_args.get(name)
        if value is not None and name not in NOT_IN_ENVIRONMENT:
            scope.state.set_argument(name, value)
        scope.state.args[name] = value or ""
        shown.append(name if value is None else f"{name}={value}")
    return "ARG " + " ".join(shown)


def _expanded(pairs: tuple[ins.Variable, ...], scope: StageScope) -> list[tuple[str, str]]:
    return [(scope.word(pair.name), scope.word(pair.value or "")) for pair in pairs]


def _env(item: ins.Env, scope: StageScope) -> str:
    pairs = _expanded(item.env, scope)
    for name, value in pairs:
        scope.state.set_variable(name, value)
    return "ENV " + " ".join(f"{name}={value}" for name, value in pairs)


def _label(item: ins.Label, scope: StageScope) -> str:
    pairs = _expanded(item.labels, scope)
    scope.state.gathered.labels.update(pairs)
    return "LABEL " + " ".join(f"{name}={value}" for name, value in pairs)


def _expose(item: ins.Expose, scope: StageScope) -> str:
    ports = [port for word in item.ports for spec in scope.words(word) for port in exposed_ports(spec)]
    scope.state.gathered.ports.update(ports)
    return f"EXPOSE [{' '.join(ports)}]"


def _volume(item: ins.Volume, scope: StageScope) -> str:
    volumes = [scope.word(volume) for volume in item.volumes]
    if not all(volumes):
        raise PlanError("VOLUME specified can not be an empty string")
    scope.state.gathered.volumes.update(volumes)
    return f"VOLUME [{' '.join(volumes)}]"


def _command(item: ins.CommandBase, scope: StageScope) -> tuple[str, ...]:
    if not item.shell_form:
        return item.command
    return (*scope.state.shell(), " ".join(item.command))


def _cmd(item: ins.Cmd, scope: StageScope) -> str:
    command = _command(item, scope)
    scope.state.set_config(cmd=command or None, args_escaped=True)
    scope.state.cmd_set = True
    return f"CMD {quote_all(command)}"


def _entrypoint(item: ins.Entrypoint, scope: StageScope) -> str:
    command = _command(item, scope)
    scope.state.set_config(entrypoint=command or None)
    if not scope.state.cmd_set:
        scope.state.set_config(cmd=None)  # the base's CMD was meant for the base's entry point
    return f"ENTRYPOINT {quote_all(command)}"


def _health_text(check: Healthcheck) -> str:
    """Return a health check as history shows it."""
    times = (
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    )
    shown = " ".join(f"{name}:{format_duration(value)}" for name, value in times)
    return f"{{Test:[{' '.join(check.test)}] {shown} Retries:{check.retries}}}"
