"""Holds a container's network namespace, and forwards connections from the host into it.

Started by its path with ``python -I -S``, like the sandbox' fork server. It inherits listening sockets of the host's
network namespace, moves into a new one, and from then on connects inside and accepts outside. The namespace belongs to
a user namespace of ``nobody``, so that neither this program nor pasta has any right outside of it, and a container's
root none but its capabilities in it. All ends when the control socket is closed, because castoff ended or was killed.

Arguments: the control socket's descriptor, the folder to import castoff from, ``nobody`` or ``plain`` (without a user
namespace), the path of pasta or "", then ``FD:PROTO:PORT`` for each listener. It answers once, with a line on the
control socket: ``ready``, ``ready SENTENCE`` (without pasta, and why), or ``failed SENTENCE``.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_NOBODY = 65534
_PASTA_TIMEOUT = 5.0
_CHUNK = 1 << 16


def _become_nobody() -> None:
    from castoff.linux import syscalls

    os.setgroups([])
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    # The change made what is in /proc about this process root's; it must write its own id map there.
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)


def _write(path: str, text: str) -> None:
    with open(path, "wb", buffering=0) as file:
        file.write(text.encode())


def _enter_namespace(as_nobody: bool) -> None:
    from castoff.linux import namespaces, syscalls

    if as_nobody:
        syscalls.unshare(namespaces.CLONE_NEWUSER | namespaces.CLONE_NEWNET)
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {_NOBODY} 1"), ("gid_map", f"0 {_NOBODY} 1")):
            _write(f"/proc/self/{name}", text)
    else:
        syscalls.unshare(namespaces.CLONE_NEWNET)
    namespaces.loopback_up()
    try:
        _write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")
    except OSError:
        return  # /proc/sys is read-only here: low ports then need the capability


def _fork_pasta(path: str) -> tuple[int, int, int]:
    """Fork what will be pasta, outside of the new namespaces: (pid, where it waits, what it says)."""
    go_read, go_write = os.pipe()
    said_read, said_write = os.pipe()
    target = os.getpid()
    pid = os.fork()
    if pid == 0:
        os.close(go_write)
        _be_pasta(path, target, go_read, said_write)
    os.close(go_read)
    os.close(said_write)
    return pid, go_write, said_read


def _be_pasta(path: str, target: int, go: int, said: int) -> NoReturn:
    from castoff.linux import syscalls

    try:
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.read(go, 1) == b"g":
            null = os.open(os.devnull, os.O_RDWR)
            for descriptor, source in enumerate((null, null, said)):
                os.dup2(source, descriptor)
            syscalls.close_range(3)
            for number in (signal.SIGPIPE, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)  # an inherited SIG_IGN is an error to pasta
            # No port is forwarded in either direction, and the gateway's address does not stand for the host.
            nothing = ["-t", "none", "-u", "none", "-T", "none", "-U", "none", "--no-map-gw"]
            where = ["--userns", f"/proc/{target}/ns/user", "--netns", f"/proc/{target}/ns/net"]
            arguments = [path, "--foreground", "--quiet", "--config-net", *nothing, *where]
            os.execv(path, arguments)  # noqa: S606 - no shell is wanted
    finally:
        os._exit(127)


def _await_pasta(pid: int, said: int) -> str:
    """Wait until the namespace has a way out; return "" or why it has none."""
    deadline = time.monotonic() + _PASTA_TIMEOUT
    while not _has_default_route():
        ended, _ = os.waitpid(pid, os.WNOHANG)
        if ended:
            lines = os.read(said, _CHUNK).decode(errors="replace").strip().splitlines()
            lines = [line for line in lines if "syslog" not in line]
            return lines[-1] if lines else "it ended at once"
        if time.monotonic() > deadline:
            return f"it gave no route within {_PASTA_TIMEOUT:.0f} seconds"
        time.sleep(0.005)
    return ""


def _has_default_route() -> bool:
    with open("/proc/self/net/route", "rb") as file:
        if any(line.split()[1] == b"0" * 8 for line in file.readlines()[1:]):
            return True
    try:
        with open("/proc/self/net/ipv6_route", "rb") as file:
            routes = [line.split() for line in file]
    except FileNotFoundError:
        return False
    return any(route[0] == b"0" * 32 and route[1] == b"00" and route[9] != b"lo" for route in routes)


def _set_up(mode: str, pasta: str) -> tuple[str, int]:
    """Enter the namespace; return why there is no way out ("" if there is one, or none was asked for), and pasta's pid.

    Raises:
        OSError: there is no namespace.
    """
    if mode != "nobody":
        _enter_namespace(as_nobody=False)
        return ("its namespace belongs to root" if pasta else ""), 0
    _become_nobody()
    if not pasta:
        _enter_namespace(as_nobody=True)
        return "", 0
    pid, go, said = _fork_pasta(pasta)
    _enter_namespace(as_nobody=True)
    os.write(go, b"g")
    os.close(go)
    reason = _await_pasta(pid, said)
    if reason:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pid = 0
    return reason, 0 if reason else pid


def main(arguments: list[str]) -> None:
    """Set up, answer, and forward."""
    control = socket.socket(fileno=int(arguments[0]))
    sys.path.append(arguments[1])
    # As nobody the files of this Python may be out of reach: whatever is needed is imported now.
    from castoff.containers.relay import Forwarder
    from castoff.linux import namespaces, syscalls  # noqa: F401

    listeners = []
    for text in arguments[4:]:
        descriptor, _, port = text.split(":")
        listeners.append((socket.socket(fileno=int(descriptor)), int(port)))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        reason, pasta = _set_up(arguments[2], arguments[3])
    except OSError as error:
        control.sendall(f"failed {error}\n".encode())
        return
    try:
        control.sendall(f"ready {reason}".strip().encode() + b"\n")
        Forwarder(control, listeners).serve()
    finally:
        if pasta:
            os.kill(pasta, signal.SIGKILL)
            os.waitpid(pasta, 0)


if __name__ == "__main__":
    main(sys.argv[1:])
