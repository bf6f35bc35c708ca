"""The ports of EXPOSE and the signals of STOPSIGNAL."""

from __future__ import annotations

import ipaddress
import re

from castoff.dockerfile.suggest import hint
from castoff.errors import PlanError

_PROTOCOLS = ("tcp", "udp", "sctp")
_SIGNALS = frozenset(
    "ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT SEGV STKFLT STOP SYS TERM TRAP "
    "TSTP TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ".split()
) | {"RTMIN", "RTMAX"}
_REAL_TIME = re.compile(r"RTMIN\+([1-9]|1[0-5])|RTMAX-([1-9]|1[0-4])")


def exposed_ports(spec: str) -> list[str]:
    """Return the ports that one word of EXPOSE names, as ``port/protocol``.

    A host's address and port are accepted and dropped, as in the reference.

    Raises:
        PlanError: it names no ports.
    """
    *host, container = spec.split(":")
    ports, _, protocol = container.partition("/")
    if not ports:
        raise PlanError(f'invalid port: "{spec}": no port specified')
    if protocol.lower() not in ("", *_PROTOCOLS):
        near = hint(protocol.lower(), _PROTOCOLS) or "it is tcp, udp or sctp"
        raise PlanError(f'invalid port: "{spec}": invalid proto: {protocol}', hint=near)
    _check_address(":".join(host[:-1]))
    first, last = _range(ports, "containerPort")
    if host and host[-1]:
        host_first, host_last = _range(host[-1], "hostPort")
        if last - first != host_last - host_first and last != first:
            raise PlanError(f"invalid ranges specified for container and host Ports: {ports} and {host[-1]}")
    return [f"{port}/{protocol.lower() or 'tcp'}" for port in range(first, last + 1)]


def _check_address(address: str) -> None:
    if address:
        try:
            ipaddress.ip_address(address.removeprefix("[").removesuffix("]"))
        except ValueError as error:
            raise PlanError(f"invalid IP address: {address}") from error


def _range(text: str, what: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    numbers = (_number(first), _number(last) if dash else _number(first))
    if numbers[0] is None or numbers[1] is None or numbers[1] < numbers[0]:
        raise PlanError(f"invalid {what}: {text}", hint="a port is a number from 0 to 65535, or a range such as 80-90")
    return numbers[0], numbers[1]


def _number(text: str) -> int | None:
    if not re.fullmatch(r"[+-]?[0-9]{1,20}", text, re.ASCII):
        return None
    return int(text) if 0 <= int(text) <= 65535 else None


def check_signal(text: str) -> None:
    """Refuse what is not the name or number of a signal.

    Raises:
        PlanError: it is neither.
    """
    if re.fullmatch(r"[+-]?[0-9]{1,18}", text, re.ASCII):
        known = int(text) != 0
    else:
        name = text.upper().removeprefix("SIG")
        known = name in _SIGNALS or _REAL_TIME.fullmatch(name) is not None
    if not known:
        prefix = "SIG" if text.upper().startswith("SIG") else ""
        near = hint(text.upper(), [prefix + name for name in sorted(_SIGNALS)])
        raise PlanError(f"invalid signal: {text}", hint=near)
