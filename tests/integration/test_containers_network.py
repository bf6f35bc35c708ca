"""A container's network by itself, with services of the test's own inside."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from castoff.containers.network import ContainerNetwork
from castoff.containers.ports import PortMapping

pytestmark = pytest.mark.integration

ECHO_STREAM = """
import socket, threading
def serve(peer):
    while data := peer.recv(65536):
        peer.sendall(data)
    peer.close()
def accept(server):
    while True:
        threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
server = socket.create_server(({address!r}, 80), family={family})
print("ready", flush=True)
accept(server)
"""
ECHO_DATAGRAM = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("0.0.0.0", 53))
print("ready", flush=True)
while True:
    data, peer = server.recvfrom(65536)
    server.sendto(data.upper(), peer)
"""


@contextlib.contextmanager
def network(*ports: str) -> Iterator[ContainerNetwork]:
    if os.geteuid() != 0:
        pytest.skip("root is missing (as an ordinary user: test_containers_run.py)")
    mappings = tuple(mapping for text in ports for mapping in PortMapping.parse(text))
    made = ContainerNetwork(mappings, lambda _: None)
    try:
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def service(inside: ContainerNetwork, code: str) -> Iterator[None]:
    """Run a Python service in the network."""
    command = ["nsenter", f"--net={inside.path}", sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        try:
            yield
        finally:
            process.kill()


def exchange(port: int, payload: bytes, address: str = "127.0.0.1") -> bytes:
    with socket.create_connection((address, port), timeout=30) as client:
        sender = threading.Thread(target=_send, args=(client, payload))
        sender.start()
        received = bytearray()
        while data := client.recv(65536):
            received += data
        sender.join()
        return bytes(received)


def _send(client: socket.socket, payload: bytes) -> None:
    client.sendall(payload)
    client.shutdown(socket.SHUT_WR)


def test_many_connections_at_once() -> None:
    with network("127.0.0.1::80") as inside, service(inside, ECHO_STREAM.format(address="", family="socket.AF_INET")):
        port = inside.ports[0].host_port
        payloads = [os.urandom(200_000) + bytes([number]) for number in range(30)]
        results: dict[int, bytes] = {}

        def run(number: int) -> None:
            results[number] = exchange(port, payloads[number])

        threads = [threading.Thread(target=run, args=(number,)) for number in range(30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [results[number] for number in range(30)] == payloads


def test_slow_reader_holds_its_sender_back() -> None:
    """What a client does not read is not piled up in the forwarder."""
    code = ECHO_STREAM.format(address="", family="socket.AF_INET")
    with network("127.0.0.1::80") as inside, service(inside, code), _connected(inside) as client:
        client.settimeout(1)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 1 << 28:
                sent += client.send(bytes(1 << 16))
        assert sent < 1 << 28
        with open(f"/proc/{inside.path.split('/')[2]}/status", encoding="ascii") as file:
            resident = next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
        assert resident < 60_000
        client.settimeout(30)
        client.shutdown(socket.SHUT_WR)
        received = 0
        while data := client.recv(1 << 20):
            received += len(data)
        assert received == sent


def _connected(inside: ContainerNetwork) -> socket.socket:
    return socket.create_connection(("127.0.0.1", inside.ports[0].host_port))


def test_both_protocols_of_the_internet(free_port: Callable[[], int]) -> None:
    """Without an address a port is published for IPv4 and IPv6; a service on ::1 alone is found too."""
    port = free_port()
    code = ECHO_STREAM.format(address="::1", family="socket.AF_INET6")
    with network(f"{port}:80") as inside, service(inside, code):
        assert exchange(port, b"four") == b"four"
        if socket.has_dualstack_ipv6():
            assert exchange(port, b"six", "::1") == b"six"


def test_datagrams_find_their_way_back() -> None:
    with network("127.0.0.1::53/udp") as inside, service(inside, ECHO_DATAGRAM):
        clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(3)]
        for number, client in enumerate(clients):
            client.settimeout(20)
            client.connect(("127.0.0.1", inside.ports[0].host_port))
            client.send(b"question %d" % number)
        for number, client in enumerate(clients):
            assert client.recv(100) == b"QUESTION %d" % number
            client.close()


def test_idle_forwarder_uses_no_time() -> None:
    """Half-closed and idle connections must not make the loop spin."""
    with network("127.0.0.1::80") as inside, service(inside, ECHO_STREAM.format(address="", family="socket.AF_INET")):
        pid = int(inside.path.split("/")[2])
        clients = [socket.create_connection(("127.0.0.1", inside.ports[0].host_port)) for _ in range(3)]
        clients[0].sendall(b"x")
        assert clients[0].recv(1) == b"x"
        before = _switches(pid)
        time.sleep(0.5)
        assert _switches(pid) - before < 20
        for client in clients:
            client.close()


def _switches(pid: int) -> int:
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return sum(int(line.split()[1]) for line in file if "ctxt_switches" in line)


def test_closing_ends_the_process_and_frees_the_port() -> None:
    with network("127.0.0.1::80") as inside:
        port = inside.ports[0].host_port
        pid = inside.path.split("/")[2]
        assert os.path.exists(f"/proc/{pid}")
    assert not os.path.exists(f"/proc/{pid}")
    with socket.create_server(("127.0.0.1", port)):
        pass


OUTBOUND = """
import os, signal, subprocess, sys
sys.path.insert(0, sys.argv[1])
from castoff.containers.network import ContainerNetwork
warnings = []
network = ContainerNetwork((), warnings.append)
pid = network.path.split("/")[2]
command = ["nsenter", "--net=" + network.path, "cat", "/proc/self/net/route"]
route = subprocess.run(command, capture_output=True, text=True)
children = subprocess.run(["pgrep", "-P", pid], capture_output=True, text=True).stdout.split()
print(len(warnings), route.stdout.count("00000000\\t"), len(children), *warnings, flush=True)
print(*children, flush=True)
if sys.argv[2] == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
network.close()
"""


@pytest.mark.parametrize("end", ["close", "kill"])
def test_outbound_through_pasta(end: str, require: Any, tmp_path: Path) -> None:
    """Pasta gives the network a way out, and ends with it, however castoff ends."""
    require.root()
    for name, package in (("pasta", "passt"), ("unshare", "util-linux"), ("pgrep", "procps")):
        require.command(name, package)
    require.file("/dev/net/tun", "linux-image with CONFIG_TUN")
    with open("/proc/self/net/route", encoding="ascii") as file:
        if "00000000\t" not in file.read():
            pytest.skip("a default route of the host's is missing")
    # In a mount namespace of the test's own the device is open to all, as it is on most machines.
    node = tmp_path / "tun"
    os.mknod(node, 0o20666, os.makedev(10, 200))
    os.chmod(node, 0o666)
    script = f'mount --bind {node} /dev/net/tun && exec "$@"'
    source = os.path.join(os.path.dirname(__file__), "..", "..", "src")
    command = ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, "-c", OUTBOUND, source, end]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    first, second = result.stdout.splitlines()
    warnings, routes, children, *said = first.split(maxsplit=3)
    assert (warnings, children) == ("0", "1"), said
    assert int(routes) >= 1
    for _ in range(1000):
        if not os.path.exists(f"/proc/{second}"):
            return
        time.sleep(0.01)
    pytest.fail("pasta is still there")
