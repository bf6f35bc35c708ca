"""Containers in the foreground: streams, terminals, signals, published ports, and that nothing is left of them."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sandbox_rig import HERE, Rig, make_rig, remove_rig

pytestmark = pytest.mark.integration

DRIVER = os.path.join(HERE, "container_driver.py")


@pytest.fixture(scope="module", params=["root", "subuid"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    made = make_rig(request.param, request)
    with open(DRIVER, encoding="utf-8") as source, open(os.path.join(made.folder, "run.py"), "w") as target:
        target.write(source.read())
    yield made
    remove_rig(made)


def command(rig: Rig, *argv: str, **options: Any) -> list[str]:
    request = {
        "src": rig.source,
        "tier": rig.tier,
        "state": rig.state,
        "root": rig.root(),
        "argv": argv,
        "network": "host",
        "uid": 0,
        "ports": [],
        "tty": False,
        "interactive": False,
        **options,
    }
    return [rig.python, "-B", os.path.join(rig.folder, "run.py"), json.dumps(request)]


def start(rig: Rig, *argv: str, stdin: int = subprocess.DEVNULL, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command(rig, *argv, **options),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        **rig.identity(),
    )


def connect(port: int, address: str = "127.0.0.1") -> socket.socket:
    """Connect, once a service inside listens (before, connections are closed at once)."""
    for _ in range(1000):
        with socket.socket() as attempt:
            try:
                attempt.connect((address, port))
                attempt.sendall(b"ping\n")
                if attempt.recv(100):
                    break
            except OSError:
                pass
        time.sleep(0.01)
    return socket.create_connection((address, port), timeout=20)


def test_streams_and_exit_code(rig: Rig) -> None:
    process = start(rig, "sh", "-c", "cat; echo err >&2; exit 42", stdin=subprocess.PIPE, interactive=True)
    out, err = process.communicate(b"some input\n" * 10_000)
    assert (process.returncode, out, err) == (42, b"some input\n" * 10_000, b"err\n")


def test_without_interactive_there_is_no_input(rig: Rig) -> None:
    process = start(rig, "cat", stdin=subprocess.PIPE)
    out, _ = process.communicate(b"not read")
    assert (process.returncode, out) == (0, b"")


def test_program_that_is_not_there(rig: Rig) -> None:
    process = start(rig, "nothing")
    _, err = process.communicate()
    assert process.returncode == 127
    assert b"not found" in err


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1"])
def test_signals_reach_the_process(rig: Rig, name: str) -> None:
    script = f"trap 'echo caught; exit 3' {name[3:]}; echo ready; while :; do sleep 0.02; done"
    process = start(rig, "sh", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(getattr(signal, name))
    out, _ = process.communicate()
    assert (process.returncode, out) == (3, b"caught\n")


def test_a_process_that_ignores_signals_is_killed_at_last(rig: Rig) -> None:
    process = start(rig, "sh", "-c", "trap '' INT; echo ready; sleep 1000")
    assert process.stdout is not None
    process.stdout.readline()
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)  # signals of one kind that come at once are one
    process.communicate()
    assert process.returncode == 137


def test_published_port(rig: Rig, free_port: Callable[[], int]) -> None:
    port = free_port()
    process = start(rig, "nc", "-ll", "-p", "80", "-e", "cat", ports=[f"127.0.0.1:{port}:80"], network="private", uid=7)
    payload = os.urandom(3_000_000)
    try:
        with connect(port) as client:
            received = bytearray()
            sent = 0
            client.setblocking(False)
            while len(received) < len(payload):
                readable, writable, _ = select.select([client], [client] if sent < len(payload) else [], [], 20)
                assert readable or writable
                if writable:
                    sent += client.send(payload[sent : sent + 65536])
                    if sent == len(payload):
                        client.shutdown(socket.SHUT_WR)  # the answer still comes: each way ends by itself
                if readable:
                    received += client.recv(65536)
            client.setblocking(True)
            assert client.recv(1) == b""
        assert bytes(received) == payload
    finally:
        process.kill()
        process.communicate()


def test_connection_to_nobody_is_closed(rig: Rig, free_port: Callable[[], int]) -> None:
    port = free_port()
    process = start(rig, "sh", "-c", "echo ready; sleep 100", ports=[f"{port}:80"], network="private")
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        with (
            socket.create_connection(("127.0.0.1", port), timeout=20) as client,
            contextlib.suppress(ConnectionResetError),
        ):
            assert client.recv(1) == b""
    finally:
        process.kill()
        process.communicate()


def test_port_in_use_is_one_clear_error(rig: Rig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = start(rig, "sh", "-c", "echo started", ports=[f"127.0.0.1:{port}:80"], network="private")
        out, err = process.communicate()
    assert (process.returncode, out) == (125, b"")
    assert f"127.0.0.1:{port}/tcp is already in use".encode() in err


def test_host_network_publishes_nothing(rig: Rig) -> None:
    process = start(rig, "true", ports=["80"])
    _, err = process.communicate()
    assert process.returncode == 0
    assert b"not published" in err


def test_killed_castoff_leaves_nothing(rig: Rig, free_port: Callable[[], int]) -> None:
    port = free_port()
    process = start(rig, "nc", "-ll", "-p", "80", "-e", "cat", ports=[f"127.0.0.1:{port}:80"], network="private")
    connect(port).close()
    process.kill()
    process.communicate()
    for _ in range(1000):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            break
        time.sleep(0.01)
    else:
        pytest.fail("the port is still served")
    for _ in range(1000):
        if not os.listdir(rig.state):
            return
        time.sleep(0.01)
    assert os.listdir(rig.state) == []


class Terminal:
    """A pseudo-terminal as a user's, with a container on it."""

    def __init__(self, rig: Rig, *argv: str, **options: Any) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 30, 100, 0, 0))
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        # The controlling terminal, so that ^C and SIGWINCH come as they do to a person.
        setsid = ["setsid", "--ctty", "--wait"]
        self.process = subprocess.Popen(
            [*setsid, *command(rig, *argv, **options)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd="/",
            **rig.identity(),
        )
        self.output = b""

    def read_until(self, word: bytes) -> bytes:
        deadline = time.monotonic() + 30
        while word not in self.output:
            readable, _, _ = select.select([self.master], [], [], 0.1)
            if readable:
                self.output += os.read(self.master, 65536)
            elif time.monotonic() > deadline:
                pytest.fail(f"{word!r} did not appear in {self.output!r}")
        before, _, self.output = self.output.partition(word)
        return before

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def terminal(rig: Rig) -> Iterator[Callable[..., Terminal]]:
    made: list[Terminal] = []

    def make(*argv: str, **options: Any) -> Terminal:
        made.append(Terminal(rig, *argv, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_interactive_terminal(terminal: Callable[..., Terminal]) -> None:
    script = (
        "stty size; echo rea''dy; read x; echo got-$x; until stty size | grep -q '40 120'; do sleep 0.02; done;"
        "trap 'echo in''t; exit 6' INT; echo o''k; while :; do sleep 0.02; done"
    )
    user = terminal("sh", "-c", script, tty=True, interactive=True)
    assert b"30 100" in user.read_until(b"ready")
    assert not termios.tcgetattr(user.slave)[3] & termios.ECHO  # raw: it is the container's terminal that echoes
    os.write(user.master, b"word\r")
    user.read_until(b"got-word")
    fcntl.ioctl(user.master, termios.TIOCSWINSZ, struct.pack("4H", 40, 120, 0, 0))
    user.read_until(b"ok")
    os.write(user.master, b"\x03")
    user.read_until(b"int")
    assert user.process.wait(30) == 6
    assert termios.tcgetattr(user.slave)[:4] == user.before[:4]


def test_terminal_has_a_name_and_is_controlling(terminal: Callable[..., Terminal]) -> None:
    user = terminal("sh", "-c", "echo x > /dev/tty; ls -l /dev/console | cut -c1; test -t 1; echo rc=$?", tty=True)
    before = user.read_until(b"rc=0")
    assert b"x" in before
    assert b"c" in before
    assert user.process.wait(30) == 0


def test_terminal_is_restored_after_an_error(terminal: Callable[..., Terminal]) -> None:
    user = terminal("/none", tty=True, interactive=True)
    user.read_until(b"/none")
    assert user.process.wait(30) == 127
    assert termios.tcgetattr(user.slave)[:4] == user.before[:4]


def test_without_tty_a_terminal_is_not_handed_over(terminal: Callable[..., Terminal]) -> None:
    user = terminal("sh", "-c", "test -t 0; echo $?; test -t 1; echo $?; read x; echo got-$x; exit 4", interactive=True)
    os.write(user.master, b"line\n")
    assert b"1\r\n1\r\n" in user.read_until(b"got-line")
    assert user.process.wait(30) == 4


def test_tty_needs_a_terminal(rig: Rig) -> None:
    process = start(rig, "true", tty=True, interactive=True)
    _, err = process.communicate()
    assert process.returncode == 125
    assert b"no terminal" in err
