"""Published ports: what ``-p`` says, and listening for it in the host's network."""

from __future__ import annotations

import errno
import re
import socket
from dataclasses import dataclass, replace

from castoff.errors import SandboxError, UsageError

_BACKLOG = 4096
_PROTOCOLS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_MAPPING = re.compile(
    r"(?:(?:(?P<ip>\[[0-9A-Fa-f:.]+\]|[0-9.]+):)?(?P<host>[0-9]*(?:-[0-9]+)?):)?(?P<container>[0-9]+(?:-[0-9]+)?)"
    r"(?:/(?P<proto>[a-zA-Z]+))?"
)


@dataclass(frozen=True, slots=True)
class PortMapping:
    """A port of the host that leads to one of a container.

    Attributes:
        host_ip: the address to listen on; "" for all, IPv4 and IPv6.
        host_port: 0 for any free one.
        container_port: the port inside.
        proto: ``tcp`` or ``udp``.
    """

    host_ip: str
    host_port: int
    container_port: int
    proto: str = "tcp"

    @classmethod
    def parse(cls, text: str) -> tuple[PortMapping, ...]:
        """Return the mappings that ``[[IP:][HOST]:]CONTAINER[/PROTO]`` means; a range gives several.

        Raises:
            UsageError: it is not of that form, or a port is out of range.
        """
        match = _MAPPING.fullmatch(text)
        if match is None:
            raise UsageError(f'"{text}" is no port mapping', hint="write [[IP:]HOST_PORT:]CONTAINER_PORT[/tcp|udp]")
        proto = (match["proto"] or "tcp").lower()
        if proto not in _PROTOCOLS:
            raise UsageError(f'"{text}": ports of {proto} can\'t be published, only of tcp and udp')
        inside = _range(match["container"], text)
        outside = _range(match["host"], text) if match["host"] else [0] * len(inside)
        if len(inside) != len(outside):
            raise UsageError(f'"{text}": the ranges have {len(outside)} and {len(inside)} ports')
        address = (match["ip"] or "").strip("[]")
        if address:
            _check_address(address, text)
        return tuple(cls(address, host, port, proto) for host, port in zip(outside, inside, strict=True))

    def __str__(self) -> str:
        """Return the mapping in the form that `parse` reads."""
        address = f"[{self.host_ip}]:" if ":" in self.host_ip else f"{self.host_ip}:" if self.host_ip else ""
        return f"{address}{self.host_port or ''}:{self.container_port}/{self.proto}"


def _range(text: str, whole: str) -> list[int]:
    first, _, last = text.partition("-")
    start, end = int(first or 0), int(last or first or 0)
    if not 0 < start <= end <= 65535:
        raise UsageError(f'"{whole}": {text} is no port or range of ports (1 to 65535)')
    return list(range(start, end + 1))


def _check_address(address: str, whole: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        socket.inet_pton(family, address)
    except OSError as error:
        raise UsageError(f'"{whole}": {address} is no IP address') from error


@dataclass(frozen=True, slots=True)
class Listener:
    """A bound socket and the mapping that it serves, with the host's port filled in."""

    socket: socket.socket
    mapping: PortMapping


def listen(mappings: tuple[PortMapping, ...]) -> list[Listener]:
    """Bind and listen on the host's ports; the sockets are the caller's to close.

    Raises:
        SandboxError: a port is in use or may not be used; nothing is left open.
    """
    listeners: list[Listener] = []
    try:
        for mapping in mappings:
            if mapping.host_ip:
                family = socket.AF_INET6 if ":" in mapping.host_ip else socket.AF_INET
                listeners.append(_bind(mapping, family, mapping.host_ip))
                continue
            first = _bind(mapping, socket.AF_INET, "0.0.0.0")  # noqa: S104 - what -p without an address means
            listeners.append(first)
            if socket.has_dualstack_ipv6():
                listeners.append(_bind(first.mapping, socket.AF_INET6, "::"))
    except BaseException:
        for listener in listeners:
            listener.socket.close()
        raise
    return listeners


def _bind(mapping: PortMapping, family: socket.AddressFamily, address: str) -> Listener:
    bound = socket.socket(family, _PROTOCOLS[mapping.proto])
    try:
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if mapping.proto == "tcp":
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((address, mapping.host_port))
        if mapping.proto == "tcp":
            bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        raise _bind_error(error, mapping, address) from error
    return Listener(bound, replace(mapping, host_port=bound.getsockname()[1]))


def _bind_error(error: OSError, mapping: PortMapping, address: str) -> SandboxError:
    where = f"[{address}]:{mapping.host_port}" if ":" in address else f"{address}:{mapping.host_port}"
    if error.errno == errno.EADDRINUSE:
        return SandboxError(
            f"port {where}/{mapping.proto} is already in use",
            hint=f"stop what listens there, or publish another one: -p OTHER:{mapping.container_port}",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return SandboxError(
            f"an ordinary user may not listen on port {where}",
            hint="publish a port from 1024 on, or: sudo sysctl net.ipv4.ip_unprivileged_port_start=0",
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return SandboxError(f"this machine has no address {address} to listen on")
    return SandboxError(f"can't listen on {where}/{mapping.proto}: {error.strerror}")
